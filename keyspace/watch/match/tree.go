package match

// node is one distinct range in the interval tree: a binary tree ordered by
// (start, end), a heap by priority. An empty end is the end of the keyspace.
type node[T any] struct {
	start, end  string
	maxEnd      string // the largest end in this subtree
	left, right *node[T]
	head        *Entry[T]
	priority    uint64
}

// stab appends the values of every range that contains key.
func (n *node[T]) stab(dst []T, key []byte) []T {
	for n != nil && beyond(n.maxEnd, key) {
		dst = n.left.stab(dst, key)
		if string(key) < n.start {
			return dst
		}
		if beyond(n.end, key) {
			dst = n.head.appendRing(dst)
		}
		n = n.right
	}
	return dst
}

func (n *node[T]) find(start, end string) *node[T] {
	for n != nil && (n.start != start || n.end != end) {
		if n.before(start, end) {
			n = n.right
		} else {
			n = n.left
		}
	}
	return n
}

// insert puts m, whose range is not in the tree, below n and returns the root.
func (n *node[T]) insert(m *node[T]) *node[T] {
	if n == nil {
		return m
	}
	if m.priority > n.priority {
		m.left, m.right = n.split(m.start, m.end)
		m.update()
		return m
	}
	if n.before(m.start, m.end) {
		n.right = n.right.insert(m)
	} else {
		n.left = n.left.insert(m)
	}
	n.update()
	return n
}

// remove takes m, which is in the tree, out and returns the root.
func (n *node[T]) remove(m *node[T]) *node[T] {
	if n == m {
		return merge(n.left, n.right)
	}
	if n.before(m.start, m.end) {
		n.right = n.right.remove(m)
	} else {
		n.left = n.left.remove(m)
	}
	n.update()
	return n
}

// split cuts the tree into what lies before (start, end) and what lies after.
func (n *node[T]) split(start, end string) (left, right *node[T]) {
	if n == nil {
		return nil, nil
	}
	if n.before(start, end) {
		n.right, right = n.right.split(start, end)
		n.update()
		return n, right
	}
	left, n.left = n.left.split(start, end)
	n.update()
	return left, n
}

// merge joins two trees; everything in l lies before everything in r.
func merge[T any](l, r *node[T]) *node[T] {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case l.priority > r.priority:
		l.right = merge(l.right, r)
		l.update()
		return l
	default:
		r.left = merge(l, r.left)
		r.update()
		return r
	}
}

func (n *node[T]) update() {
	n.maxEnd = n.end
	if n.left != nil {
		n.maxEnd = later(n.maxEnd, n.left.maxEnd)
	}
	if n.right != nil {
		n.maxEnd = later(n.maxEnd, n.right.maxEnd)
	}
}

// before reports whether n lies before the range (start, end) in the order.
func (n *node[T]) before(start, end string) bool {
	if n.start != start {
		return n.start < start
	}
	return n.end != end && later(n.end, end) == end
}

func later(a, b string) string {
	if a == "" || b == "" {
		return ""
	}
	return max(a, b)
}

func beyond(end string, key []byte) bool { return end == "" || end > string(key) }
