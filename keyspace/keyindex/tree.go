package keyindex

import "slices"

// nodeMax is the most keys of a leaf and children of a branch: a leaf's keys are
// then 1 KiB, searched in six comparisons and moved in tens of nanoseconds.
const nodeMax = 64

// node is a leaf if kids is nil: then keys, heads and olds run in parallel. In a
// branch keys[i] is a lower bound of kids[i+1] and above everything in kids[i].
type node struct {
	keys  []string
	heads []Version
	olds  []*history
	kids  []*node
}

// newLeaf has room for n keys. What comes beside others gets room for all at once,
// a tree's only leaf grows: thousands of segments have few keys or none.
func newLeaf(n int) *node {
	if n == 0 {
		return &node{}
	}
	return &node{
		keys:  make([]string, 0, n),
		heads: make([]Version, 0, n),
		olds:  make([]*history, 0, n),
	}
}

func (n *node) leaf() bool { return n.kids == nil }

func (n *node) full() bool {
	if n.leaf() {
		return len(n.keys) == nodeMax
	}
	return len(n.kids) == nodeMax
}

// lower is the first slot of a leaf at or after key.
func (n *node) lower(key []byte) int {
	lo, hi := 0, len(n.keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.keys[mid] < string(key) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// child is the branch's child that may hold key.
func (n *node) child(key []byte) int {
	lo, hi := 0, len(n.keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.keys[mid] <= string(key) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// find returns the leaf and slot of key.
func (x *Index) find(key []byte) (*node, int, bool) {
	n := x.root
	for !n.leaf() {
		n = n.kids[n.child(key)]
	}
	i := n.lower(key)
	return n, i, i < len(n.keys) && n.keys[i] == string(key)
}

// insert adds key, which must not be there, and returns its leaf and slot. Full
// nodes are split on the way down, so that a leaf always has room.
func (x *Index) insert(key []byte) (*node, int) {
	if x.root.full() {
		x.root = &node{kids: append(make([]*node, 0, nodeMax), x.root)}
		x.root.split(0, key)
	}
	n := x.root
	for !n.leaf() {
		c := n.child(key)
		if n.kids[c].full() {
			n.split(c, key)
			c = n.child(key)
		}
		n = n.kids[c]
	}
	i := n.lower(key)
	n.keys = slices.Insert(n.keys, i, string(key))
	n.heads = slices.Insert(n.heads, i, Version{})
	n.olds = slices.Insert(n.olds, i, nil)
	return n, i
}

// split halves child c. Keys that arrive in ascending order leave full leaves
// behind: if key goes after all of the child, it is cut at its end.
func (n *node) split(c int, key []byte) {
	left := n.kids[c]
	var right *node
	var bound string
	if left.leaf() {
		cut := len(left.keys) / 2
		if left.keys[len(left.keys)-1] < string(key) {
			cut = len(left.keys) - 1
		}
		right = newLeaf(nodeMax)
		bound = left.keys[cut]
		right.keys, left.keys = move(right.keys, left.keys, cut)
		right.heads, left.heads = move(right.heads, left.heads, cut)
		right.olds, left.olds = move(right.olds, left.olds, cut)
	} else {
		cut := len(left.kids) / 2
		right = &node{keys: make([]string, 0, nodeMax), kids: make([]*node, 0, nodeMax)}
		bound = left.keys[cut-1]
		right.keys, left.keys = move(right.keys, left.keys, cut)
		right.kids, left.kids = move(right.kids, left.kids, cut)
		clear(left.keys[cut-1:])
		left.keys = left.keys[:cut-1]
	}
	n.keys = slices.Insert(n.keys, c, bound)
	n.kids = slices.Insert(n.kids, c+1, right)
}

// move appends from[cut:] to to and clears what it leaves, for the collector.
func move[T any](to, from []T, cut int) (grown, rest []T) {
	to = append(to, from[cut:]...)
	clear(from[cut:])
	return to, from[:cut]
}

// remove deletes key, which must be there.
func (x *Index) remove(key []byte) {
	x.root.remove(key)
	x.shrink()
}

func (n *node) remove(key []byte) {
	if n.leaf() {
		i := n.lower(key)
		n.keys = slices.Delete(n.keys, i, i+1)
		n.heads = slices.Delete(n.heads, i, i+1)
		n.olds = slices.Delete(n.olds, i, i+1)
		return
	}
	c := n.child(key)
	n.kids[c].remove(key)
	if n.kids[c].size() < nodeMax/4 {
		n.mergeAt(c)
	}
}

func (n *node) size() int {
	if n.leaf() {
		return len(n.keys)
	}
	return len(n.kids)
}

// mergeAt joins a small child with a neighbour if both fit with room to spare, or
// if the child is empty; else it stays small, which costs room and nothing else.
func (n *node) mergeAt(c int) {
	small := n.kids[c].size()
	fits := func(neighbour int) bool {
		if neighbour < 0 || neighbour >= len(n.kids) {
			return false
		}
		return small == 0 || small+n.kids[neighbour].size() <= nodeMax*3/4
	}
	switch {
	case fits(c - 1):
		c--
	case !fits(c + 1):
		return
	}
	left, right := n.kids[c], n.kids[c+1]
	if left.leaf() {
		left.keys = append(left.keys, right.keys...)
		left.heads = append(left.heads, right.heads...)
		left.olds = append(left.olds, right.olds...)
	} else {
		left.keys = append(append(left.keys, n.keys[c]), right.keys...)
		left.kids = append(left.kids, right.kids...)
	}
	n.keys = slices.Delete(n.keys, c, c+1)
	n.kids = slices.Delete(n.kids, c+1, c+2)
}

// ascend calls fn for the slots at or after start until it returns false. A nil
// start is the beginning.
func (n *node) ascend(start []byte, fn func(n *node, i int) bool) bool {
	if n.leaf() {
		i := 0
		if start != nil {
			i = n.lower(start)
		}
		for ; i < len(n.keys); i++ {
			if !fn(n, i) {
				return false
			}
		}
		return true
	}
	c := 0
	if start != nil {
		c = n.child(start)
	}
	for ; c < len(n.kids); c++ {
		if !n.kids[c].ascend(start, fn) {
			return false
		}
		start = nil
	}
	return true
}
