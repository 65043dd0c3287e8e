package commit

import "github.com/anchormesh/anchormesh"

// The commands that go into logs, without the byte that names the operation (which
// is package keyspace's) and, of a prepare, without the stamp in front:
//
//	all       version 1 | TxnID (16) | ...
//	prepare   term | generation | scope | number | decision key | spans | locks | writes
//	commit    flag | revision
//	abort
//	decide    flag | revision | decision key | spans
//	forget
//
//	spans     n | n times (start | end)
//	locks     n | n times (start | end | flag: exclusive)
//	writes    n | n times (sub | flag: delete | key [| value | lease])
//
// Numbers are uvarints, byte strings carry their length as one, flags are 0 or 1.

// Prepare is OpPrepare. It travels behind a stamp, as every write does.
type Prepare struct {
	Txn      TxnID
	Grant    Grant
	Decision []byte
	Spans    []anchormesh.KeyRange
	Locks    []Lock
	Writes   []Write
}

// Encode returns the command's bytes.
func (c *Prepare) Encode() []byte {
	w := begin(c.Txn)
	w.uint(c.Grant.Place.Term)
	w.uint(uint64(c.Grant.Place.Generation))
	w.bytes([]byte(c.Grant.Place.Scope))
	w.uint(c.Grant.Number)
	w.bytes(c.Decision)
	w.spans(c.Spans)
	w.locks(c.Locks)
	w.writes(c.Writes)
	return w.b
}

// DecodePrepare reads what Encode wrote; the error is ErrMalformed. The result
// shares no memory with b.
func DecodePrepare(b []byte) (*Prepare, error) {
	r, id := open(b)
	c := &Prepare{Txn: id}
	c.Grant.Place = Place{Term: r.uint(), Generation: anchormesh.Generation(r.uint()), Scope: string(r.bytes())}
	c.Grant.Number = r.uint()
	c.Decision, c.Spans, c.Locks, c.Writes = r.bytes(), r.spans(), r.locks(), r.writes()
	return c, r.end()
}

// Finish is what a participant is told: OpCommit or, without Commit, OpAbort.
type Finish struct {
	Txn TxnID
	Verdict
}

// Encode returns the command's bytes.
func (c *Finish) Encode() []byte {
	w := begin(c.Txn)
	if c.Commit {
		w.verdict(c.Verdict)
	}
	return w.b
}

// DecodeCommit reads an OpCommit; the error is ErrMalformed.
func DecodeCommit(b []byte) (*Finish, error) {
	r, id := open(b)
	c := &Finish{Txn: id, Verdict: r.verdict()}
	if r.err == nil && !c.Commit {
		r.fail("a commit that aborts")
	}
	return c, r.end()
}

// DecodeID reads an OpAbort or an OpForget; the error is ErrMalformed.
func DecodeID(b []byte) (TxnID, error) {
	r, id := open(b)
	return id, r.end()
}

// EncodeID writes an OpForget.
func EncodeID(id TxnID) []byte { return begin(id).b }

// Decide is OpDecide: the verdict that is wanted. What is decided may be another,
// if that was written first.
type Decide struct {
	Txn TxnID
	Verdict
	Key   []byte // it goes to the range that holds this key
	Spans []anchormesh.KeyRange
}

// Encode returns the command's bytes.
func (c *Decide) Encode() []byte {
	w := begin(c.Txn)
	w.verdict(c.Verdict)
	w.bytes(c.Key)
	w.spans(c.Spans)
	return w.b
}

// DecodeDecide reads what Encode wrote; the error is ErrMalformed.
func DecodeDecide(b []byte) (*Decide, error) {
	r, id := open(b)
	c := &Decide{Txn: id, Verdict: r.verdict(), Key: r.bytes(), Spans: r.spans()}
	return c, r.end()
}

// Reply is what applying one of the commands came to; what it does not concern is
// zero.
type Reply struct {
	Stamp   int64 // of what is prepared
	Verdict       // that stands
	// Range is that of the segment that applied it.
	Range anchormesh.KeyRange
}

// Encode returns the reply's bytes.
func (r *Reply) Encode() []byte {
	w := &writer{[]byte{format}}
	w.uint(uint64(r.Stamp))
	w.verdict(r.Verdict)
	w.span(r.Range)
	return w.b
}

// DecodeReply reads what Encode wrote; the error is ErrMalformed.
func DecodeReply(b []byte) (*Reply, error) {
	r := &reader{b: b}
	if v := r.take(1); r.err == nil && v[0] != format {
		r.fail("format")
	}
	out := &Reply{Stamp: int64(r.uint()), Verdict: r.verdict(), Range: r.span()}
	return out, r.end()
}
