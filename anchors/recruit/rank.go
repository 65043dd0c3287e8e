package recruit

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// pick takes n candidates for segment: each time one of the zones in which the
// fewest anchors are, and of these the one with the highest score. zones is how
// many anchors each zone has.
func pick(segment anchormesh.SegmentID, candidates []Member, zones map[string]int, n int) (out []Member) {
	left := slices.Clone(candidates)
	for ; n > 0 && len(left) > 0; n-- {
		best := slices.MinFunc(left, func(a, b Member) int {
			return cmp.Or(
				cmp.Compare(zones[a.Zone], zones[b.Zone]),
				cmp.Compare(Score(segment, b.Node, uint64(b.Room)), Score(segment, a.Node, uint64(a.Room))),
				cmp.Compare(a.Node, b.Node),
			)
		})
		out = append(out, best)
		zones[best.Zone]++
		left = slices.DeleteFunc(left, func(m Member) bool { return m.Node == best.Node })
	}
	return out
}

// Score is the weighted rendezvous score of a node for a segment: the highest of
// several is a given node's with the probability of its share of the weight. Only
// leaders compare scores, each for itself, so a float does no harm here.
func Score(segment anchormesh.SegmentID, node anchormesh.NodeID, weight uint64) float64 {
	u := (float64(Hash(segment, node, 0)>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -float64(weight) / math.Log(u)
}

// Hash is the same on every node and even over all 64 bits.
func Hash(segment anchormesh.SegmentID, node anchormesh.NodeID, salt uint64) uint64 {
	h := fnv.New64a()
	h.Write(segment.AppendKey(nil))
	h.Write([]byte(node))
	return mix(h.Sum64() ^ salt*0x9e3779b97f4a7c15)
}

// mix spreads FNV's weak high bits (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
