package lineage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
)

var three = Voters{Incoming: []anchormesh.NodeID{"n1", "n2", "n3"}}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func begin() *Chain {
	return must(Begin(7, 1, Extent{Generation: 1}, Place{5, 1}, three, Evidence{}))
}

func split(c *Chain, at Place, boundary string, child anchormesh.SegmentID) (left, right *Chain) {
	left, right, err := c.Split(at, []byte(boundary), child, Evidence{Reason: Load, Pressure: 1700, Spread: 930, Numbers: []uint64{42, 1 << 40}})
	if err != nil {
		panic(err)
	}
	return left, right
}

// TestChainsOfSplitsAndMerges follows one segment through splits of splits and a
// merge; every chain on the way leads to genesis.
func TestChainsOfSplitsAndMerges(t *testing.T) {
	first := begin()
	a, b := split(first, Place{9, 1}, "m", 2)
	if a.Head() != b.Head() || a.Last().Hash() != b.Last().Hash() {
		t.Error("the children do not share the split")
	}
	b, c := split(b, Place{8, 1}, "t", 3) // its own log: an index below the parent's
	b = must(b.Change(Place{9, 2}, Voters{Incoming: []anchormesh.NodeID{"n1", "n2", "n4"}, Outgoing: three.Incoming}, Evidence{Reason: Dead}))
	b = must(b.Change(Place{10, 2}, three, Evidence{Reason: Dead}))
	a = must(a.Merge(Place{12, 3}, b, Evidence{Reason: Operator, Operator: "ada"}))

	if got := a.Now(); got.Generation != 4 || got.Range.String() != `["", "t")` {
		t.Errorf("the merged segment governs %v", got)
	}
	if got := c.Now(); got.Generation != 3 || got.Range.String() != `["t", ∞)` {
		t.Errorf("the last child governs %v", got)
	}
	if gaps, forks := Survey([]*Chain{a, b, c}); len(gaps)+len(forks) != 0 {
		t.Errorf("a true history has gaps %v and forks %v", gaps, forks)
	}
	// The left child's chain holds what the right ones build on.
	if !a.Whole() || c.Whole() {
		t.Error("who begins with genesis?")
	}
	gaps, _ := Survey([]*Chain{c})
	if len(gaps) != 1 || gaps[0].Missing != c.Entries()[0].Previous[0] || gaps[0].Below != 2 {
		t.Errorf("a child alone has the gaps %v", gaps)
	}
}

func TestWhatDoesNotFollowIsRefused(t *testing.T) {
	base, _ := split(begin(), Place{9, 2}, "m", 2)
	good := func() *Entry { return base.next(Anchors, Place{10, 2}, Evidence{}) }
	for name, c := range map[string]struct {
		edit func(*Entry)
		err  error
		word string
	}{
		"another mesh":     {func(e *Entry) { e.Mesh = 8 }, ErrBroken, "another mesh"},
		"another segment":  {func(e *Entry) { e.Segment = 2 }, ErrBroken, "another segment"},
		"predecessor":      {func(e *Entry) { e.Previous[0][3] ^= 1 }, ErrBroken, "predecessor"},
		"height":           {func(e *Entry) { e.Height++ }, ErrBroken, "height"},
		"generation":       {func(e *Entry) { e.Before.Generation++; e.After.Generation++ }, ErrBroken, "did not end"},
		"index":            {func(e *Entry) { e.Index = 9 }, ErrBroken, "back"},
		"term":             {func(e *Entry) { e.Term = 1 }, ErrBroken, "back"},
		"no index":         {func(e *Entry) { e.Index = 0 }, ErrInvalid, "index"},
		"two predecessors": {func(e *Entry) { e.Previous = append(e.Previous, e.Previous[0]) }, ErrInvalid, "predecessors"},
		"zero predecessor": {func(e *Entry) { e.Previous[0] = anchormesh.Hash{} }, ErrInvalid, "zero"},
		"trust":            {func(e *Entry) { e.Kind = 6; e.Previous = nil }, ErrInvalid, "not known"},
		"range":            {func(e *Entry) { e.After.Range.End = []byte("l") }, ErrInvalid, "anchors from"},
		"nobody votes":     {func(e *Entry) { e.Voters = Voters{} }, ErrInvalid, "nobody"},
		"voters unsorted":  {func(e *Entry) { e.Voters.Incoming = []anchormesh.NodeID{"b", "a"} }, ErrInvalid, "ascending"},
		"evidence":         {func(e *Entry) { e.Evidence.Numbers = make([]uint64, 9) }, ErrInvalid, "evidence"},
		"long key":         {func(e *Entry) { e.Before.Range.Start = make([]byte, KeyBytesMax+1) }, ErrInvalid, "bytes"},
	} {
		e := good()
		c.edit(e)
		if _, err := base.Append(e); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v, want %v naming %q", name, err, c.err, c.word)
		}
	}
	if _, err := base.Append(good()); err != nil {
		t.Errorf("the unchanged entry: %v", err)
	}
	joint := must(base.Change(Place{10, 2}, Voters{Incoming: three.Incoming, Outgoing: three.Incoming}, Evidence{}))
	if _, _, err := joint.Split(Place{11, 2}, []byte("c"), 9, Evidence{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a split while the configuration is joint: %v", err)
	}
	for _, boundary := range []string{"", "m", "x"} {
		if _, _, err := base.Split(Place{10, 2}, []byte(boundary), 9, Evidence{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("a split at %q of %v: %v", boundary, base.Now().Range, err)
		}
	}
	if _, err := base.Merge(Place{10, 2}, begin(), Evidence{}); err == nil {
		t.Error("a segment absorbed itself")
	}
}

// TestALongChainIsSummarised: beyond the limits a chain keeps height and head of
// what it forgot, stays verifiable and encodes the same.
func TestALongChainIsSummarised(t *testing.T) {
	c := begin()
	var all []*Entry
	for i := range 3 * EntriesMax {
		all = append(all, c.Last())
		c = must(c.Change(Place{uint64(10 + i), 1}, three, Evidence{}))
		if len(c.Entries()) > EntriesMax || c.Last().Height != uint64(i+1) {
			t.Fatalf("after %d changes: %d entries, height %d", i+1, len(c.Entries()), c.Last().Height)
		}
	}
	if len(c.Entries()) != EntriesMax || c.Whole() {
		t.Fatalf("%d entries are kept", len(c.Entries()))
	}
	oldest := c.Entries()[0]
	if before := all[oldest.Height-1]; oldest.Previous[0] != before.Hash() {
		t.Error("the summary is not the head of what was forgotten")
	}
	if got := must(DecodeChain(c.Encode())); got.Head() != c.Head() || !bytes.Equal(got.Encode(), c.Encode()) {
		t.Error("decoded, it is another chain")
	}
	gaps, _ := Survey([]*Chain{c})
	if len(gaps) != 1 || gaps[0].Below != oldest.Height {
		t.Errorf("gaps %v, want one of %d entries", gaps, oldest.Height)
	}
	long := []byte(strings.Repeat("k", KeyBytesMax))
	c, _, err := begin().Split(Place{9, 1}, long, 2, Evidence{})
	for i := 0; err == nil && i < 10; i++ {
		c, err = c.Change(Place{uint64(10 + i), 1}, three, Evidence{})
	}
	if err != nil || len(c.Encode()) > BytesMax+64 || len(c.Entries()) < 1 {
		t.Errorf("%d bytes are kept of long keys, %v", len(c.Encode()), err)
	}
}

// TestRandomHistories: whatever splits, merges and moves happen, all chains
// verify, round-trip, and lead to genesis without a fork.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 11))
		live, index := []*Chain{begin()}, uint64(10)
		all := map[anchormesh.SegmentID]*Chain{1: live[0]}
		for id := anchormesh.SegmentID(2); id < 40; id++ {
			index++
			i := rng.IntN(len(live))
			c, at := live[i], Place{index, 1}
			r := c.Now().Range
			key := fmt.Appendf(nil, "%s%c", r.Start, 'b'+rune(rng.IntN(24)))
			switch {
			case rng.IntN(3) == 0 && i+1 < len(live):
				live[i] = must(c.Merge(at, live[i+1], Evidence{}))
				live = append(live[:i+1], live[i+2:]...)
			case rng.IntN(2) == 0 && r.Contains(key) && !bytes.Equal(key, r.Start):
				left, right := split(c, at, string(key), id)
				live[i] = left
				live = append(live[:i+1], append([]*Chain{right}, live[i+1:]...)...)
				all[id] = right
			default:
				live[i] = must(c.Change(at, three, Evidence{}))
			}
			all[live[i].Segment()] = live[i]
		}
		var chains []*Chain
		for _, c := range all {
			if err := Verify(c.segment, c.Entries()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			chains = append(chains, must(DecodeChain(c.Encode())))
		}
		if gaps, forks := Survey(chains); len(gaps)+len(forks) != 0 {
			t.Fatalf("seed %d: gaps %v, forks %v", seed, gaps, forks)
		}
		for i, c := range live { // neighbours, from end to end
			if r := c.Now().Range; i > 0 && !bytes.Equal(r.Start, live[i-1].Now().Range.End) {
				t.Fatalf("seed %d: %v does not follow its neighbour", seed, r)
			}
		}
	}
}
