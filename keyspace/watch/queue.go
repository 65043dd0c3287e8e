package watch

import (
	"sync"

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
	active bool  // somebody watches; if not, nothing is kept
	drops  uint64
}

// published is one Publish: everything in revisions [from, to].
type published struct {
	from, to int64
	changes  []mvcc.Event
	bytes    int
}

// put takes one Publish and reports whether anybody cares.
func (q *queue) put(changes []mvcc.Event, rev int64) bool {
	size := 0
	for i := range changes {
		size += weight(&changes[i])
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if rev <= q.head {
		return false
	}
	from := q.head + 1
	q.head = rev
	if !q.active {
		return false
	}
	if q.bytes+size > q.limit {
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

// take removes up to maxBytes of items from the front, at least one if there is
// one. first is the first revision that the queue held before; if it is above
// the cursor, nothing is taken.
func (q *queue) take(cursor int64, maxBytes int) (items []published, first int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return nil, q.head + 1
	}
	if first = q.items[0].from; first > cursor {
		return nil, first
	}
	n, size := 0, 0
	for n < len(q.items) && (n == 0 || size+q.items[n].bytes <= maxBytes) {
		size += q.items[n].bytes
		n++
	}
	items = q.items[:n:n]
	q.bytes -= size
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil
	}
	return items, first
}

// activate starts or ends keeping what is published and returns head.
func (q *queue) activate(on bool) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active = on
	q.clear()
	return q.head
}

func (q *queue) clear() { q.items, q.bytes = nil, 0 }
