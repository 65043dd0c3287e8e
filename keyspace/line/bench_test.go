package line

import (
	"fmt"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

// BenchmarkBatch brings batches of writes through Collector, Home and Holders of a
// number of segments and back; one operation is one write.
func BenchmarkBatch(b *testing.B) {
	for _, segments := range []int{1, 16} {
		for _, k := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("segments=%d/writes=%d", segments, k), func(b *testing.B) { benchBatch(b, segments, k) })
		}
	}
}

func benchBatch(b *testing.B, segments, k int) {
	cfg := DefaultConfig()
	home, c := NewHome(cfg), NewCollector[int](cfg)
	home.Lead(Lead{Seat: Seat{1, 1, 1, 1}, Window: 1})
	home.Windowed(1, 1<<60)
	for i := range segments {
		id := anchormesh.SegmentID(2 + i)
		h := NewHolder[int](cfg)
		c.Add(id, h)
		h.Lead(Seat{1, id, 1, 1}, anchormesh.KeyRange{}, nil)
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n += k * segments {
		for i := range segments {
			for w := range k {
				if err := c.Write(anchormesh.SegmentID(2+i), w); err != nil {
					b.Fatal(err)
				}
			}
		}
		seq, asks, _ := c.Collect(time.Time{})
		home.Request(seq, Request{Line: 1, Segment: 1, Generation: 1, Asks: asks})
		home.RoundDone(home.Take().Round, 1)
		for _, h := range c.Granted(seq, home.Take().Answers[0].Grants) {
			for _, s := range h.Take().Stamped {
				h.Ended(s.Stamp)
			}
		}
	}
}
