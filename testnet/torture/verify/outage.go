package verify

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

// Outage returns the longest time between from and to in which no write through the
// given nodes was acknowledged; nil: through any. What began before from counts from
// then; what lasts at to counts to its end, or to the last answer of all.
func Outage(acks []traffic.Ack, nodes map[int]bool, from, to time.Duration) time.Duration {
	var at []time.Duration
	for _, a := range acks {
		if nodes == nil || nodes[a.Node] {
			at = append(at, a.At)
		}
	}
	slices.Sort(at)
	longest, last := time.Duration(0), from
	for _, t := range at {
		if t <= from {
			continue
		}
		longest = max(longest, t-last)
		if last = t; t >= to {
			return longest
		}
	}
	return max(longest, to-last)
}
