package match

import "github.com/anchormesh/anchormesh"

// Index maps keys to the values whose range contains them.
type Index[T any] struct {
	keys   map[string]*Entry[T] // first entry of each single key
	ranges *node[T]             // root of the interval tree
	seed   uint64               // state of the priorities' generator
	size   int
}

// Entry is one value in an Index; it is the handle to remove it. Entries of the
// same place form a ring.
type Entry[T any] struct {
	Value      T
	next, prev *Entry[T]
	node       *node[T] // the range's place; nil for a single key
	key        string   // the single key
}

// New returns an empty index. The seed shapes the tree; whoever can guess it can
// pick ranges that make lookups slow, so servers draw it at random.
func New[T any](seed uint64) *Index[T] {
	return &Index[T]{seed: seed | 1}
}

// Len is the number of entries.
func (x *Index[T]) Len() int { return x.size }

// Add files value under rng, which must not be empty.
func (x *Index[T]) Add(rng anchormesh.KeyRange, value T) *Entry[T] {
	e := &Entry[T]{Value: value}
	x.size++
	if single(rng) {
		e.key = string(rng.Start)
		head := x.keys[e.key]
		if head != nil {
			e.key = head.key // share the bytes
		} else {
			if x.keys == nil {
				x.keys = make(map[string]*Entry[T])
			}
			x.keys[e.key] = e
		}
		e.join(head)
		return e
	}
	start, end := string(rng.Start), string(rng.End)
	n := x.ranges.find(start, end)
	if n == nil {
		n = &node[T]{start: start, end: end, maxEnd: end, priority: x.draw()}
		x.ranges = x.ranges.insert(n)
	}
	e.node = n
	e.join(n.head)
	if n.head == nil {
		n.head = e
	}
	return e
}

// Remove takes an entry out. It must be in the index.
func (x *Index[T]) Remove(e *Entry[T]) {
	if e.next == nil {
		panic("match: entry removed twice")
	}
	x.size--
	rest := e.leave()
	switch {
	case e.node == nil && rest == nil:
		delete(x.keys, e.key)
	case e.node == nil && x.keys[e.key] == e:
		x.keys[e.key] = rest
	case e.node != nil && rest == nil:
		x.ranges = x.ranges.remove(e.node)
	case e.node != nil && e.node.head == e:
		e.node.head = rest
	}
}

// AppendMatches appends to dst every value whose range contains key.
func (x *Index[T]) AppendMatches(dst []T, key []byte) []T {
	dst = x.keys[string(key)].appendRing(dst)
	return x.ranges.stab(dst, key)
}

// Range returns the range the entry was added with.
func (e *Entry[T]) Range() anchormesh.KeyRange {
	if e.node == nil {
		return anchormesh.RequestRange([]byte(e.key), nil)
	}
	return anchormesh.KeyRange{Start: []byte(e.node.start), End: []byte(e.node.end)}
}

// join puts e at the end of the ring that begins at head.
func (e *Entry[T]) join(head *Entry[T]) {
	if head == nil {
		e.next, e.prev = e, e
		return
	}
	e.next, e.prev = head, head.prev
	head.prev.next = e
	head.prev = e
}

// leave takes e out of its ring and returns the entry behind it, if there is one.
func (e *Entry[T]) leave() *Entry[T] {
	rest := e.next
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev = nil, nil
	if rest == e {
		return nil
	}
	return rest
}

// appendRing appends the values of the ring that begins at head.
func (head *Entry[T]) appendRing(dst []T) []T {
	if head == nil {
		return dst
	}
	dst = append(dst, head.Value)
	for e := head.next; e != head; e = e.next {
		dst = append(dst, e.Value)
	}
	return dst
}

// draw returns the next priority (xorshift64, Marsaglia 2003).
func (x *Index[T]) draw() uint64 {
	x.seed ^= x.seed << 13
	x.seed ^= x.seed >> 7
	x.seed ^= x.seed << 17
	return x.seed
}

// single reports whether rng holds exactly one key.
func single(rng anchormesh.KeyRange) bool {
	n := len(rng.Start)
	return len(rng.End) == n+1 && rng.End[n] == 0 && string(rng.End[:n]) == string(rng.Start)
}
