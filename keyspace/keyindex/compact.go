package keyindex

import "slices"

// Dropped is a revision that compaction took out of the index.
type Dropped struct {
	Mod       Revision
	Tombstone bool
}

// Compact drops what no read at or above rev can see, of the keys from start on,
// oldest versions first. It visits and drops about step of them together, appends
// what it dropped to dst, and if more is set goes on at next. It may be repeated
// and interrupted at will.
func (x *Index) Compact(dst []Dropped, rev int64, start []byte, step int) (dropped []Dropped, next string, more bool) {
	var dead []string
	left := max(step, 1)
	x.root.ascend(start, func(n *node, i int) bool {
		if left <= 0 {
			next, more = n.keys[i], true
			return false
		}
		left--
		all := n.droppable(i, rev)
		k := min(all, max(left, 1))
		if k == 0 {
			return true
		}
		left -= k
		var gone bool
		dst, gone = n.drop(dst, i, k, k == all)
		if gone {
			dead = append(dead, n.keys[i])
		}
		if k < all {
			next, more = n.keys[i], true
			return false
		}
		return true
	})
	for _, key := range dead {
		x.remove([]byte(key))
	}
	return dst, next, more
}

// drop takes the oldest k versions of slot i; gone says that none is left. An
// unfinished history is only cut, since copying it at each step would cost the
// square of its length; the last step copies it to its size.
func (n *node) drop(dst []Dropped, i, k int, last bool) (dropped []Dropped, gone bool) {
	h := n.olds[i]
	if h != nil {
		cut := min(k, len(h.versions))
		for _, v := range h.versions[:cut] {
			dst = append(dst, Dropped{v.Mod, v.Tombstone()})
		}
		k -= cut
		h.versions = h.versions[cut:]
		switch {
		case len(h.versions) == 0:
			n.olds[i] = nil
		case last:
			h.versions = slices.Clone(h.versions)
		}
	}
	if k > 0 {
		dst = append(dst, Dropped{n.heads[i].Mod, n.heads[i].Tombstone()})
	}
	return dst, k > 0
}
