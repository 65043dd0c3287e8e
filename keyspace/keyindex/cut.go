package keyindex

import (
	"slices"

	"github.com/anchormesh/anchormesh/internal/invariant"
)

// Cut moves the keys at and above key into an index of their own. It touches the
// nodes on the way from the root to key, so it costs microseconds however many
// keys move. Nodes at the edge may stay small, which costs room and nothing else.
func (x *Index) Cut(key []byte) *Index {
	y := &Index{root: x.root.cut(key)}
	if y.root == nil {
		y.root = newLeaf(0)
	}
	x.shrink()
	y.shrink()
	return y
}

// shrink takes levels off the root that have one child only.
func (x *Index) shrink() {
	if x.root.size() == 0 {
		x.root = newLeaf(0)
	}
	for !x.root.leaf() && len(x.root.kids) == 1 {
		x.root = x.root.kids[0]
	}
}

// cut leaves in n what lies below key and returns the rest, nil if there is none.
// n may be left without anything; its parent drops it then.
func (n *node) cut(key []byte) *node {
	if n.leaf() {
		i := n.lower(key)
		if i == len(n.keys) {
			return nil
		}
		right := newLeaf(len(n.keys) - i)
		right.keys, n.keys = move(right.keys, n.keys, i)
		right.heads, n.heads = move(right.heads, n.heads, i)
		right.olds, n.olds = move(right.olds, n.olds, i)
		return right
	}
	c := n.child(key)
	right := &node{keys: make([]string, 0, nodeMax), kids: make([]*node, 0, nodeMax)}
	bounds := min(c+1, len(n.keys))
	if part := n.kids[c].cut(key); part != nil {
		right.kids = append(right.kids, part)
		bounds = c
	}
	right.keys = append(right.keys, n.keys[bounds:]...)
	right.kids, n.kids = move(right.kids, n.kids, c+1)
	if n.kids[c].size() == 0 {
		n.kids[c] = nil
		n.kids = n.kids[:c]
	}
	keep := max(len(n.kids)-1, 0)
	clear(n.keys[keep:])
	n.keys = n.keys[:keep]
	if len(right.kids) == 0 {
		return nil
	}
	return right
}

// Join takes over the keys of y, all of which must lie above those of x. y is used
// up. It costs what Cut costs.
func (x *Index) Join(y *Index) {
	first, ok := y.root.edge(false)
	if !ok {
		return
	}
	last, ok := x.root.edge(true)
	if !ok {
		x.root = y.root
		return
	}
	if last >= first {
		invariant.Broken("keyindex: keys from %q on joined to keys up to %q", first, last)
	}
	hx, hy := x.root.height(), y.root.height()
	switch {
	case hx > hy:
		x.graft(y.root, hx-hy-1, first, true)
	case hx < hy:
		y.graft(x.root, hy-hx-1, first, false)
		x.root = y.root
	default:
		root := &node{keys: make([]string, 0, nodeMax), kids: make([]*node, 0, nodeMax)}
		root.keys, root.kids = append(root.keys, first), append(root.kids, x.root, y.root)
		x.root = root
	}
}

// graft hangs a lower tree onto the right or left edge, depth levels below the
// root. bound separates the two. Full nodes are split on the way down, as insert
// does, so that there is room.
func (x *Index) graft(sub *node, depth int, bound string, right bool) {
	if x.root.full() {
		x.root = &node{kids: append(make([]*node, 0, nodeMax), x.root)}
		x.root.split(0, nil)
		depth++
	}
	n := x.root
	for range depth {
		c := 0
		if right {
			c = len(n.kids) - 1
		}
		if n.kids[c].full() {
			n.split(c, nil)
			if right {
				c++
			}
		}
		n = n.kids[c]
	}
	if right {
		n.keys, n.kids = append(n.keys, bound), append(n.kids, sub)
		return
	}
	n.keys, n.kids = slices.Insert(n.keys, 0, bound), slices.Insert(n.kids, 0, sub)
}

func (n *node) height() int {
	h := 1
	for ; !n.leaf(); n = n.kids[0] {
		h++
	}
	return h
}

// edge is the last key of the subtree or its first. Leaves may be empty.
func (n *node) edge(last bool) (string, bool) {
	if n.leaf() {
		switch {
		case len(n.keys) == 0:
			return "", false
		case last:
			return n.keys[len(n.keys)-1], true
		}
		return n.keys[0], true
	}
	for i := range n.kids {
		if last {
			i = len(n.kids) - 1 - i
		}
		if key, ok := n.kids[i].edge(last); ok {
			return key, true
		}
	}
	return "", false
}

// count is the number of keys in the subtree.
func (n *node) count() int {
	if n.leaf() {
		return len(n.keys)
	}
	sum := 0
	for _, kid := range n.kids {
		sum += kid.count()
	}
	return sum
}
