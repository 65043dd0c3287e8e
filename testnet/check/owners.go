package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrOwners: a key has no owner, or several, or nodes disagree on who it is.
var ErrOwners = errors.New("keys do not have one owner each")

// Owner is what one replica holds: keys from Start on, below End (empty: to the end).
type Owner struct {
	Node                string
	Segment, Generation uint64
	Start, End          string
}

// Owners judges all replicas of a mesh at rest: those of one segment agree on its
// generation and range, and the segments' ranges are [start, end), without gap or
// overlap.
func Owners(all []Owner, start, end string) error {
	bySegment := make(map[uint64]Owner)
	var segments []Owner
	for _, o := range all {
		first, known := bySegment[o.Segment]
		if !known {
			bySegment[o.Segment] = o
			segments = append(segments, o)
			continue
		}
		if o.Node = first.Node; o != first {
			return fmt.Errorf("%w: segment %x is %+v and %+v", ErrOwners, o.Segment, first, o)
		}
	}
	slices.SortFunc(segments, func(a, b Owner) int { return cmp.Compare(a.Start, b.Start) })
	at, over := start, false
	for _, o := range segments {
		if over || o.Start != at {
			return fmt.Errorf("%w: keys from %q on belong to %+v", ErrOwners, at, o)
		}
		at, over = o.End, o.End == ""
	}
	if at != end || over != (end == "") {
		return fmt.Errorf("%w: nobody holds keys from %q to %q", ErrOwners, at, end)
	}
	return nil
}
