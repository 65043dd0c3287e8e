package mvcc

import (
	"slices"
	"sort"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// entry is one applied write that may not be in the backend yet.
type entry struct {
	main int64
	sub  uint32
	tomb bool
	raw  []byte // of a tombstone: key and mod revision; the disk gets the key only
}

const blockEntries = 128

// entryOverhead is counted per pending write beside its bytes.
const entryOverhead = 64

// buffer holds writes in revision order. One goroutine appends; what a tail has
// seen never changes.
type buffer struct {
	tail
	slab  slab
	bytes int
}

// tail is an unchanging view of a buffer: the first n entries. Blocks are fixed
// arrays, so that appending behind n moves and races with nothing.
type tail struct {
	blocks []*[blockEntries]entry
	n      int
}

func (b *buffer) append(e entry) {
	if b.n%blockEntries == 0 {
		b.blocks = append(b.blocks, new([blockEntries]entry))
	}
	b.blocks[b.n/blockEntries][b.n%blockEntries] = e
	b.n++
	b.bytes += len(e.raw) + entryOverhead
}

func (t *tail) at(i int) *entry { return &t.blocks[i/blockEntries][i%blockEntries] }

// seek is the first entry at or after (main, sub). Mostly every transaction is one
// write and counts by one, so the place is guessed first.
func (t *tail) seek(main, sub int64) int {
	if t.n == 0 {
		return 0
	}
	if d := main - t.at(0).main; d >= 0 && d < int64(t.n) {
		if e := t.at(int(d)); e.main == main && int64(e.sub) == sub {
			return int(d)
		}
	}
	return sort.Search(t.n, func(i int) bool {
		e := t.at(i)
		return e.main > main || e.main == main && int64(e.sub) >= sub
	})
}

// get is the entry of a revision, if it is here. It looks at no origin.
func (t *tail) get(mod keyindex.Revision) (*entry, bool) {
	if t.n == 0 || mod.Main < t.at(0).main || mod.Main > t.at(t.n-1).main {
		return nil, false
	}
	i := t.seek(mod.Main, subOf(mod.Sub))
	if i == t.n {
		return nil, false
	}
	e := t.at(i)
	return e, e.main == mod.Main && int64(e.sub) == subOf(mod.Sub)
}

// sealed is a buffer that takes no more writes and waits for a commit, or is being
// written by one. After a cut both segments read it: it holds writes of either's
// keys, and goes to the backend once, under the segment that applied them.
type sealed struct {
	tail
	origin anchormesh.SegmentID
	number int64 // of origin
	bytes  int
	stored atomic.Bool // set once the backend has it
	// growing: it holds commits that came late, and no commit of the store and no
	// other segment knows it yet. It is replaced as more of them come.
	growing bool
}

// insert takes the writes of a commit that came behind higher revisions. Such runs are
// merged like those of a log-structured tree, so that n of them are in about log n
// buffers and each is copied log n times. The lock is held.
func (g *Segment) insert(b *buffer) {
	run := &sealed{tail: b.tail, origin: g.id, number: g.own, bytes: b.bytes, growing: true}
	list := slices.Clone(g.sealed)
	for i := len(list) - 1; i >= 0; i-- {
		if t := list[i]; t.growing {
			if t.n > run.n {
				break
			}
			run = merged(t, run)
			list = slices.Delete(list, i, i+1)
		}
	}
	g.sealed = append(list, run)
}

// merged returns the writes of two runs of one segment as one.
func merged(a, b *sealed) *sealed {
	var out buffer
	for i, j := 0, 0; i < a.n || j < b.n; {
		if j == b.n || i < a.n && a.at(i).before(b.at(j)) {
			out.append(*a.at(i))
			i++
		} else {
			out.append(*b.at(j))
			j++
		}
	}
	return &sealed{tail: out.tail, origin: a.origin, number: a.number, bytes: out.bytes, growing: true}
}

func (e *entry) before(o *entry) bool { return e.main < o.main || e.main == o.main && e.sub < o.sub }

// waiting is the part of a list that no finished commit holds. The list is not
// changed: views keep it.
func waiting(list []*sealed) []*sealed {
	if !slices.ContainsFunc(list, func(t *sealed) bool { return t.stored.Load() }) {
		return list
	}
	var out []*sealed
	for _, t := range list {
		if !t.stored.Load() {
			out = append(out, t)
		}
	}
	return out
}

// united is both lists, each buffer once.
func united(a, b []*sealed) []*sealed {
	out := slices.Clone(a)
	for _, t := range b {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}
