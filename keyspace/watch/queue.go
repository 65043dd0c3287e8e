package watch

import (
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// queue holds what was published and not yet handed out: an unbroken run of
// revisions that ends at head. Where the run begins later than the live cursor
// stands, the hole is read from history.
type queue struct {
	mu     sync.Mutex
	items  []published
	bytes  int
	limit  int
	head   int64 // last revision published
	hold   int64 // nothing is handed out from here on; zero: nothing is held
	active bool  // somebody watches; if not, nothing is kept
	drops  uint64
	bounds bounds
}

// bounds is what the segment holds. It lives beside the items, because apply sets
// it between two of them.
type bounds struct {
	kept   anchormesh.KeyRange // what was held all along since they were last taken
	keys   anchormesh.KeyRange
	reason error // for the watches that reach beyond
	due    bool  // the hub has not acted on it yet
}

// published is one Publish: everything in revisions [from, to].
type published struct {
	from, to int64
	changes  []mvcc.Event
	bytes    int
}

// put takes one Publish and reports whether anybody cares.
func (q *queue) put(changes []mvcc.Event, rev int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, late := 0, false
	for i := range changes {
		size += weight(&changes[i])
		late = late || changes[i].Main <= q.head
	}
	if rev <= q.head && !late {
		return false
	}
	from := q.head + 1
	q.head = max(q.head, rev)
	switch {
	case !q.active:
		return false
	case late:
		// The outcome of a transaction that was held for, below what was published
		// behind it. Only history has the order of revisions.
		q.clear()
		return true
	case q.bytes+size > q.limit:
		q.clear()
		q.drops++
	}
	if size <= q.limit {
		q.items = append(q.items, published{from: from, to: rev, changes: changes, bytes: size})
		q.bytes += size
	}
	return true
}

// jump moves head to rev and leaves a hole before it.
func (q *queue) jump(rev int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.head = max(q.head, rev)
	q.clear()
}

// holdAt sets where handing out ends, zero for nowhere.
func (q *queue) holdAt(rev int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hold = rev
}

// last is the last revision that may be handed out.
func (q *queue) last() int64 {
	if q.hold > 0 {
		return min(q.head, q.hold-1)
	}
	return q.head
}

// take removes up to maxBytes of items from the front, at least one if there is one
// that may be handed out. Where the queue has a hole at the cursor, it takes nothing
// and names the last revision of the hole; else that is zero.
func (q *queue) take(cursor int64, maxBytes int) (items []published, hole int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := q.last()
	switch {
	case cursor > last || q.bounds.due:
		return nil, 0
	case len(q.items) == 0:
		return nil, last
	case q.items[0].from > cursor:
		return nil, min(last, q.items[0].from-1)
	case q.items[0].to > last:
		return nil, last // what is held begins inside one Publish
	}
	n, size := 0, 0
	for n < len(q.items) && q.items[n].to <= last && (n == 0 || size+q.items[n].bytes <= maxBytes) {
		size += q.items[n].bytes
		n++
	}
	items = q.items[:n:n]
	q.bytes -= size
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil
	}
	return items, 0
}

// activate starts or ends keeping what is published and returns the last revision
// that may be handed out.
func (q *queue) activate(on bool) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active = on
	q.clear()
	return q.last()
}

// markAt is what must be handed out before a mark at revision rev: all that was
// published, up to where something is held.
func (q *queue) markAt(rev int64) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.last(), min(rev, q.head))
}

func (q *queue) clear() { q.items, q.bytes = nil, 0 }

// rebound sets the bounds; the segment is at revision current. What it holds of new
// keys was not published here: history has it.
func (q *queue) rebound(keys anchormesh.KeyRange, reason error, current int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.bounds.keys.Covers(keys) {
		q.head = max(q.head, current)
		q.clear()
	}
	kept := keys
	if q.bounds.due { // a split and a merge may come one after the other, before anybody looks
		kept = q.bounds.kept.Intersect(keys)
	}
	q.bounds = bounds{keys: keys, kept: kept, reason: reason, due: true}
}

// takeBounds returns the bounds, due if they are new since the last call.
func (q *queue) takeBounds() bounds {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.bounds
	q.bounds.due = false
	return b
}

// peekBounds returns the bounds.
func (q *queue) peekBounds() bounds {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bounds
}
