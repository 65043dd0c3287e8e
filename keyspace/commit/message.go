package commit

import "github.com/anchormesh/anchormesh"

// Effect is what a core wants done: a request to the segment that holds a key now
// (whichever that is: records are found by key), a question to the scope's home, or
// the client's answer. Each request is sent once and never duplicated on the way;
// one that certainly took effect nowhere (no leader, a stale route) the carrier may
// try again by itself.
type Effect interface{ effect() }

// Effects.
type (
	// Acquire: lock at the leader, wait until all it proposed before is applied, then
	// read. Answer: Acquired or Failed.
	Acquire struct {
		Part  int
		Key   []byte
		Locks []Lock
		Reads []Read
	}
	// PrepareAt: Locks.Propose, then a stamp, then the command into the log. Answer:
	// Prepared, Failed or Lost.
	PrepareAt struct {
		Part    int
		Key     []byte
		Command *Prepare
	}
	// AskRevision: a number of the scope's line, asked for now. Answer: Numbered or
	// Failed.
	AskRevision struct{}
	// DecideAt: the command into the log. Answer: Decided, Failed or Lost.
	DecideAt struct{ Command *Decide }
	// TellAt: Locks.Release, then OpCommit or OpAbort into the log of the segment that
	// holds Span.Start, even if nothing is prepared there. Answer: Told or Lost.
	TellAt struct {
		Span    anchormesh.KeyRange
		Command *Finish
	}
	// ForgetAt: OpForget into the log. Answer: Forgot or Lost.
	ForgetAt struct {
		Key []byte
		Txn TxnID
	}
	// ReleaseAt: Locks.Release; nobody waits for an answer.
	ReleaseAt struct {
		Key []byte
		Txn TxnID
	}
	// Answer is the client's. It comes once.
	Answer struct {
		Outcome  Outcome
		Revision int64 // of a commit
		Plan     *Plan // of a commit
		Err      error // why not
	}
)

func (Acquire) effect()     {}
func (PrepareAt) effect()   {}
func (AskRevision) effect() {}
func (DecideAt) effect()    {}
func (TellAt) effect()      {}
func (ForgetAt) effect()    {}
func (ReleaseAt) effect()   {}
func (Answer) effect()      {}

// Outcome is how a transaction ended for the client.
type Outcome uint8

// Outcomes.
const (
	// Committed: the decision is applied. Any read that begins now sees it.
	Committed Outcome = iota + 1
	// Again: it took effect nowhere; another try, under another TxnID and in key
	// order, may succeed.
	Again
	// Refused: it took effect nowhere and Err is the client's.
	Refused
	// Unknown: it may have taken effect, or still will. Never try again.
	Unknown
)

// Event is what came of an effect.
type Event interface{ event() }

// Events.
type (
	// Acquired answers Acquire: what each read got, in order.
	Acquired struct {
		Part   int
		Grant  Grant
		Values []Got
	}
	// Prepared answers PrepareAt: the stamp is the record's.
	Prepared struct {
		Part  int
		Stamp int64
	}
	// Numbered answers AskRevision.
	Numbered struct{ Revision int64 }
	// Decided answers DecideAt with what stands there now, and the range of the
	// segment that applied it.
	Decided struct {
		Verdict
		Range anchormesh.KeyRange
	}
	// Told answers TellAt: applied, in the segment of this range.
	Told struct {
		Span, Range anchormesh.KeyRange
	}
	// Forgot answers ForgetAt.
	Forgot struct{}
	// Failed says that what was asked certainly took effect nowhere. Final means
	// that trying again is in vain: the error is for the client.
	Failed struct {
		Err   error
		Final bool
	}
	// Lost says that an answer will not come: the request may have taken effect, or
	// may still. Span names it if it was a TellAt.
	Lost struct{ Span anchormesh.KeyRange }
	// GiveUp: the client or the node will not wait any longer.
	GiveUp struct{ Err error }
)

func (Acquired) event() {}
func (Prepared) event() {}
func (Numbered) event() {}
func (Decided) event()  {}
func (Told) event()     {}
func (Forgot) event()   {}
func (Failed) event()   {}
func (Lost) event()     {}
func (GiveUp) event()   {}
