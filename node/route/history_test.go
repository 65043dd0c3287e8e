package route

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// history is a true course of splits, merges and changes of anchors.
type history struct {
	rng    *rand.Rand
	live   []*anchormesh.Descriptor // in key order
	all    []*anchormesh.Descriptor // every descriptor there ever was
	graves []anchormesh.Tombstone
	ids    anchormesh.SegmentID
	index  uint64
}

func newHistory(seed uint64) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 4)), ids: 1, index: 5}
	h.live = []*anchormesh.Descriptor{{Segment: 1, Generation: 1, Changed: 5}}
	h.all = slices.Clone(h.live)
	return h
}

func (h *history) set(i int, d *anchormesh.Descriptor) {
	h.index++
	d.Changed = h.index
	h.live[i] = d
	h.all = append(h.all, d)
}

func (h *history) step() {
	i := h.rng.IntN(len(h.live))
	d := h.live[i].Clone()
	switch roll := h.rng.IntN(10); {
	case roll < 5:
		h.split(i, d)
	case roll < 7 && i+1 < len(h.live):
		right := h.live[i+1]
		h.graves = append(h.graves, anchormesh.Tombstone{
			Segment: right.Segment, Generation: right.Generation, Range: right.Range, Successors: []anchormesh.SegmentID{d.Segment},
		})
		d.Generation = max(d.Generation, right.Generation) + 1
		d.Range.End = right.Range.End
		h.live = slices.Delete(h.live, i+1, i+2)
		h.set(i, d)
	default:
		h.set(i, d)
	}
}

func (h *history) split(i int, d *anchormesh.Descriptor) {
	boundary := fmt.Appendf(bytes.Clone(d.Range.Start), "%c", 'a'+rune(h.rng.IntN(20)))
	if !d.Range.Contains(boundary) {
		return
	}
	h.ids++
	right := d.Clone()
	right.Segment, right.Generation, right.Range.Start = h.ids, d.Generation+1, boundary
	d.Generation, d.Range.End = d.Generation+1, boundary
	h.set(i, d)
	h.live = slices.Insert(h.live, i+1, right)
	h.set(i+1, right)
}

// best is the dumb twin of the cover: of all heard, who holds the key.
func best(heard []*anchormesh.Descriptor, key []byte) *anchormesh.Descriptor {
	var out *anchormesh.Descriptor
	for _, d := range heard {
		if d.Range.Contains(key) && (out == nil || beats(d, out)) {
			out = d
		}
	}
	return out
}

// keys are all places where anything can change, and some between.
func (h *history) keys() [][]byte {
	out := [][]byte{{}, []byte("zz")}
	for _, d := range h.all {
		out = append(out, d.Range.Start, append(bytes.Clone(d.Range.Start), 0), d.Range.End)
	}
	return out
}

// TestAnyOrderConverges: descriptors of a random history, in random order, some
// lost and some twice, with tombstones between. At every moment each key is
// routed to the best of what was heard; once everything was heard, the table is
// the truth.
func TestAnyOrderConverges(t *testing.T) {
	for seed := range uint64(25) {
		h := newHistory(seed)
		for range 20 + h.rng.IntN(150) {
			h.step()
		}
		tab, keys := NewTable(), h.keys()
		var heard []*anchormesh.Descriptor
		stones := slices.Clone(h.graves)
		hear := func(d *anchormesh.Descriptor) {
			tab.Learn(d)
			heard = append(heard, d)
			if len(stones) > 0 && h.rng.IntN(4) == 0 {
				tab.Bury(stones[0])
				stones = stones[1:]
			}
		}
		order := h.rng.Perm(len(h.all))
		var lost []*anchormesh.Descriptor
		for n, i := range order {
			if h.rng.IntN(3) == 0 {
				lost = append(lost, h.all[i])
				continue
			}
			hear(h.all[i])
			if h.rng.IntN(3) == 0 {
				hear(heard[h.rng.IntN(len(heard))])
			}
			if n%7 == 0 {
				checkTable(t, seed, tab, heard, keys)
			}
		}
		checkTable(t, seed, tab, heard, keys)
		for _, d := range lost {
			hear(d)
		}
		checkTable(t, seed, tab, heard, keys)
		checkTruth(t, seed, tab, h)
	}
}

func checkTable(t *testing.T, seed uint64, tab *Table, heard []*anchormesh.Descriptor, keys [][]byte) {
	t.Helper()
	for _, key := range keys {
		want := best(heard, key)
		got, ok := tab.Lookup(key)
		if ok != (want != nil) || got != want {
			t.Fatalf("seed %d: key %q is routed to %v, want %v", seed, key, got, want)
		}
		if ok {
			if _, buried := tab.Tombstone(got.Segment); buried {
				continue
			}
			if newest, ok := tab.Segment(got.Segment); !ok || got.Newer(newest) {
				t.Fatalf("seed %d: segment %d is %v, a key is routed to %v", seed, got.Segment, newest, got)
			}
		}
	}
	var last *Part
	parts := map[anchormesh.SegmentID]int{}
	for i, chunk := range tab.current.Load().chunks {
		if len(chunk) == 0 || len(chunk) > chunkMax {
			t.Fatalf("seed %d: chunk %d has %d parts", seed, i, len(chunk))
		}
		for _, p := range chunk {
			if p.Range.Empty() || !p.Descriptor.Range.Covers(p.Range) {
				t.Fatalf("seed %d: part %v of %v", seed, p.Range, p.Descriptor)
			}
			if last != nil {
				if last.Range.Overlaps(p.Range) || bytes.Compare(last.Range.Start, p.Range.Start) >= 0 ||
					last.Descriptor == p.Descriptor && bytes.Equal(last.Range.End, p.Range.Start) {
					t.Fatalf("seed %d: part %v behind %v", seed, p, *last)
				}
			}
			last = &p
			parts[p.Descriptor.Segment]++
		}
	}
	for id, k := range tab.known {
		if k.wins+k.left != parts[id] || parts[id] == 0 || k.wins < 0 || k.left < 0 {
			t.Fatalf("seed %d: segment %d has %d parts, counted %+v", seed, id, parts[id], k)
		}
	}
	if len(tab.known) != len(parts) {
		t.Fatalf("seed %d: %d segments are known, %d have parts", seed, len(tab.known), len(parts))
	}
}

func checkTruth(t *testing.T, seed uint64, tab *Table, h *history) {
	t.Helper()
	if all := tab.All(); !slices.Equal(all, h.live) {
		t.Fatalf("seed %d: all heard, but the table has %d segments of %d", seed, len(all), len(h.live))
	}
	parts, whole := tab.Parts(anchormesh.KeyRange{})
	if !whole || len(parts) != len(h.live) {
		t.Fatalf("seed %d: %d parts of %d, whole %v", seed, len(parts), len(h.live), whole)
	}
	for _, g := range h.graves {
		tab.Bury(g)
		if _, ok := tab.Segment(g.Segment); ok {
			t.Fatalf("seed %d: the buried segment %d is found by its ID", seed, g.Segment)
		}
		next := tab.Successors(g.Segment)
		if len(next) == 0 || !next[0].Range.Contains(g.Range.Start) || next[0].Generation <= g.Generation {
			t.Fatalf("seed %d: the buried %v leads to %v", seed, g, next)
		}
	}
	// What the journal says by numbers and by buckets is the same, and adds up.
	noted, total := map[anchormesh.SegmentID]Version{}, uint64(0)
	for _, n := range tab.Since(0, 1<<20) {
		noted[n.Segment] = n.Version
	}
	if len(noted) != len(h.live)+len(h.graves) {
		t.Fatalf("seed %d: the journal names %d of %d and %d", seed, len(noted), len(h.live), len(h.graves))
	}
	for b := range Buckets {
		for _, v := range tab.Bucket(b) {
			if noted[v.Segment] != v {
				t.Fatalf("seed %d: the bucket has %v, the log %v", seed, v, noted[v.Segment])
			}
			total += v.sum()
		}
	}
	if _, sum := tab.Position(); sum != total {
		t.Fatalf("seed %d: the sum is %x, its parts make %x", seed, sum, total)
	}
}

// TestAHoleKeepsItsHint: the old wide descriptor of generation 3, the new right
// child of generation 4, the left child not heard of.
func TestAHoleKeepsItsHint(t *testing.T) {
	tab := NewTable()
	tab.Learn(descriptor(1, "b", "x", 3, 30))
	tab.Learn(descriptor(2, "m", "x", 4, 5))
	if d, ok := tab.Lookup([]byte("c")); !ok || d.Segment != 1 || d.Generation != 3 {
		t.Fatalf("the uncovered part is routed to %v", d)
	}
	parts, whole := tab.Parts(anchormesh.KeyRange{Start: []byte("c"), End: []byte("n")})
	if !whole || fmt.Sprint(parts[0].Range, parts[1].Range) != `["c", "m") ["m", "n")` {
		t.Fatalf("parts %v, whole %v", parts, whole)
	}
	tab.Learn(descriptor(1, "b", "m", 4, 31))
	if d, _ := tab.Lookup([]byte("c")); d.Generation != 4 {
		t.Fatalf("the left child's descriptor did not replace the hint: %v", d)
	}
	if tab.Learn(descriptor(1, "b", "x", 3, 30)) {
		t.Error("the old descriptor is news again")
	}
	// The other way round: the left child first, then the right is the hole.
	tab = NewTable()
	tab.Learn(descriptor(1, "b", "m", 4, 31))
	if !tab.Learn(descriptor(1, "b", "x", 3, 30)) {
		t.Error("an old descriptor that alone knows some keys is no news")
	}
	if d, ok := tab.Lookup([]byte("p")); !ok || d.Generation != 3 {
		t.Fatalf("the right half is routed to %v", d)
	}
	if d, _ := tab.Segment(1); d.Generation != 4 {
		t.Fatalf("the newest of the segment is %v", d)
	}
}

func TestTombstonesAreReleasedWhenAllKnow(t *testing.T) {
	tab := NewTable()
	tab.Learn(descriptor(1, "", "m", 2, 1))
	tab.Learn(descriptor(2, "m", "", 2, 1))
	tab.SetLeader(2, "n1")
	stone := anchormesh.Tombstone{Segment: 2, Generation: 2, Range: descriptor(2, "m", "", 2, 1).Range, Successors: []anchormesh.SegmentID{1}}
	if !tab.Bury(stone) || tab.Bury(stone) {
		t.Fatal("a tombstone is news once")
	}
	if _, ok := tab.Leader(2); ok {
		t.Error("a buried segment has a leader")
	}
	if d, ok := tab.Lookup([]byte("q")); !ok || d.Segment != 2 {
		t.Errorf("while the successor is unknown the retired segment is the only hint; key routed to %v", d)
	}
	tab.Release(1 << 60)
	if _, ok := tab.Tombstone(2); !ok {
		t.Fatal("released before a higher generation of its range is known")
	}
	tab.Learn(descriptor(1, "", "", 3, 9))
	if next := tab.Successors(2); len(next) != 1 || next[0].Segment != 1 {
		t.Fatalf("successors %v", next)
	}
	seq, _ := tab.Position()
	tab.Release(seq - 1)
	if _, ok := tab.Tombstone(2); !ok {
		t.Fatal("released before all have confirmed")
	}
	tab.Learn(descriptor(1, "", "", 3, 10)) // later changes need no confirmation
	tab.Release(seq)
	if _, ok := tab.Tombstone(2); ok || len(tab.Since(0, 10)) != 1 {
		t.Fatal("not released when all have confirmed")
	}
	// Somebody who has not dropped it yet does not bring it back.
	if tab.Lacks(Version{Segment: 2, Generation: 2, Buried: true}) || tab.Bury(stone) {
		t.Error("a released tombstone came back")
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	tab := NewTable()
	for i := range anchormesh.SegmentID(TombstonesMax + 10) {
		tab.Bury(anchormesh.Tombstone{Segment: i + 1, Generation: 1})
	}
	if _, ok := tab.Tombstone(10); ok {
		t.Error("the oldest did not give way")
	}
	if _, ok := tab.Tombstone(11); !ok || len(tab.buried.order) != TombstonesMax {
		t.Errorf("%d tombstones are kept", len(tab.buried.order))
	}
}

func TestSinceAndTheLogsCompaction(t *testing.T) {
	tab := NewTable()
	for i := range 500 {
		for id := range anchormesh.SegmentID(3) {
			tab.Learn(descriptor(id+1, string(rune('a'+id)), string(rune('b'+id)), 1, uint64(i+1)))
		}
	}
	if n := len(tab.journal.log); n > 200 {
		t.Errorf("the log of three segments has %d lines", n)
	}
	seq, _ := tab.Position()
	if seq != 1500 {
		t.Fatalf("%d changes are numbered", seq)
	}
	if got := tab.Since(seq-2, 10); len(got) != 2 || got[0].Segment != 2 || got[1].Segment != 3 {
		t.Errorf("since two changes ago: %v", got)
	}
	if got := tab.Since(0, 2); len(got) != 2 || got[0].Seq != 1498 {
		t.Errorf("the first two of all: %v", got)
	}
	if len(tab.Since(seq, 10)) != 0 {
		t.Error("something is newer than the newest")
	}
	if tab.Lacks(Version{Segment: 1, Generation: 1, Changed: 500}) || !tab.Lacks(Version{Segment: 1, Generation: 1, Changed: 501}) ||
		!tab.Lacks(Version{Segment: 9}) || !tab.Lacks(Version{Segment: 1, Buried: true}) {
		t.Error("what is lacking?")
	}
}

func TestReleasedTombstonesAreRememberedWithinALimit(t *testing.T) {
	g := graves{released: make(map[anchormesh.SegmentID]bool)}
	for i := range anchormesh.SegmentID(ReleasedMax + 5) {
		g.release(i + 1)
	}
	if g.released[5] || !g.released[6] || len(g.released) != ReleasedMax || len(g.ring) != ReleasedMax {
		t.Errorf("%d of %d are remembered", len(g.released), ReleasedMax)
	}
}
