package keyindex

import "slices"

// Index maps keys to versions. The zero value is not ready: use New.
type Index struct{ root *node }

// New returns an empty index.
func New() *Index { return &Index{root: newLeaf(0)} }

// Len counts the keys, those that end in a tombstone included. It visits every
// leaf: a count kept beside the tree could not be cut in two without a walk.
func (x *Index) Len() int { return x.root.count() }

// Get is the version of key that a read at rev sees.
func (x *Index) Get(key []byte, rev int64) (Version, bool) {
	n, i, ok := x.find(key)
	if !ok {
		return Version{}, false
	}
	v, ok := n.at(i, rev)
	return v, ok && !v.Tombstone()
}

// Put records a write of key at mod, which must be above the key's last revision,
// and returns the version it made.
func (x *Index) Put(key []byte, mod Revision) Version {
	n, i, ok := x.find(key)
	if !ok {
		n, i = x.insert(key)
		n.heads[i] = Version{}.next(mod)
		return n.heads[i]
	}
	n.push(i, n.heads[i].next(mod))
	return n.heads[i]
}

// Delete records a tombstone of key at mod and reports whether the key was alive;
// if it was not, nothing changes.
func (x *Index) Delete(key []byte, mod Revision) bool {
	n, i, ok := x.find(key)
	if !ok || n.heads[i].Tombstone() {
		return false
	}
	n.push(i, Version{Mod: mod})
	return true
}

// Restore records a version read back from a store: each key's in ascending order,
// or it is refused. Its first may have any number, or be a tombstone, after a
// compaction.
func (x *Index) Restore(key []byte, v Version) bool {
	n, i, ok := x.find(key)
	if !ok {
		n, i = x.insert(key)
		n.heads[i] = v
		return true
	}
	if !n.heads[i].Mod.Less(v.Mod) {
		return false
	}
	n.push(i, v)
	return true
}

// Query is a read of a range in the past or present. Its answer comes in bounded
// steps so that a lock around the index is never held for long.
type Query struct {
	Start []byte // nil is the beginning
	End   []byte // exclusive; empty is the end of the keyspace
	Rev   int64  // what a read at this revision sees
	Limit int    // at most so many keys are returned; all are counted
	Step  int    // visit at most so many keys
}

// Found is a live key of a range. Key is owned by the index and never changes.
type Found struct {
	Key string
	Version
}

// Range appends the live keys of the range to dst, which it may hold from earlier
// steps, and returns how many live keys this step saw. If more is set the next
// step starts at next.
func (x *Index) Range(dst []Found, q Query) (found []Found, count int, next string, more bool) {
	left := q.Step
	x.root.ascend(q.Start, func(n *node, i int) bool {
		if len(q.End) > 0 && n.keys[i] >= string(q.End) {
			return false
		}
		if left == 0 {
			next, more = n.keys[i], true
			return false
		}
		left--
		if v, ok := n.at(i, q.Rev); ok && !v.Tombstone() {
			count++
			if len(dst) < q.Limit {
				dst = append(dst, Found{n.keys[i], v})
			}
		}
		return true
	})
	return dst, count, next, more
}

// Change is a write of a key, tombstones included.
type Change struct {
	Key string
	Version
}

// Since appends the writes with main revisions from..to (both inclusive) of the
// keys in [start, end), key by key. It gives up and reports false when there are
// more than limit.
func (x *Index) Since(dst []Change, start, end []byte, from, to int64, limit int) (changes []Change, ok bool) {
	ok = true
	add := func(key string, v Version) bool {
		if v.Mod.Main < from || v.Mod.Main > to {
			return true
		}
		if ok = len(dst) < limit; ok {
			dst = append(dst, Change{key, v})
		}
		return ok
	}
	x.root.ascend(start, func(n *node, i int) bool {
		if len(end) > 0 && n.keys[i] >= string(end) {
			return false
		}
		if h := n.olds[i]; h != nil {
			first, _ := slices.BinarySearchFunc(h.versions, from, func(v Version, from int64) int {
				if v.Mod.Main < from {
					return -1
				}
				return 1
			})
			for _, v := range h.versions[first:] {
				if !add(n.keys[i], v) {
					return false
				}
			}
		}
		return add(n.keys[i], n.heads[i])
	})
	return dst, ok
}
