package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// commits is the segment's share of transactions over several segments, and who must
// hear of it.
type commits struct {
	commit.Participant
	place  commit.Place // but for the term, which is each entry's
	counts bool         // revisions are counted here, not stamped
	at     uint64       // index of the last entry that prepared or decided something
	onHold func(Hold)
	// onUnsettled is told of changes of unsettled; may be nil.
	onUnsettled func(bool)
	// unsettled: something is prepared, or decided and not forgotten. It can be asked for
	// without the lock.
	unsettled atomic.Bool
}

// Hold tells that a transaction was prepared or decided here.
type Hold struct {
	Index    uint64 // of the entry
	Stamp    int64  // of the transaction; zero: only Lowest has changed
	Released bool   // it was decided
	// Lowest is the smallest stamp of what is prepared, or zero: nothing at or above it
	// may be shown to those who want everything in order.
	Lowest int64
}

// OnHold sets who is told: of what was prepared before the entry is shown and
// published, of what was decided behind it. It is called inside Apply, must not block
// and must not call back into the Space. Call OnHold before the first Apply.
func (s *Space) OnHold(fn func(Hold)) { s.commits.onHold = fn }

// SetPlace says which generation and line the segment is of: a prepare whose locks were
// granted elsewhere is refused. A segment that counts takes prepares without a stamp.
func (s *Space) SetPlace(generation anchormesh.Generation, line string, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits.place = commit.Place{Generation: generation, Scope: line}
	s.commits.counts = counts
}

// Held returns the stamps of what is prepared, as of the entry at index: OnHold tells of
// what comes behind it.
func (s *Space) Held() (stamps []int64, index uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.commits.Records() {
		stamps = append(stamps, r.Stamp)
	}
	return stamps, s.commits.at
}

// Participant calls fn with the transactions prepared and decided here, which must not
// be kept or changed. Apply waits meanwhile.
func (s *Space) Participant(fn func(*commit.Participant)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn(&s.commits.Participant)
}

// Unsettled reports whether there is anything in Participant. It costs nothing.
func (s *Space) Unsettled() bool { return s.commits.unsettled.Load() }

// OnUnsettled sets who is told, inside Apply, when that changes. It must not block. Call
// it before the first Apply.
func (s *Space) OnUnsettled(fn func(bool)) { s.commits.onUnsettled = fn }

// Locks returns what a command would lock if it were a transaction's.
func (s *Space) Locks(cmd []byte) []commit.Lock {
	if len(cmd) == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.locksOf(Op(cmd[0]), cmd[1:])
}

// ReadLocked reads for a transaction over several segments what it has locked, each
// read by itself. now is a revision of the scope's line, at which everything of the past
// that is asked for is complete here; zero if nothing is. The errors are
// commit.ErrTooLarge, and ErrWrongSegment: the segment has just left this node.
func (s *Space) ReadLocked(reads []commit.Read, now int64) ([]commit.Got, error) {
	v := s.seg.ReadApplied()
	defer v.Close()
	past := s.seg.ReadAt(now)
	defer past.Close()
	out, size := make([]commit.Got, len(reads)), 0
	for i, r := range reads {
		end := r.Range.End
		if len(end) == 0 {
			end = []byte{0}
		}
		on := v
		if r.Revision > 0 {
			on = past
		}
		err := checkRevision(r.Revision, now, v.Compacted())
		var res mvcc.Result
		if err == nil {
			res, err = on.Range(r.Range.Start, end, max(r.Revision, 0), 0, false)
		}
		if errors.Is(err, mvcc.ErrGone) {
			return nil, fmt.Errorf("%w: %w", ErrWrongSegment, err)
		}
		out[i].Err = err
		for k := range res.KVs {
			kv := codec.KeyValue{}
			if err := codec.ParseKeyValue(bytes.Clone(res.KVs[k].Raw), &kv); err != nil {
				panic("keyspace: a stored key-value cannot be read: " + err.Error())
			}
			if size += len(kv.Key) + len(kv.Value); size > commit.ReadBytesMax {
				return nil, commit.ErrTooLarge
			}
			if !r.Values {
				kv.Value = nil
			}
			out[i].KVs = append(out[i].KVs, kv)
		}
	}
	return out, nil
}

var commitTables = []string{commit.TablePrepared, commit.TableDecision, commit.TableFloor}

func (c *commits) load(seg *mvcc.Segment) error {
	var err error
	for _, table := range commitTables {
		seg.ForEachAux(table, func(k, v []byte) {
			if bad := c.Load(table, k, v); bad != nil && err == nil {
				err = fmt.Errorf("stored transaction cannot be read: %w: restore this replica from another", bad)
			}
		})
	}
	lowest, _ := c.Lowest()
	seg.Hold(lowest)
	c.unsettled.Store(c.Unsettled())
	return err
}

// rows is where rows of side tables are written: a batch, or a child of it.
type rows interface {
	PutAux(table string, key, val []byte)
}

func (c *commits) save(b *mvcc.Batch) {
	if now := c.Unsettled(); c.unsettled.Swap(now) != now && c.onUnsettled != nil {
		c.onUnsettled(now)
	}
	for _, ch := range c.Changes() {
		if ch.Value == nil {
			b.DeleteAux(ch.Table, ch.Key)
		} else {
			b.PutAux(ch.Table, ch.Key, ch.Value)
		}
	}
}

func saveNew(p *commit.Participant, to rows) {
	for _, ch := range p.Changes() {
		to.PutAux(ch.Table, ch.Key, ch.Value)
	}
}

// cutCommits gives the child its share.
func (s *Space) cutCommits(b *mvcc.Batch, child rows, at []byte) {
	saveNew(s.commits.Cut(at), child)
	s.rehold(b)
}

// rehold stores what a cut or an absorb changed.
func (s *Space) rehold(b *mvcc.Batch) {
	s.commits.save(b)
	s.commits.at = b.Index()
	lowest, _ := s.commits.Lowest()
	b.Hold(lowest)
	s.commits.tell(Hold{Index: b.Index(), Lowest: lowest})
}

func (c *commits) tell(h Hold) {
	if c.onHold != nil {
		c.onHold(h)
	}
}

// hold stores what the entry prepared and decided, and tells of the first before it is
// shown: what the entry published may lie behind it. A lower stamp that was held before
// the entry still counts, whose outcome is only now on its way.
func (a *applier) hold() {
	c := &a.s.commits
	c.save(a.b)
	if len(a.held)+len(a.freed) == 0 {
		return
	}
	c.at = a.index
	lowest, _ := c.Lowest()
	a.b.Hold(lowest)
	for _, p := range slices.Concat(a.freed, a.held) {
		if lowest == 0 || p < lowest {
			lowest = p
		}
	}
	for _, p := range a.held {
		c.tell(Hold{Index: a.index, Stamp: p, Lowest: lowest})
	}
}

// release tells of what the entry decided.
func (a *applier) release() {
	lowest, _ := a.s.commits.Lowest()
	for _, p := range a.freed {
		a.s.commits.tell(Hold{Index: a.index, Stamp: p, Released: true, Lowest: lowest})
	}
}

// finishes reports whether a command ends what was prepared: it is never refused.
func finishes(op Op) bool { return op >= OpCommit && op <= OpForget }

// prepare applies OpPrepare. Whatever could refuse the transaction later is judged here.
func (a *applier) prepare(raw []byte) Outcome {
	c, err := commit.DecodePrepare(raw)
	switch {
	case err != nil:
		return Outcome{Err: err}
	case a.stamp == 0 && !a.s.commits.counts:
		return Outcome{Err: codec.ErrMalformed}
	}
	if err := a.admitPrepare(c); err != nil {
		return Outcome{Err: err}
	}
	place := a.s.commits.place
	place.Term = a.term
	before, joins := a.s.commits.Record(c.Txn)
	again := a.s.commits.Has(c)
	if !again && a.s.govern.governs() {
		if err := a.judgePrepare(c); err != nil {
			return Outcome{Err: err}
		}
	}
	own := a.stamp
	if own == 0 { // the segment counts: the prepare takes the next number
		own = max(a.rev, a.s.commits.Floor()) + 1
	}
	stamp, err := a.s.commits.Prepare(place, own, c)
	if err != nil {
		return Outcome{Err: err}
	}
	if !again {
		a.held = append(a.held, stamp)
		if joins {
			a.freed = append(a.freed, before.Stamp)
		}
		if a.stamp == 0 {
			a.b.Raise(stamp)
			a.rev = stamp
		}
		a.reserve(c.Txn)
	}
	return a.replied(commit.Reply{Stamp: stamp})
}

func (a *applier) admitPrepare(c *commit.Prepare) error {
	rng := a.s.seg.KeyRange()
	for i := range c.Locks {
		if !rng.Covers(c.Locks[i].Range) {
			return ErrWrongSegment
		}
	}
	for i := range c.Writes {
		w := &c.Writes[i]
		switch {
		case !rng.Contains(w.Key):
			return ErrWrongSegment
		case w.Delete:
		case a.s.alarms.noSpace():
			return ErrNoSpace
		case !a.s.leases.has(w.Lease, w.Key):
			return ErrLeaseNotFound
		}
	}
	return nil
}

// finish applies what comes behind a prepare.
func (a *applier) finish(op Op, raw []byte) Outcome {
	id, do, err := a.finisher(op, raw)
	if err != nil {
		return Outcome{Err: err}
	}
	before, prepared := a.s.commits.Record(id)
	verdict, writes, err := do()
	a.write(verdict.Revision, writes)
	if _, still := a.s.commits.Record(id); prepared && !still {
		a.freed = append(a.freed, before.Stamp)
		delete(a.s.govern.reserved, id)
	}
	if err != nil {
		return Outcome{Err: err}
	}
	return a.replied(commit.Reply{Verdict: verdict})
}

// finisher reads a command: of which transaction it is, and what it does.
func (a *applier) finisher(op Op, raw []byte) (id commit.TxnID, do func() (commit.Verdict, []commit.Write, error), err error) {
	c := &a.s.commits
	switch op {
	case OpCommit:
		f, err := commit.DecodeCommit(raw)
		return f.Txn, func() (commit.Verdict, []commit.Write, error) {
			writes, err := c.Commit(f.Txn, f.Revision)
			return f.Verdict, writes, err
		}, err
	case OpDecide:
		d, err := commit.DecodeDecide(raw)
		if err == nil && !a.s.seg.KeyRange().Contains(d.Key) {
			err = ErrWrongSegment
		}
		return d.Txn, func() (commit.Verdict, []commit.Write, error) { return c.Decide(d) }, err
	}
	id, err = commit.DecodeID(raw)
	return id, func() (v commit.Verdict, w []commit.Write, err error) {
		if op == OpForget {
			c.Forget(id)
		} else {
			c.Abort(id)
		}
		return v, w, nil
	}, err
}

// write makes the writes of a transaction that was committed.
func (a *applier) write(rev int64, writes []commit.Write) {
	if len(writes) == 0 {
		return
	}
	t := a.b.CommitAt(rev)
	for i := range writes {
		w := &writes[i]
		t.Place(int64(w.Sub))
		if w.Delete {
			a.drop(t, w.Key)
			a.s.leases.attach(w.Key, 0)
		} else {
			a.set(t, w.Key, w.Value, w.Lease)
		}
	}
	a.end(t)
}

func (a *applier) replied(r commit.Reply) Outcome {
	if !a.want {
		return Outcome{}
	}
	r.Range = a.s.seg.KeyRange()
	return Outcome{Response: r.Encode()}
}

// blocked reports whether something prepared is in the way of an ordinary command.
func (a *applier) blocked(op Op, raw []byte) bool {
	if op == OpCompact || op == OpCompactOwn {
		var r codec.CompactionRequest
		lowest, _ := a.s.commits.Lowest()
		return codec.ParseCompaction(raw, &r) == nil && r.Revision > lowest
	}
	if id, ok := endsLease(op, raw); ok {
		if _, holds := a.s.commits.HoldsLease(id); holds {
			return true
		}
	}
	_, conflicts := a.s.commits.Blocks(commit.TxnID{}, a.s.locksOf(op, raw))
	return conflicts
}

// EndsLease reports whether a command deletes the keys of a lease: what these are is known
// when everything before it is applied.
func EndsLease(cmd []byte) bool {
	if len(cmd) == 0 {
		return false
	}
	if Op(cmd[0]) == OpBy {
		_, inner, ok := cutOrigin(cmd[1:])
		return ok && EndsLease(inner)
	}
	_, ok := endsLease(Op(cmd[0]), cmd[1:])
	return ok
}

// endsLease names the lease whose keys a command deletes.
func endsLease(op Op, raw []byte) (id int64, ok bool) {
	var err error
	switch op {
	case OpLeaseRevoke:
		id, err = codec.ParseLeaseID(raw)
	case OpLeaseExpire, OpLeaseEnding:
		var e codec.LeaseExpiry
		err = codec.ParseLeaseExpiry(raw, &e)
		id = e.ID
	case OpLeaseEnd:
		var m codec.LeaseMark
		err = codec.ParseLeaseMark(raw, &m)
		id = m.ID
	default:
		return 0, false
	}
	return id, err == nil
}

// locksOf is what a command locks. Parts of it may be malformed: that is found later.
func (s *Space) locksOf(op Op, raw []byte) (out []commit.Lock) {
	if id, ok := endsLease(op, raw); ok {
		for _, key := range s.leases.keys(id, s.seg.KeyRange()) {
			out = append(out, commit.Lock{Range: anchormesh.RequestRange([]byte(key), nil), Exclusive: true})
		}
		return out
	}
	switch op {
	case OpBy:
		if _, inner, ok := cutOrigin(raw); ok {
			return s.locksOf(Op(inner[0]), inner[1:])
		}
	case OpPut:
		var r codec.PutRequest
		if codec.ParsePut(raw, &r) == nil {
			return []commit.Lock{{Range: anchormesh.RequestRange(r.Key, nil), Exclusive: true}}
		}
	case OpDeleteRange:
		var r codec.DeleteRangeRequest
		if codec.ParseDeleteRange(raw, &r) == nil {
			return []commit.Lock{{Range: anchormesh.RequestRange(r.Key, r.RangeEnd), Exclusive: true}}
		}
	case OpTxn:
		var r codec.TxnRequest
		if codec.ParseTxn(raw, &r) == nil {
			return commit.LocksOf(&r)
		}
	}
	return nil
}
