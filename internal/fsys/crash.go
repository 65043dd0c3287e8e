package fsys

import (
	"math/rand/v2"
	"slices"
)

// CrashClone returns what a power cut at this moment may leave. Everything that
// was synced is there. Of the rest rng decides, file by file and directory by
// directory: all lost, all kept, a prefix kept, or each 512-byte sector and each
// directory operation on its own, in any order. Within a sector writes keep
// their order; a rename inside one directory is whole or absent. Locks are free
// again. The clone shares nothing with m.
//
// The method is that of pebble's crashable MemFS, with torn writes added.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &cloner{rng: rng, done: map[*node]*node{}}
	clone := NewMem()
	clone.root = c.clone(m.root)
	return clone
}

type cloner struct {
	rng  *rand.Rand
	done map[*node]*node // so that two names of one file stay one file
}

// fate is what happens to the unsynced changes of one file or directory.
type fate int

const (
	loseAll fate = iota
	keepAll
	keepPrefix
	keepAny
	fates
)

func (c *cloner) clone(n *node) *node {
	if got := c.done[n]; got != nil {
		return got
	}
	out := &node{}
	c.done[n] = out
	if !n.isDir() {
		out.data = c.file(n)
		out.syncedData = slices.Clone(out.data)
		return out
	}
	names := map[string]*node{}
	for name, child := range n.syncedNames {
		names[name] = child
	}
	f, cut := c.draw(len(n.moves))
	for i, mv := range n.moves {
		if c.kept(f, i, cut) {
			mv.apply(names)
		}
	}
	out.names, out.syncedNames = map[string]*node{}, map[string]*node{}
	for _, name := range sortedKeys(names) {
		child := c.clone(names[name])
		out.names[name], out.syncedNames[name] = child, child
	}
	return out
}

// draw picks a fate and, for a prefix, its length.
func (c *cloner) draw(changes int) (fate, int) {
	if changes == 0 {
		return loseAll, 0
	}
	return fate(c.rng.IntN(int(fates))), c.rng.IntN(changes + 1)
}

func (c *cloner) kept(f fate, i, cut int) bool {
	switch f {
	case keepAll:
		return true
	case keepPrefix:
		return i < cut
	case keepAny:
		return c.rng.IntN(2) == 0
	}
	return false
}

// file returns the bytes of n after the cut. Under keepAny every sector is at a
// version of its own: the first some of the writes that touch it have arrived.
func (c *cloner) file(n *node) []byte {
	data := slices.Clone(n.syncedData)
	f, cut := c.draw(len(n.writes))
	version := map[int64]int{}
	for i, w := range n.writes {
		if f != keepAny || w.data == nil {
			if c.kept(f, i, cut) {
				data = w.apply(data)
			}
			continue
		}
		for _, piece := range w.sectors() {
			sector := piece.off / SectorBytes
			if _, ok := version[sector]; !ok {
				version[sector] = c.rng.IntN(len(n.writes) + 1)
			}
			if i < version[sector] {
				data = piece.apply(data)
			}
		}
	}
	return data
}

// sectors cuts a write at sector boundaries.
func (c change) sectors() []change {
	var out []change
	for len(c.data) > 0 {
		n := min(int64(len(c.data)), SectorBytes-c.off%SectorBytes)
		out = append(out, change{off: c.off, data: c.data[:n:n]})
		c.off, c.data = c.off+n, c.data[n:]
	}
	return out
}

func sortedKeys(m map[string]*node) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Flip changes a bit of a file that holds something, and returns the file's name; "" if there is
// none. Each file is as likely as any other; of its bytes those that are not zero, mostly.
func (m *Mem) Flip(rng *rand.Rand) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	files := map[string]*node{}
	m.root.each("", func(name string, n *node) {
		if len(n.data) > 0 {
			names, files[name] = append(names, name), n
		}
	})
	if len(names) == 0 {
		return ""
	}
	name := names[rng.IntN(len(names))]
	n := files[name]
	at := rng.IntN(len(n.data))
	for try := 0; try < 64 && n.data[at] == 0; try++ {
		at = rng.IntN(len(n.data))
	}
	bit := byte(1) << rng.IntN(8)
	n.data[at] ^= bit
	if at < len(n.syncedData) {
		n.syncedData[at] ^= bit
	}
	return name
}

// each calls f for every file below a directory, in the order of their names.
func (n *node) each(at string, f func(name string, n *node)) {
	for _, name := range sortedKeys(n.names) {
		if child := n.names[name]; child.isDir() {
			child.each(at+"/"+name, f)
		} else {
			f(at+"/"+name, child)
		}
	}
}
