package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

const (
	// OpApproved holds requests of clients and the votes on them: approval.Batch.
	OpApproved = keyspace.OpStructural + 16 + iota
	// OpTrust changes the weights of the anchors: see Trusted.
	OpTrust
)

// ErrUnapproved says that a write came without approvals where the policy in force wants
// them. It took effect nowhere.
var ErrUnapproved = errors.New("the scope's policy wants the anchors' approvals, which the write does not have")

// RefusedError says that the anchors refused a write. It took effect nowhere.
type RefusedError struct {
	Rule   string // which rule, and why: what the voter signed
	By     anchormesh.NodeID
	Denied bool // it is about who writes
}

// Error is the text that the client gets.
func (e *RefusedError) Error() string {
	if e.Rule == "" {
		return "etcdserver: the scope's anchors did not approve the write"
	}
	return fmt.Sprintf("%s (refused by anchor %s)", e.Rule, e.By)
}

// GRPCStatus says what a client gets: PermissionDenied if the rule is about who writes,
// and FailedPrecondition if it is about what is written or what there is.
func (e *RefusedError) GRPCStatus() *status.Status {
	if e.Denied {
		return status.New(codes.PermissionDenied, e.Error())
	}
	return status.New(codes.FailedPrecondition, e.Error())
}

// RefusalOf words a verdict that does not admit.
func RefusalOf(v approval.Verdict) error {
	e := &RefusedError{By: v.By}
	if v.Refusal != nil {
		e.Rule, e.Denied = v.Refusal.Rule, v.Refusal.Denied
	}
	return e
}

// Verify checks that a statement was signed by a node. It must be a function of its
// arguments: it is asked in apply.
type Verify func(node anchormesh.NodeID, statement, signature []byte) bool

// approvals is what the machine remembers of approved batches. The last admitted one is
// replicated state, in a side table.
type approvals struct {
	verify Verify
	forged func(term uint64, err error) // nil: nobody wants to know
	// required: changes of structure need votes or a decision.
	required bool

	mu      sync.Mutex
	last    Admitted
	waiting []admission
	voters  electorate
}

// Admitted names the last approved batch that was admitted.
type Admitted struct{ Term, Sequence uint64 }

// Covers reports whether the batch of a term, or one behind it, was admitted.
func (a Admitted) Covers(term, sequence uint64) bool {
	return a.Term > term || a.Term == term && a.Sequence >= sequence
}

// admission is somebody who waits for a batch.
type admission struct {
	batch Admitted
	done  chan struct{}
}

// electorate is what follows from the state in force: it is computed once.
type electorate struct {
	of *State
	is *trust.Electorate
}

// approvedTable is the side table with the last admitted batch: key empty, value
// uvarint term, uvarint sequence.
const approvedTable = "approved"

func (a *approvals) load(g *mvcc.Segment) (err error) {
	g.ForEachAux(approvedTable, func(_, v []byte) {
		r := reader{fields.Reader{Rest: v}}
		a.last = Admitted{Term: r.AtMost(1<<63 - 1), Sequence: r.AtMost(1<<63 - 1)}
		if err = r.end(); err != nil {
			err = fmt.Errorf("the last approved batch cannot be read: %w", err)
		}
	})
	return err
}

// admit notes a batch in the batch of the store, and tells who waits for it once that
// has ended.
func (a *approvals) note(b *mvcc.Batch, now Admitted) {
	b.PutAux(approvedTable, nil, binary.AppendUvarint(binary.AppendUvarint(nil, now.Term), now.Sequence))
}

func (a *approvals) admitted(now Admitted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = now
	a.waiting = slices.DeleteFunc(a.waiting, func(w admission) bool {
		over := now.Covers(w.batch.Term, w.batch.Sequence)
		if over {
			close(w.done)
		}
		return over
	})
}

// OnForged sets who is told of batches whose votes were not given: the leader of that
// term proposed one. It is called from apply, and before the first entry is applied.
func (m *Machine) OnForged(f func(term uint64, err error)) { m.approvals.forged = f }

// Admitted returns a channel that is closed once an approved batch of the term, with
// this sequence or a later one, was admitted here; or one of a later term. cancel gives
// the wait up.
func (m *Machine) Admitted(term, sequence uint64) (done <-chan struct{}, cancel func()) {
	a := &m.approvals
	ch := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.Covers(term, sequence) {
		close(ch)
		return ch, func() {}
	}
	a.waiting = append(a.waiting, admission{Admitted{term, sequence}, ch})
	return ch, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.waiting = slices.DeleteFunc(a.waiting, func(w admission) bool { return w.done == ch })
	}
}

// Approvals returns the threshold that ordinary writes must reach; false: they need none.
func (s *State) Approvals() (trust.Threshold, bool) {
	if s.Policy == nil || s.Policy.Approvals.Threshold.IsZero() {
		return trust.Threshold{}, false
	}
	return s.Policy.Approvals.Threshold, true
}

// VoterNodes names the voters in force, sorted.
func (s *State) VoterNodes() []anchormesh.NodeID {
	var out []anchormesh.NodeID
	for _, v := range s.Descriptor.Voters() {
		out = append(out, v.Node)
	}
	slices.Sort(out)
	return out
}

// Thresholds are those of the policy in force that effective weights have to fit.
func (s *State) Thresholds() []trust.Threshold {
	if s.Policy == nil {
		return []trust.Threshold{{}}
	}
	out := []trust.Threshold{s.Policy.Amend.Threshold}
	if t, wanted := s.Approvals(); wanted {
		out = append(out, t)
	}
	return out
}

// Electorate returns the voters in force with their effective weights.
func (s *State) Electorate() *trust.Electorate {
	return s.Trust.Elect(s.VoterNodes(), s.Thresholds()...)
}

// Electorate is State's, computed once for each state.
func (m *Machine) Electorate() *trust.Electorate { return m.electorateOf(m.state.Load()) }

func (m *Machine) electorateOf(s *State) *trust.Electorate {
	m.approvals.mu.Lock()
	defer m.approvals.mu.Unlock()
	if v := m.approvals.voters; v.of == s {
		return v.is
	}
	is := s.Electorate()
	if m.state.Load() == s { // or it would keep a state that is over
		m.approvals.voters = electorate{of: s, is: is}
	}
	return is
}

// InForce is what an approved batch of an entry at this place is judged against.
func (m *Machine) InForce(index, term uint64) approval.InForce {
	s := m.state.Load()
	d, threshold := s.Descriptor, trust.Threshold{}
	if t, wanted := s.Approvals(); wanted {
		threshold = t
	}
	in := approval.InForce{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, Configuration: d.Changed, Term: term,
		Policy: d.Policy, Trust: s.Trust.Version(), Index: index, Threshold: threshold, Voters: m.electorateOf(s),
	}
	m.approvals.mu.Lock()
	defer m.approvals.mu.Unlock()
	if m.approvals.last.Term == term {
		in.Sequence = m.approvals.last.Sequence
	}
	return in
}

// applyApproved applies the requests of a batch that are admitted. An error of the
// outcome is a known one: the entry took effect nowhere.
func (m *Machine) applyApproved(e *consensus.Entry, want bool) consensus.Outcome {
	batch, verdicts, err := m.judge(e)
	if err != nil {
		if errors.Is(err, approval.ErrForged) && m.approvals.forged != nil {
			m.approvals.forged(e.Term, err)
		}
		m.skip(e)
		return consensus.Outcome{Err: err}
	}
	var commands [][]byte
	for i, v := range verdicts {
		if v.Admitted {
			commands = append(commands, batch.Slots[i].Bytes)
		}
	}
	now := Admitted{Term: e.Term, Sequence: batch.Question.Sequence}
	outcomes := m.space.ApplyWith(e.Index, e.Term, commands, want, func(b *mvcc.Batch) { m.approvals.note(b, now) })
	m.approvals.admitted(now)
	if !want {
		return consensus.Outcome{}
	}
	parts := make([]consensus.Part, len(verdicts))
	for i, v := range verdicts {
		if !v.Admitted {
			parts[i].Err = RefusalOf(v)
			continue
		}
		parts[i], outcomes = consensus.Part{Response: outcomes[0].Response, Err: outcomes[0].Err}, outcomes[1:]
	}
	return consensus.Outcome{Parts: parts}
}

// judge counts the votes of an entry's batch against the state in force.
func (m *Machine) judge(e *consensus.Entry) (*approval.Batch, []approval.Verdict, error) {
	batch, err := approval.Parse(e.Payloads[0][1:])
	if err != nil {
		return nil, nil, err
	}
	now := m.state.Load()
	if err := now.Silent(); err != nil {
		return nil, nil, err
	}
	if _, wanted := now.Approvals(); !wanted {
		return nil, nil, fmt.Errorf("%w: the policy in force wants no approvals", approval.ErrStale)
	}
	for i := range batch.Slots {
		if s := &batch.Slots[i]; s.Bytes != nil && !votable(s) {
			return nil, nil, fmt.Errorf("%w: request %d is nothing that is voted on", approval.ErrForged, i)
		}
	}
	in := m.InForce(e.Index, e.Term)
	verdicts, err := batch.Judge(&in, m.approvals.verify)
	return batch, verdicts, err
}

// votable reports whether a slot holds a client's write, and nothing but its stamp in
// front of it.
func votable(s *approval.Slot) bool {
	if s.Prefix == 0 {
		return keyspace.Op(s.Bytes[0]) != keyspace.OpStamped && keyspace.Writes(s.Bytes)
	}
	_, _, stamped := keyspace.CutStamp(s.Bytes)
	return stamped && s.Prefix == keyspace.StampBytes && keyspace.Writes(s.Bytes)
}

// applyUnapproved applies an entry where writes need approvals: those in it have none.
func (m *Machine) applyUnapproved(e *consensus.Entry, want bool) []consensus.Outcome {
	out, rest := make([]consensus.Outcome, len(e.Payloads)), make([][]byte, 0, len(e.Payloads))
	for i, p := range e.Payloads {
		if keyspace.Writes(p) {
			out[i].Err = ErrUnapproved
		} else {
			rest = append(rest, p)
		}
	}
	if len(rest) == 0 {
		m.skip(e)
		return out
	}
	outcomes := m.space.Apply(e.Index, e.Term, rest, want)
	for i := range out {
		if out[i].Err == nil {
			out[i] = consensus.Outcome{Response: outcomes[0].Response, Err: outcomes[0].Err}
			outcomes = outcomes[1:]
		}
	}
	return out
}
