package mvcc

import (
	"sort"

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

// firstMain is the lowest main revision held, or none.
func (t *tail) firstMain(none int64) int64 {
	if t.n == 0 {
		return none
	}
	return t.at(0).main
}

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

// get is the entry of a revision, which must be there.
func (t *tail) get(mod keyindex.Revision) (*entry, bool) {
	i := t.seek(mod.Main, subOf(mod.Sub))
	if i == t.n {
		return nil, false
	}
	e := t.at(i)
	return e, e.main == mod.Main && int64(e.sub) == subOf(mod.Sub)
}
