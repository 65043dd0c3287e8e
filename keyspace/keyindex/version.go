package keyindex

import (
	"fmt"
	"sort"
)

// Revision names one write. Writes of one transaction share Main. Sub orders them
// and may carry more than a count: the index only compares it.
type Revision struct{ Main, Sub int64 }

// Less orders revisions.
func (r Revision) Less(o Revision) bool {
	return r.Main < o.Main || r.Main == o.Main && r.Sub < o.Sub
}

// Version is one write of a key.
type Version struct {
	Mod    Revision
	Create int64 // main revision that created the key; zero in a tombstone
	Number int64 // etcd's version, from 1; zero is a tombstone
}

// Tombstone reports whether the write was a deletion.
func (v Version) Tombstone() bool { return v.Number == 0 }

// next is the version that a put at mod makes after v.
func (v Version) next(mod Revision) Version {
	if v.Tombstone() {
		return Version{Mod: mod, Create: mod.Main, Number: 1}
	}
	return Version{Mod: mod, Create: v.Create, Number: v.Number + 1}
}

// history holds the versions before the newest one, oldest first. Few keys have
// one when compaction keeps up, so leaves hold a pointer and not a slice.
type history struct{ versions []Version }

// at is the newest version with Main at or below rev.
func (h *history) at(rev int64) (Version, bool) {
	if h == nil {
		return Version{}, false
	}
	i := sort.Search(len(h.versions), func(i int) bool { return h.versions[i].Mod.Main > rev })
	if i == 0 {
		return Version{}, false
	}
	return h.versions[i-1], true
}

// at is the version of slot i that a read at rev sees, tombstones included.
func (n *node) at(i int, rev int64) (Version, bool) {
	if n.heads[i].Mod.Main <= rev {
		return n.heads[i], true
	}
	return n.olds[i].at(rev)
}

// push makes v the newest version of slot i.
func (n *node) push(i int, v Version) {
	if !n.heads[i].Mod.Less(v.Mod) {
		panic(fmt.Sprintf("keyindex: key %q: revision %v after %v", n.keys[i], v.Mod, n.heads[i].Mod))
	}
	if n.olds[i] == nil {
		n.olds[i] = &history{}
	}
	h := n.olds[i]
	h.versions = append(h.versions, n.heads[i])
	n.heads[i] = v
}

// droppable counts the versions of slot i, oldest first, that compaction at rev
// removes. It is one more than the history is long if the whole key goes.
func (n *node) droppable(i int, rev int64) int {
	var old []Version
	if n.olds[i] != nil {
		old = n.olds[i].versions
	}
	if head := n.heads[i]; head.Mod.Main <= rev {
		if head.Tombstone() && head.Mod.Main < rev {
			return len(old) + 1
		}
		return len(old)
	}
	k := sort.Search(len(old), func(j int) bool { return old[j].Mod.Main > rev })
	if k == 0 {
		return 0
	}
	if last := old[k-1]; last.Tombstone() && last.Mod.Main < rev {
		return k
	}
	return k - 1
}
