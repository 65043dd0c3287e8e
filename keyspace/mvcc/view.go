package mvcc

import (
	"bytes"
	"math"
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// View is a segment as it was when Read returned it, for one goroutine. What its
// reads return is valid until Close. Holding it for long delays no one; it pins
// memory, free pages of the backend, and what later compactions would drop.
type View struct {
	g         *Segment
	rng       anchormesh.KeyRange
	pin       *pin
	snap      bolt.Snapshot
	rev       int64
	compacted int64
	gone      bool
	src       source
}

// Read returns a view of the newest state, or of that at Hold's revision: what is
// committed later below the current one does not show. It waits for the batch that is being
// applied. Of a segment that is gone from the store every read fails with ErrGone.
func (g *Segment) Read() *View {
	snap := g.snapshot(g.mu.RLocker())
	defer g.mu.RUnlock()
	v := &View{g: g, rng: g.head.rng, pin: g.pins.current, snap: snap, rev: g.shown(), compacted: g.head.compacted, gone: g.gone}
	v.src = source{g: g, active: g.active.tail, sealed: g.sealed, revs: snap.Bucket(bucketRevisions)}
	v.pin.views.Add(1)
	return v
}

// ReadAt returns a view whose newest revision is rev, be it above the segment's
// current one or below. The caller knows that everything at or below rev that will
// ever be here is here: what is applied later at or below it would show. A rev below
// the compacted one reads as ErrCompacted.
func (g *Segment) ReadAt(rev int64) *View {
	v := g.Read()
	v.rev = rev
	return v
}

// ReadApplied is Read without regard to Hold. The caller reads only what nothing that
// is held can write.
func (g *Segment) ReadApplied() *View {
	current, _ := g.Revision()
	return g.ReadAt(current)
}

// Close releases what the view pins.
func (v *View) Close() {
	v.pin.views.Add(-1)
	v.snap.Release()
}

// KeyRange is the range of keys that the view shows, whatever was cut off or absorbed
// since it was opened.
func (v *View) KeyRange() anchormesh.KeyRange { return v.rng }

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
	ver, ok := v.version(key, rev)
	switch {
	case !ok:
		return Result{}
	case countOnly:
		return Result{Count: 1}
	}
	return Result{KVs: []KV{v.src.kv(ver.Mod)}, Count: 1}
}

// version asks the index for a key.
func (v *View) version(key []byte, rev int64) (keyindex.Version, bool) {
	if !v.rng.Contains(key) {
		return keyindex.Version{}, false
	}
	g := v.holder(key)
	defer g.mu.RUnlock()
	return g.index.Get(key, rev)
}

// find asks the index in steps.
func (v *View) find(found []keyindex.Found, start, stop []byte, rev int64, limit int) ([]keyindex.Found, int64) {
	total := int64(0)
	asked := v.rng.Intersect(anchormesh.KeyRange{Start: start, End: stop})
	if asked.Empty() {
		return found, 0
	}
	q := keyindex.Query{Start: asked.Start, Rev: rev, Limit: limit, Step: rangeStep}
	for {
		g := v.holder(q.Start)
		q.End = asked.Intersect(anchormesh.KeyRange{End: g.head.rng.End}).End
		var n int
		var next string
		var more bool
		found, n, next, more = g.index.Range(found, q)
		g.mu.RUnlock()
		total += int64(n)
		switch {
		case more:
			q.Start = []byte(next)
		case bytes.Equal(q.End, asked.End):
			return found, total
		default:
			q.Start = q.End
		}
	}
}

// marksStep is how many keys a walk visits under the lock at a time.
const marksStep = 1024

// Keys is how many keys the index holds, those that end in a tombstone included. It
// visits every leaf of the index.
func (g *Segment) Keys() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.index.Len()
}

// Marks returns up to n live keys, ascending, that part the live keys into about
// equal numbers. It walks over all of them, in bounded steps: what is written
// meanwhile may count or not.
func (g *Segment) Marks(n int) (marks [][]byte) {
	every := max(1, g.Keys()/(n+1))
	var found []keyindex.Found
	next, more := "", true
	for seen := 0; more && len(marks) < n; {
		found, next, more = g.walk(found[:0], next)
		for _, f := range found {
			if seen++; seen%every == 0 && len(marks) < n {
				marks = append(marks, []byte(f.Key))
			}
		}
	}
	return marks
}

// walk appends the live keys of one step.
func (g *Segment) walk(dst []keyindex.Found, from string) (found []keyindex.Found, next string, more bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	q := keyindex.Query{Start: []byte(from), End: g.head.rng.End, Rev: g.head.current, Limit: math.MaxInt, Step: marksStep}
	if from == "" {
		q.Start = g.head.rng.Start
	}
	found, _, next, more = g.index.Range(dst, q)
	return found, next, more
}
