package mvcc

import (
	"sync"

	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// View is a segment as it was when Read returned it, for one goroutine. What its
// reads return is valid until Close. Holding it for long delays no one; it pins
// memory, free pages of the backend, and what later compactions would drop.
type View struct {
	g         *Segment
	pin       *pin
	snap      bolt.Snapshot
	rev       int64
	compacted int64
	gone      bool
	src       source
}

// Read returns a view of the newest state. It waits for the batch that is being
// applied. Of a segment that is gone from the store every read fails with ErrGone.
func (g *Segment) Read() *View {
	snap := g.snapshot(g.mu.RLocker())
	defer g.mu.RUnlock()
	v := &View{g: g, pin: g.pins.current, snap: snap, rev: g.head.current, compacted: g.head.compacted, gone: g.gone}
	v.src = source{g: g, origins: g.origins, active: g.active.tail, frozen: g.frozen, revs: snap.Bucket(bucketRevisions)}
	v.pin.views.Add(1)
	return v
}

// Close releases what the view pins.
func (v *View) Close() {
	v.pin.views.Add(-1)
	v.snap.Release()
}

// Rev is the newest revision of the view.
func (v *View) Rev() int64 { return v.rev }

// Compacted is the compacted revision, -1 for none. Reads at it work, reads below
// do not.
func (v *View) Compacted() int64 { return v.compacted }

// rangeStep is how many keys are visited under the lock at once: some tens of
// microseconds, so that a list of everything does not stop apply. The index keeps
// old versions, so the steps together see one revision.
const rangeStep = 1024

// foundPool keeps the index's answers on their way to values.
var foundPool = sync.Pool{New: func() any { return new([]keyindex.Found) }}

// Range reads etcd's (key, range_end) at a revision; zero or below is the newest.
// A limit of zero or below is none. The errors are ErrCompacted, ErrFutureRev and
// ErrGone.
func (v *View) Range(key, end []byte, atRev, limit int64, countOnly bool) (Result, error) {
	if v.gone {
		return Result{}, ErrGone
	}
	rev, err := checkRev(atRev, v.rev, v.compacted)
	if err != nil {
		return Result{}, err
	}
	start, stop, single := bounds(key, end)
	if single {
		return v.one(key, rev, countOnly), nil
	}
	scratch := foundPool.Get().(*[]keyindex.Found)
	found, count := v.find((*scratch)[:0], start, stop, rev, keyLimit(limit, countOnly))
	res := Result{Count: count}
	if len(found) > 0 {
		res.KVs = make([]KV, len(found))
		for i := range found {
			res.KVs[i] = v.src.kv(found[i].Mod)
		}
	}
	clear(found) // keys of a dropped index must not live on in the pool
	*scratch = found[:0]
	if cap(found) <= 64*rangeStep {
		foundPool.Put(scratch)
	}
	return res, nil
}

func (v *View) one(key []byte, rev int64, countOnly bool) Result {
	v.g.mu.RLock()
	ver, ok := v.g.index.Get(key, rev)
	v.g.mu.RUnlock()
	switch {
	case !ok:
		return Result{}
	case countOnly:
		return Result{Count: 1}
	}
	return Result{KVs: []KV{v.src.kv(ver.Mod)}, Count: 1}
}

// find asks the index in steps.
func (v *View) find(found []keyindex.Found, start, stop []byte, rev int64, limit int) ([]keyindex.Found, int64) {
	total := int64(0)
	q := keyindex.Query{Start: start, End: stop, Rev: rev, Limit: limit, Step: rangeStep}
	for {
		v.g.mu.RLock()
		var n int
		var next string
		var more bool
		found, n, next, more = v.g.index.Range(found, q)
		v.g.mu.RUnlock()
		total += int64(n)
		if !more {
			return found, total
		}
		q.Start = []byte(next)
	}
}
