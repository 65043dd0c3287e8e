package node_test

import (
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// The leaderships of a node that stops go to the others, those of segments that nobody
// uses, too, and not all to one of them.
func TestLeadershipsOfAStoppingNodeAreSpread(t *testing.T) {
	const segments = 24
	m := newMesh(t, 3)
	m.cutInto(segments)
	ids := map[string]int{}
	for i := range m.nodes {
		ids[string(m.id(i))] = i
	}
	led := func(by int) (out [3]int, all []*meshpb.SegmentInfo) {
		all = m.segments(by)
		for _, s := range all {
			if i, known := ids[s.GetLeader()]; known {
				out[i]++
			}
		}
		return out, all
	}
	admin := m.admin(0)
	m.eventually(20*time.Second, "leaderships of one node", func() bool {
		now, all := led(0)
		for _, s := range all {
			if i, known := ids[s.GetLeader()]; known && i != 0 {
				// Refused now and then; it is asked for again.
				_, _ = admin.Transfer(t.Context(), &meshpb.TransferRequest{Segment: s.GetDescriptor_().GetSegment(), To: string(m.id(0))})
			}
		}
		return now[0] == segments
	})
	m.stop(0)
	var now [3]int
	m.eventually(10*time.Second, "other leaders", func() bool {
		now, _ = led(1)
		return now[0] == 0 && now[1]+now[2] == segments
	})
	if now[1] < segments/4 || now[2] < segments/4 {
		t.Errorf("of %d leaderships the others took %v", segments, now[1:])
	}
}
