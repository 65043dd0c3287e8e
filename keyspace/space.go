package keyspace

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Identity is what every answer's header says about who answers.
type Identity struct {
	ClusterID uint64 // the mesh ID
	MemberID  uint64 // this node's name in etcd's API
}

// Outcome is what a command came to: the encoded etcd response, if it was wanted,
// or one of this package's errors.
type Outcome struct {
	Response []byte
	Err      error
}

// Space is one segment's keys, leases and alarms under etcd's rules.
type Space struct {
	seg    *mvcc.Segment
	ids    Identity
	limits Limits
	leased func([]lease.Event)

	mu      sync.RWMutex // held by Apply for one entry, inside the segment's lock
	leases  leaseTable
	alarms  alarmTable
	commits commits
	govern  govern
}

// scratch is memory that one command after the other uses. Thousands of spaces apply
// nothing, so it belongs to whoever applies.
type scratch struct {
	txn     codec.TxnRequest
	path    []bool
	ops     []byte
	cps     []codec.LeaseCheckpoint
	changes []lease.Event
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// NewSpace reads leases and alarms of an opened segment and returns its space. An
// error says that the stored state contradicts itself; the segment must not be
// served then.
func NewSpace(seg *mvcc.Segment, ids Identity, limits Limits) (*Space, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	s := &Space{seg: seg, ids: ids, limits: limits}
	if err := s.leases.load(seg); err != nil {
		return nil, fmt.Errorf("segment %s: %w", seg.ID(), err)
	}
	if err := s.alarms.load(seg); err != nil {
		return nil, fmt.Errorf("segment %s: %w", seg.ID(), err)
	}
	if err := s.commits.load(seg); err != nil { // after the leases, which look at the newest state
		return nil, fmt.Errorf("segment %s: %w", seg.ID(), err)
	}
	if err := s.govern.load(seg); err != nil {
		return nil, fmt.Errorf("segment %s: %w", seg.ID(), err)
	}
	return s, nil
}

// OnLeases sets who is told of applied lease commands, as events for the lease
// core: after the entry, from the goroutine of Apply. It must not block and must
// not keep the slice. Call it before the first Apply.
func (s *Space) OnLeases(fn func([]lease.Event)) { s.leased = fn }

// Limits returns the limits the space was made with.
func (s *Space) Limits() Limits { return s.limits }

// Revision returns the newest and the compacted revision.
func (s *Space) Revision() (current, compacted int64) { return s.seg.Revision() }

// Header returns the header of an answer at the newest revision.
func (s *Space) Header(term uint64) codec.Header {
	current, _ := s.seg.Revision()
	return s.header(current, term)
}

func (s *Space) header(rev int64, term uint64) codec.Header {
	return codec.Header{ClusterID: s.ids.ClusterID, MemberID: s.ids.MemberID, Revision: rev, RaftTerm: term}
}

// Apply applies the commands of the log entry (index, term) in order and returns
// their outcomes, one for each. Without want the responses are left out. An entry
// without commands moves the applied index.
func (s *Space) Apply(index, term uint64, cmds [][]byte, want bool) []Outcome {
	return s.ApplyWith(index, term, cmds, want, nil)
}

// ApplyWith is Apply, and lets its caller write to side tables of its own in the same
// batch. note may be nil.
func (s *Space) ApplyWith(index, term uint64, cmds [][]byte, want bool, note func(*mvcc.Batch)) []Outcome {
	out := make([]Outcome, len(cmds))
	rev, compacted := s.seg.Revision()
	used := scratches.Get().(*scratch)
	a := applier{s: s, index: index, term: term, want: want, rev: rev, compacted: compacted, scratch: used}
	if want {
		a.buf = make([]byte, 0, len(cmds)*responseSizeHint)
	}
	a.b = s.seg.Begin(index, term)
	s.mu.Lock()
	for i, cmd := range cmds {
		if out[i] = a.apply(cmd); out[i].Err != nil {
			s.govern.note(out[i].Err)
		}
	}
	s.govern.writes.Add(a.writes)
	a.hold()
	if note != nil {
		note(a.b)
	}
	a.b.End()
	a.release()
	s.leases.trim(s.seg.KeyRange())
	s.mu.Unlock()
	if changes := used.changes; len(changes) > 0 {
		if s.leased != nil {
			s.leased(changes)
		}
		clear(changes)
		used.changes = changes[:0]
	}
	scratches.Put(used)
	return out
}

// responseSizeHint is room for the answer to a put, whose header is all it holds.
const responseSizeHint = 48

// applier applies the commands of one entry.
type applier struct {
	s           *Space
	b           *mvcc.Batch
	index, term uint64
	want        bool
	dry         bool    // it only judges: nothing is written
	stamp       int64   // revision that came with the command, or zero: the next one
	by          *Origin // who gave the command, if that came with it
	inner       []byte  // the command, then
	rev         int64   // newest revision so far
	compacted   int64   // below it nothing can be read
	writes      int64   // commands that wrote something
	held, freed []int64 // stamps of what was prepared, and of what was decided
	buf         []byte  // responses, one after the other
	scratch     *scratch
}

func (a *applier) apply(cmd []byte) Outcome {
	if len(cmd) == 0 {
		panic(fmt.Sprintf("keyspace: segment %s: entry %d holds an empty command: the log is damaged or was written by a defective program; restore this replica from another",
			a.s.seg.ID(), a.index))
	}
	op, raw := Op(cmd[0]), cmd[1:]
	switch op {
	case OpStamped:
		return a.stamped(cmd)
	case OpBy:
		return a.given(cmd)
	}
	if a.s.alarms.corrupt() && op != OpAlarm && op != OpLeaseCheckpoint && !finishes(op) {
		return Outcome{Err: ErrCorrupt}
	}
	if !a.s.commits.Idle() && a.blocked(op, raw) {
		return Outcome{Err: ErrLocked}
	}
	switch op {
	case OpPut:
		return a.put(raw)
	case OpDeleteRange:
		return a.deleteRange(raw)
	case OpTxn:
		return a.txn(raw)
	case OpCompact, OpCompactOwn:
		return a.compact(raw, op == OpCompactOwn)
	case OpShare:
		return a.setShare(raw)
	case OpLeaseGrant:
		return a.leaseGrant(raw)
	case OpLeaseRevoke:
		return a.leaseRevoke(raw)
	case OpLeaseCheckpoint:
		return a.leaseCheckpoint(raw)
	case OpLeaseExpire:
		return a.leaseExpire(raw)
	case OpAlarm:
		return a.alarm(raw)
	case OpLeaseRegister, OpLeaseFinish, OpLeaseOpen, OpLeaseEnd, OpLeaseForget:
		return a.leaseMark(op, raw)
	case OpLeaseEnding:
		return a.leaseEnding(raw)
	case OpPrepare, OpCommit, OpAbort, OpDecide, OpForget:
		return a.transact(op, raw)
	}
	panic(fmt.Sprintf("keyspace: segment %s: entry %d holds the unknown command %v: the log was written by a newer program; start that version or newer on this node",
		a.s.seg.ID(), a.index, op))
}

// transact applies a part of a transaction over several segments.
func (a *applier) transact(op Op, raw []byte) (out Outcome) {
	failpoint.Hit(phases[op].before)
	if op == OpPrepare {
		out = a.prepare(raw)
	} else {
		out = a.finish(op, raw)
	}
	failpoint.Hit(phases[op].after)
	return out
}

// phases are the failpoints of transactions over several segments, by Op.
var phases = [...]struct{ before, after string }{
	OpPrepare: {"txn/before-prepare", "txn/after-prepare"},
	OpDecide:  {"txn/before-decide", "txn/after-decide"},
	OpCommit:  {"txn/before-commit", "txn/after-commit"},
	OpAbort:   {"txn/before-abort", "txn/after-abort"},
	OpForget:  {"txn/before-forget", "txn/after-forget"},
}

// header is that of an answer at revision rev.
func (a *applier) header(rev int64) codec.Header { return a.s.header(rev, a.term) }

// begin returns where the next response starts; answer ends it.
func (a *applier) begin() int { return len(a.buf) }

func (a *applier) answer(start int) Outcome {
	if !a.want {
		return Outcome{}
	}
	return Outcome{Response: a.buf[start:len(a.buf):len(a.buf)]}
}

// outside reports whether etcd's (key, range_end) leaves the segment's range. The
// sender has checked that too; here it protects the state against a defect there.
func (s *Space) outside(key, end []byte) bool { return leaves(s.seg.KeyRange(), key, end) }

func leaves(rng anchormesh.KeyRange, key, end []byte) bool {
	if len(rng.Start) == 0 && len(rng.End) == 0 {
		return false
	}
	switch {
	case len(end) == 0:
		return !rng.Contains(key)
	case bytes.Compare(key, rng.Start) < 0:
		return true
	case len(rng.End) == 0:
		return false
	}
	return len(end) == 1 && end[0] == 0 || bytes.Compare(end, rng.End) > 0
}

// txnOutside looks at every key a transaction names, on both branches, because
// which one is taken is known only behind the compares.
func txnOutside(rng anchormesh.KeyRange, r *codec.TxnRequest) bool {
	for i := range r.Compare {
		if leaves(rng, r.Compare[i].Key, r.Compare[i].RangeEnd) {
			return true
		}
	}
	return opsOutside(rng, r.Success) || opsOutside(rng, r.Failure)
}

func opsOutside(rng anchormesh.KeyRange, ops []codec.RequestOp) bool {
	for i := range ops {
		op, out := &ops[i], false
		switch op.Kind {
		case codec.KindRange:
			out = leaves(rng, op.Range.Key, op.Range.RangeEnd)
		case codec.KindPut:
			out = leaves(rng, op.Put.Key, nil)
		case codec.KindDeleteRange:
			out = leaves(rng, op.DeleteRange.Key, op.DeleteRange.RangeEnd)
		case codec.KindTxn:
			out = txnOutside(rng, op.Txn)
		}
		if out {
			return true
		}
	}
	return false
}
