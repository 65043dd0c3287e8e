package mvcc

import (
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// Txn is one transaction of etcd: its writes share a revision. It reads its own
// writes. What its reads return stays valid forever: values that lie in the backend
// are copied, since answers outlive the batch.
type Txn struct {
	b    *Batch
	g    *Segment
	buf  *buffer // the active one, or one of its own behind which others were applied
	rev  int64
	subs int64
	open bool
}

// Rev is the revision of this transaction's writes.
func (t *Txn) Rev() int64 { return t.rev }

// Changed reports whether something was written.
func (t *Txn) Changed() bool { return t.subs > 0 }

// now is the newest revision that a read of the transaction sees. What lies between
// the segment's current revision and one that was assigned elsewhere is empty here
// and stays so.
func (t *Txn) now() int64 {
	if t.Changed() {
		return t.rev
	}
	return t.rev - 1
}

// End finishes the transaction and returns the segment's revision after it: the
// transaction's own, or the old one if nothing was written.
func (t *Txn) End() (rev int64) {
	if !t.open {
		panic("mvcc: transaction ended twice")
	}
	t.open = false
	if t.Changed() {
		t.g.head.current = max(t.g.head.current, t.rev)
	}
	if t.buf != t.g.active && t.buf.n > 0 {
		t.b.before -= t.buf.bytes
		t.g.insert(t.buf)
	}
	return t.g.head.current
}

// Place says where in its revision the next write of a CommitAt is, which must be
// behind the last one.
func (t *Txn) Place(sub int64) {
	if sub < t.subs {
		panic(fmt.Sprintf("mvcc: segment %s: write %d.%d after %d", t.g.id, t.rev, sub, t.subs))
	}
	t.subs = sub
}

// Stat is what the index knows of the newest version of key; it never touches the
// value.
func (t *Txn) Stat(key []byte) (create, mod, version int64, ok bool) {
	v, ok := t.g.index.Get(key, math.MaxInt64)
	return v.Create, v.Mod.Main, v.Number, ok
}

// Get is the newest version of key.
func (t *Txn) Get(key []byte) (KV, bool) {
	v, ok := t.g.index.Get(key, math.MaxInt64)
	if !ok {
		return KV{}, false
	}
	return t.source().own(v.Mod), true
}

// Range is View.Range with the transaction's own writes.
func (t *Txn) Range(key, end []byte, atRev, limit int64, countOnly bool) (Result, error) {
	rev, err := checkRev(atRev, t.now(), t.g.head.compacted)
	if err != nil {
		return Result{}, err
	}
	start, stop, single := bounds(key, end)
	if single {
		v, ok := t.g.index.Get(key, rev)
		return t.one(v, ok, countOnly), nil
	}
	var found []keyindex.Found
	q := keyindex.Query{Start: start, End: stop, Rev: rev, Limit: keyLimit(limit, countOnly), Step: math.MaxInt}
	found, count, _, _ := t.g.index.Range(found, q)
	res := Result{Count: int64(count)}
	src := t.source()
	for _, f := range found {
		res.KVs = append(res.KVs, src.own(f.Mod))
	}
	return res, nil
}

func (t *Txn) one(v keyindex.Version, ok, countOnly bool) Result {
	switch {
	case !ok:
		return Result{}
	case countOnly:
		return Result{Count: 1}
	}
	return Result{KVs: []KV{t.source().own(v.Mod)}, Count: 1}
}

// source reads the batch's state; the batch holds the lock.
func (t *Txn) source() *source {
	return &source{g: t.g, active: t.g.active.tail, sealed: t.g.sealed, revs: t.b.reader}
}

// Put writes a new version of key. Key and value are copied.
func (t *Txn) Put(key, value []byte, lease int64) Revision {
	mod := t.nextWrite(key)
	v := t.g.index.Put(key, t.g.inIndex(mod))
	buf := t.buf
	raw, off := appendKV(buf.slab.room(sizeKV(key, value)), key, value, v.Create, mod.Main, v.Number, lease)
	raw = buf.slab.take(raw)
	buf.append(entry{main: mod.Main, sub: uint32(mod.Sub), raw: raw})
	if t.g.publisher != nil {
		_, end, _ := parseKey(raw)
		kv := KV{Key: raw[end-len(key) : end : end], Create: v.Create, Mod: mod.Main, Version: v.Number, Lease: lease,
			Raw: raw, ValueLen: len(value), valueOff: off}
		t.b.events = append(t.b.events, Event{KV: kv, Main: mod.Main, Sub: mod.Sub})
	}
	return mod
}

// Delete writes a tombstone of key and reports whether it was alive.
func (t *Txn) Delete(key []byte) bool {
	if v, ok := t.g.index.Get(key, math.MaxInt64); !ok || v.Tombstone() {
		return false
	}
	mod := t.nextWrite(key)
	t.g.index.Delete(key, t.g.inIndex(mod))
	buf := t.buf
	raw, _ := appendKV(buf.slab.room(sizeKV(key, nil)), key, nil, 0, mod.Main, 0, 0)
	raw = buf.slab.take(raw)
	buf.append(entry{main: mod.Main, sub: uint32(mod.Sub), tomb: true, raw: raw})
	if t.g.publisher != nil {
		_, end, _ := parseKey(raw)
		kv := KV{Key: raw[end-len(key) : end : end], Mod: mod.Main, Raw: raw}
		t.b.events = append(t.b.events, Event{Delete: true, KV: kv, Main: mod.Main, Sub: mod.Sub})
	}
	return true
}

// DeleteRange deletes the live keys of etcd's (key, range_end) and counts them.
func (t *Txn) DeleteRange(key, end []byte) int64 {
	start, stop, single := bounds(key, end)
	if single {
		if t.Delete(key) {
			return 1
		}
		return 0
	}
	q := keyindex.Query{Start: start, End: stop, Rev: math.MaxInt64, Limit: math.MaxInt, Step: math.MaxInt}
	found, _, _, _ := t.g.index.Range(nil, q)
	for _, f := range found {
		t.Delete([]byte(f.Key))
	}
	return int64(len(found))
}

// nextWrite is the revision of the next write. A key outside of the range would
// belong to another segment after a restart.
func (t *Txn) nextWrite(key []byte) Revision {
	if !t.open || !t.g.head.rng.Contains(key) || t.subs > maxSub {
		panic(fmt.Sprintf("mvcc: segment %s %s: write %d of key %q (open %v)", t.g.id, t.g.head.rng, t.subs, key, t.open))
	}
	mod := Revision{Main: t.rev, Sub: t.subs}
	t.subs++
	return mod
}

// inIndex is a revision of this segment's own writes as the index has it.
func (g *Segment) inIndex(mod Revision) keyindex.Revision {
	return keyindex.Revision{Main: mod.Main, Sub: indexSub(g.own, mod.Sub)}
}
