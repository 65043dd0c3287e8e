package line

import (
	"sort"

	"github.com/anchormesh/anchormesh"
)

// fifoKeep is the capacity that an empty queue may keep: a burst ends, the memory
// of ten thousand segments stays small.
const fifoKeep = 4096

// fifo is a queue that reuses its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int    { return len(q.items) - q.head }
func (q *fifo[T]) at(i int) *T { return &q.items[q.head+i] }

func (q *fifo[T]) push(v T) {
	if q.head > len(q.items)/2 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// pop takes the oldest.
func (q *fifo[T]) pop() T {
	var none T
	v := q.items[q.head]
	q.items[q.head] = none
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > fifoKeep {
			q.items = nil
		}
	}
	return v
}

// flight is a stamp that was put on a write.
type flight struct {
	stamp anchormesh.Revision
	ended bool
}

// flights are the stamps on entries whose fate is open, ascending. Entries end
// mostly in order, so the front is short of ended ones.
type flights struct{ fifo[flight] }

// end marks one and reports whether the smallest open one has changed.
func (f *flights) end(stamp anchormesh.Revision) bool {
	i := 0
	if f.len() > 0 && f.at(0).stamp != stamp {
		i = sort.Search(f.len(), func(i int) bool { return f.at(i).stamp >= stamp })
	}
	if i >= f.len() || f.at(i).stamp != stamp {
		return false
	}
	f.at(i).ended = true
	if i > 0 {
		return false
	}
	for f.len() > 0 && f.at(0).ended {
		f.pop()
	}
	return true
}
