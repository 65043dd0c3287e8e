package keyspace

import (
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

func (a *applier) put(raw []byte) Outcome {
	var r codec.PutRequest
	if err := codec.ParsePut(raw, &r); err != nil {
		return Outcome{Err: err}
	}
	if a.s.alarms.noSpace() {
		return Outcome{Err: ErrNoSpace}
	}
	if a.s.outside(r.Key, nil) {
		return Outcome{Err: ErrWrongSegment}
	}
	if !a.s.leases.has(r.Lease, r.Key) {
		return Outcome{Err: ErrLeaseNotFound}
	}
	t := a.open()
	prev, err := previous(t, &r)
	if err != nil {
		t.End()
		return Outcome{Err: err}
	}
	if a.s.govern.governs() {
		if err := a.judgePut(t, &r); err != nil {
			t.End()
			return Outcome{Err: err}
		}
	}
	start := a.begin()
	if a.want {
		a.buf = appendPut(a.buf, a.header(t.Rev()), &r, prev)
	}
	a.store(t, &r, prev)
	a.end(t)
	return a.answer(start)
}

// previous returns the key's newest version if the put needs it: an empty one,
// without Raw, if there is none.
func previous(t *mvcc.Txn, r *codec.PutRequest) (prev mvcc.KV, err error) {
	if !r.PrevKV && !r.IgnoreValue && !r.IgnoreLease {
		return prev, nil
	}
	prev, ok := t.Get(r.Key)
	if !ok && (r.IgnoreValue || r.IgnoreLease) {
		return prev, ErrKeyNotFound
	}
	return prev, nil
}

func appendPut(dst []byte, h codec.Header, r *codec.PutRequest, prev mvcc.KV) []byte {
	if !r.PrevKV {
		prev.Raw = nil
	}
	return codec.AppendPutResponse(dst, h, prev.Raw)
}

// store writes the key and moves it to its lease. kept is the version that
// ignore_value and ignore_lease refer to.
func (a *applier) store(t *mvcc.Txn, r *codec.PutRequest, kept mvcc.KV) {
	value, id := r.Value, r.Lease
	if r.IgnoreValue {
		value = kept.Value()
	}
	if r.IgnoreLease {
		id = kept.Lease
	}
	a.set(t, r.Key, value, id)
}

// set makes a version of a key, on a lease or on none.
func (a *applier) set(t *mvcc.Txn, key, value []byte, id int64) {
	if a.s.govern.counts {
		a.s.govern.replace(t, key, int64(len(value)))
	}
	t.Put(key, value, id)
	a.s.leases.attach(key, id)
}

// drop deletes a key and reports whether it was there.
func (a *applier) drop(t *mvcc.Txn, key []byte) bool {
	if a.s.govern.counts {
		a.s.govern.replace(t, key, -1)
	}
	return t.Delete(key)
}

func (a *applier) deleteRange(raw []byte) Outcome {
	var r codec.DeleteRangeRequest
	if err := codec.ParseDeleteRange(raw, &r); err != nil {
		return Outcome{Err: err}
	}
	if a.s.outside(r.Key, r.RangeEnd) {
		return Outcome{Err: ErrWrongSegment}
	}
	t := a.open()
	if a.s.govern.governs() {
		if err := a.judgeDelete(t, &r); err != nil {
			t.End()
			return Outcome{Err: err}
		}
	}
	start := a.begin()
	a.buf = a.remove(a.buf, t, &r, true)
	a.end(t)
	return a.answer(start)
}

// remove deletes a range and, if wanted, appends the response. The header inside
// a transaction holds the revision only.
func (a *applier) remove(dst []byte, t *mvcc.Txn, r *codec.DeleteRangeRequest, outermost bool) []byte {
	var prev mvcc.Result
	if r.PrevKV && a.want {
		var err error
		if prev, err = t.Range(r.Key, r.RangeEnd, 0, 0, false); err != nil {
			panic("keyspace: reading the newest revision: " + err.Error())
		}
		changes := t.Changed() || len(prev.KVs) > 0
		dst = codec.AppendDeleteRangeResponse(dst, a.writeHeader(t, changes, outermost), int64(len(prev.KVs)))
		for i := range prev.KVs {
			dst = codec.AppendRaw(dst, 3, prev.KVs[i].Raw)
		}
	}
	deleted := int64(0)
	if len(r.RangeEnd) > 0 {
		if a.s.govern.counts {
			a.s.govern.removed(t, r.Key, r.RangeEnd)
		}
		deleted = t.DeleteRange(r.Key, r.RangeEnd)
		a.s.leases.detachRange(r.Key, r.RangeEnd)
	} else if a.drop(t, r.Key) {
		deleted = 1
		a.s.leases.attach(r.Key, 0)
	}
	if a.want && !r.PrevKV {
		dst = codec.AppendDeleteRangeResponse(dst, a.writeHeader(t, t.Changed(), outermost), deleted)
	}
	return dst
}

// writeHeader is the header of an answer to one operation of t.
func (a *applier) writeHeader(t *mvcc.Txn, changed, outermost bool) codec.Header {
	switch {
	case changed && outermost:
		return a.header(t.Rev())
	case changed:
		return codec.Header{Revision: t.Rev()}
	case outermost:
		return a.header(a.shown())
	}
	return codec.Header{Revision: a.before()}
}

// compact compacts the segment's history. One that others ask for does nothing where
// the scope keeps its own history: own is the scope's.
func (a *applier) compact(raw []byte, own bool) Outcome {
	var r codec.CompactionRequest
	if err := codec.ParseCompaction(raw, &r); err != nil {
		return Outcome{Err: err}
	}
	if !own && a.s.govern.ownHistory() {
		return a.done()
	}
	if r.Revision > a.compacted && r.Revision <= a.stamp {
		a.b.Raise(r.Revision)
		a.rev = max(a.rev, r.Revision)
	}
	if err := a.b.Compact(r.Revision); err != nil {
		return Outcome{Err: err}
	}
	a.compacted = r.Revision
	start := a.begin()
	if a.want {
		a.buf = codec.AppendHeaderResponse(a.buf, a.header(a.shown()))
	}
	return a.answer(start)
}

// stamped applies a command at the revision that came with it. What it writes has
// this revision, and what it answers shows it, even if it writes nothing; then the
// segment's own revision stays. A compaction takes no revision: its stamp is one
// below which nothing more can come here, and so may be old.
func (a *applier) stamped(cmd []byte) Outcome {
	rev, inner, ok := CutStamp(cmd)
	if !ok {
		return Outcome{Err: codec.ErrMalformed}
	}
	if op := Op(inner[0]); rev <= max(a.rev, a.s.commits.Floor()) && op != OpCompact && op != OpCompactOwn {
		return Outcome{Err: ErrStampOrder}
	}
	a.stamp = rev
	out := a.apply(inner)
	a.stamp = 0
	return out
}

// open begins the transaction of a command.
func (a *applier) open() *mvcc.Txn {
	if a.stamp == 0 {
		return a.b.Txn()
	}
	t, err := a.b.TxnAt(a.stamp)
	if err != nil {
		panic("keyspace: a stamp that was admitted: " + err.Error())
	}
	return t
}

// end ends the transaction of a command.
func (a *applier) end(t *mvcc.Txn) {
	if t.Changed() {
		a.writes++
	}
	a.rev = t.End()
}

// shown is the revision in the header of a command's answer, once it is done.
func (a *applier) shown() int64 {
	if a.stamp != 0 {
		return max(a.stamp, a.rev)
	}
	return a.rev
}

// before is the newest revision that a command sees before it writes: everything
// below a stamp is history.
func (a *applier) before() int64 {
	if a.stamp != 0 {
		return max(a.stamp-1, a.rev)
	}
	return a.rev
}
