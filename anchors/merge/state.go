package merge

import (
	"cmp"
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// What refuses an entry: it takes effect nowhere.
var (
	// ErrBusy: an attempt is open, or the segment is frozen.
	ErrBusy = errors.New("merge: another attempt is under way")
	// ErrNumber: the entry's attempt is not the one that it would have to be.
	ErrNumber = errors.New("merge: attempt out of order")
	// ErrChanged: a descriptor is not the one that the attempt names.
	ErrChanged = errors.New("merge: the descriptor has changed")
	// ErrNoProof: a thaw that nothing proves.
	ErrNoProof = errors.New("merge: no proof that the attempt was aborted")
)

// Side is one of the two segments, as an attempt names it.
type Side struct {
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Changed    uint64 // index of the entry that last changed the descriptor
	Nodes      []anchormesh.NodeID
}

func (s *Side) equal(o *Side) bool {
	return s.Segment == o.Segment && s.Generation == o.Generation && s.Changed == o.Changed && slices.Equal(s.Nodes, o.Nodes)
}

// Attempt names one try. The left range's generation only grows, and numbers count
// within it, so attempts of a range are ordered even across its splits.
type Attempt struct {
	Generation anchormesh.Generation // the left's
	Number     uint64
}

// Compare orders attempts of one range.
func (a Attempt) Compare(b Attempt) int {
	return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Number, b.Number))
}

// Pair is what an attempt names. Both have the same nodes, in one order.
type Pair struct{ Left, Right Side }

// Left is the left segment's replicated state. A child of a split begins with that
// of [Left.Cut], at its higher generation.
type Left struct {
	Last     Attempt
	Pair     Pair // of Last, while Open
	Open     bool
	Absorbed bool // Last was: the range's generation is a new one by then
	// Edge is the generation in which a split made the boundary at the end of the
	// segment's range; it goes with the boundary through splits elsewhere, merges on
	// the other side and changes of anchors. An attempt of that generation or a later
	// one that was not absorbed is the proof that it never will be: for while the
	// right has the boundary, it stays, and once it was absorbed, only a younger split
	// can have made it again.
	Edge anchormesh.Generation
}

// Cut returns what the two children of a split begin with: the left one ends at a
// new boundary, the right one where the parent did. generation is the children's.
func (l *Left) Cut(generation anchormesh.Generation) (left, right Left) {
	return Left{Last: l.Last, Edge: generation}, Left{Edge: l.Edge}
}

// ApplyOpen begins an attempt. now is the left's own descriptor.
func (l *Left) ApplyOpen(now *Side, n Attempt, pair Pair) error {
	switch {
	case l.Open:
		return ErrBusy
	case !now.equal(&pair.Left):
		return ErrChanged
	case !slices.Equal(pair.Left.Nodes, pair.Right.Nodes):
		return ErrChanged
	case n != l.Next(now.Generation):
		return ErrNumber
	}
	*l = Left{Last: n, Pair: pair, Open: true, Edge: l.Edge}
	return nil
}

// Next returns the attempt that may be opened next.
func (l *Left) Next(g anchormesh.Generation) Attempt {
	if l.Last.Generation != g {
		return Attempt{Generation: g, Number: 1}
	}
	return Attempt{Generation: g, Number: l.Last.Number + 1}
}

// ApplyAbsorb ends the open attempt with the merge; the merged segment has the
// returned generation, and ends where the right did.
func (l *Left) ApplyAbsorb(n Attempt, right *Left) (anchormesh.Generation, error) {
	if !l.Open || n != l.Last {
		return 0, ErrNumber
	}
	l.Open, l.Absorbed, l.Edge = false, true, right.Edge
	return max(l.Pair.Left.Generation, l.Pair.Right.Generation) + 1, nil
}

// ApplyAbort ends the open attempt without.
func (l *Left) ApplyAbort(n Attempt) error {
	if !l.Open || n != l.Last {
		return ErrNumber
	}
	l.Open = false
	return nil
}

// Verdict is what the left range says of an attempt.
type Verdict uint8

// Verdicts.
const (
	Undecided Verdict = iota + 1
	Merged
	Aborted // or it never will be anything else
)

// Place is where the segment that holds the left range's last key today ends: at the
// key where the right begins, or behind it. One that ends before it does not hold that
// key and cannot judge.
type Place struct {
	Generation anchormesh.Generation
	Behind     bool // it holds the right's first key, too
}

// Judge says what became of an attempt, by the state of the segment that holds the
// left range's last key today. It rests on what this state says, never on what it
// does not say, so it needs no memory of what was merged or who has gone. It speaks
// for the log only after a ReadIndex round.
func (l *Left) Judge(at Place, n Attempt) Verdict {
	switch {
	case at.Generation < n.Generation:
		return Undecided // this replica has not come that far
	case at.Behind, l.Edge > n.Generation:
		return Merged // the boundary is gone, or another one stands in its place
	case at.Generation > n.Generation:
		return Aborted // the boundary is that of the attempt, the generation is not
	case n == l.Last && !l.Open, n.Compare(l.Last) < 0:
		return Aborted
	}
	return Undecided
}

// Right is the right segment's replicated state.
type Right struct {
	Frozen  bool
	By      Attempt
	Pair    Pair    // of By
	Decided Attempt // the highest that was thawed: none up to it freezes again
}

// ApplyFreeze freezes. now is the right's own descriptor.
func (r *Right) ApplyFreeze(now *Side, n Attempt, pair Pair) error {
	switch {
	case r.Frozen && r.By == n:
		return nil
	case r.Frozen:
		return ErrBusy
	case n.Compare(r.Decided) <= 0:
		return ErrNumber
	case !now.equal(&pair.Right):
		return ErrChanged
	}
	r.Frozen, r.By, r.Pair = true, n, pair
	return nil
}

// ApplyThaw ends a freeze. v is what the left range proved of the attempt.
func (r *Right) ApplyThaw(n Attempt, v Verdict) error {
	switch {
	case !r.Frozen || r.By != n:
		return ErrNumber
	case v != Aborted:
		return ErrNoProof
	}
	*r = Right{Decided: n}
	return nil
}
