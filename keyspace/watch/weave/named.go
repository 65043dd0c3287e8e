package weave

import (
	"slices"

	"github.com/anchormesh/anchormesh"
)

// named is the key ranges of an answer, in order and apart, for one walk beside the
// threads of a watch.
type named struct {
	ranges []anchormesh.KeyRange
	at     int
}

func newNamed(ranges []anchormesh.KeyRange) *named {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b anchormesh.KeyRange) int { return slices.Compare(a.Start, b.Start) })
	n := &named{}
	for _, r := range sorted {
		last := len(n.ranges) - 1
		if r.Empty() || last >= 0 && n.ranges[last].Covers(r) {
			continue
		}
		n.ranges = append(n.ranges, r)
	}
	return n
}

func (n *named) rewind() { n.at = 0 }

// overlap reports whether a range shares a key with one of them. Calls come in the
// order of the ranges, from rewind on.
func (n *named) overlap(r anchormesh.KeyRange) bool {
	for n.at < len(n.ranges) {
		end := n.ranges[n.at].End
		if len(end) == 0 || string(end) > string(r.Start) {
			break
		}
		n.at++
	}
	return n.at < len(n.ranges) && n.ranges[n.at].Overlaps(r)
}
