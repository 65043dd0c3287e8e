package turns

import (
	"bytes"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/node/machine"
)

// step is what the home's leader does next in a hand-over.
type step uint8

const (
	nothing step = iota
	// gather: the others adopt the home's line, which then begins.
	gather
	// resume: the home's own line goes on where it was.
	resume
	// join: the outer line is raised, and the home adopts it.
	join
	// spread: the others adopt the outer line, and the hand-over is over.
	spread
)

// next reads from the home's state what is to be done.
func next(s *machine.State) step {
	t, d := &s.Turn, s.Descriptor
	switch {
	case t.Phase == machine.Spreading:
		return spread
	case t.Phase == machine.Settled:
		return nothing
	case !t.Own(d):
		return join
	case bytes.Equal(t.From, t.To):
		return resume
	}
	return gather
}

// back is where a hand-over goes that cannot go on, and false if it can only be tried
// again: no number of the line it leaves was lost, nor one of the other used.
func back(s *machine.State) (line []byte, ok bool) {
	switch next(s) {
	case gather:
		return s.Turn.From, true
	case join:
		return s.Turn.From, s.Turn.From != nil && bytes.Equal(s.Turn.From, s.Descriptor.Range.Start)
	}
	return nil, false
}

// wanted says which line the policy of a home's scope asks for, and false if that is the
// one it is on, or if the scope is not to be touched now. An outer line is wanted as nil.
func wanted(s *machine.State) (line []byte, ok bool) {
	d := s.Descriptor
	if !s.Home() || len(d.Scope) == 0 || s.Turn.Phase != machine.Settled || s.Merging() {
		return nil, false
	}
	own := s.Policy != nil && s.Policy.Line == policy.Own && !s.Scope.Deleting()
	switch {
	case own && !d.LineHome() && s.Scope.InForce == d.Policy: // all segments are of the scope
		return d.Scope, true
	case !own && d.LineHome():
		return nil, true
	}
	return nil, false
}

// covers reports whether ranges together hold all keys of a range.
func covers(all []anchormesh.KeyRange, keys anchormesh.KeyRange) bool {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b anchormesh.KeyRange) int { return bytes.Compare(a.Start, b.Start) })
	at := keys.Start
	for _, r := range sorted {
		switch {
		case bytes.Compare(r.Start, at) > 0:
			return false
		case len(r.End) == 0:
			return true
		case bytes.Compare(r.End, at) > 0:
			at = r.End
		}
		if len(keys.End) > 0 && bytes.Compare(at, keys.End) >= 0 {
			return true
		}
	}
	return false
}
