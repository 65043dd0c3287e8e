package route

import (
	"slices"

	"github.com/anchormesh/anchormesh"
)

// ReleasedMax is how many released tombstones a table remembers by their IDs.
const ReleasedMax = 1 << 16

// graves are the tombstones of a table, oldest first, and the IDs of those that
// it released, the last ones in a ring. A tombstone that was released is not
// taken in again: else those who still hold it would give it back to those who
// do not, for ever.
type graves struct {
	byID     map[anchormesh.SegmentID]*grave
	order    []anchormesh.SegmentID
	released map[anchormesh.SegmentID]bool
	ring     []anchormesh.SegmentID
	next     int
}

func (g *graves) release(id anchormesh.SegmentID) {
	g.released[id] = true
	if len(g.ring) < ReleasedMax {
		g.ring = append(g.ring, id)
		return
	}
	delete(g.released, g.ring[g.next])
	g.ring[g.next] = id
	g.next = (g.next + 1) % ReleasedMax
}

type grave struct {
	stone anchormesh.Tombstone
	// told is the journal's number once the whole range was routed to higher
	// generations: who knows the journal up to it knows them, too. Zero before.
	told uint64
}

// Bury takes a tombstone in, and reports whether it is news. The segment is
// found by its ID no more. At the limit the oldest tombstone gives way.
func (t *Table) Bury(stone anchormesh.Tombstone) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buried.byID[stone.Segment] != nil || t.buried.released[stone.Segment] {
		return false
	}
	if len(t.buried.order) >= TombstonesMax {
		t.exhumeLocked(t.buried.order[0])
	}
	t.buried.byID[stone.Segment] = &grave{stone: stone}
	t.buried.order = append(t.buried.order, stone.Segment)
	t.segments.Delete(stone.Segment)
	t.setLeaderLocked(stone.Segment, "")
	t.journal.set(Version{Segment: stone.Segment, Generation: stone.Generation, Buried: true})
	t.tellLocked()
	return true
}

// Tombstone returns the tombstone of a segment.
func (t *Table) Tombstone(id anchormesh.SegmentID) (anchormesh.Tombstone, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.buried.byID[id]; g != nil {
		return g.stone, true
	}
	return anchormesh.Tombstone{}, false
}

// Successors returns who governs the range of a buried segment, as far as they
// are known. They are found by range, not by the IDs that the tombstone names:
// those may be retired, too, by now.
func (t *Table) Successors(id anchormesh.SegmentID) []*anchormesh.Descriptor {
	stone, ok := t.Tombstone(id)
	if !ok {
		return nil
	}
	found, _ := t.Covering(stone.Range)
	return slices.DeleteFunc(found, func(d *anchormesh.Descriptor) bool { return d.Generation <= stone.Generation })
}

// Release drops the tombstones that nobody needs any more: every key of their
// range is routed to a higher generation, and everybody knows the journal up to
// where that was so. confirmed is the number that every other node has confirmed.
func (t *Table) Release(confirmed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range slices.Clone(t.buried.order) {
		g := t.buried.byID[id]
		if g.told == 0 && t.supersededLocked(g.stone) {
			g.told = t.journal.seq
		}
		if g.told != 0 && g.told <= confirmed {
			t.exhumeLocked(id)
			t.buried.release(id)
		}
	}
}

func (t *Table) supersededLocked(stone anchormesh.Tombstone) bool {
	found, whole := t.Covering(stone.Range)
	return whole && !slices.ContainsFunc(found, func(d *anchormesh.Descriptor) bool { return d.Generation <= stone.Generation })
}

func (t *Table) exhumeLocked(id anchormesh.SegmentID) {
	delete(t.buried.byID, id)
	i := slices.Index(t.buried.order, id)
	t.buried.order = slices.Delete(t.buried.order, i, i+1)
	t.journal.remove(id)
	t.noteLocked(id) // its descriptor may still be a hint
}

// Position returns the number of the newest change and a sum over all that the
// journal names.
func (t *Table) Position() (seq, sum uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.journal.seq, t.journal.total()
}

// Since returns what changed after a number, oldest first, at most limit.
func (t *Table) Since(seq uint64, limit int) []Noted {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.journal.since(seq, limit)
}

// Sums returns the sums of all buckets.
func (t *Table) Sums() [Buckets]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.journal.sums
}

// Bucket returns what the journal names in one bucket, by segment.
func (t *Table) Bucket(b int) []Version {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.journal.bucket(b)
}

// Lacks reports whether a version may be news here.
func (t *Table) Lacks(v Version) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buried.byID[v.Segment] != nil || t.buried.released[v.Segment] {
		return false
	}
	k := t.known[v.Segment]
	return v.Buried || k == nil || (&anchormesh.Descriptor{Generation: v.Generation, Changed: v.Changed}).Newer(k.newest)
}
