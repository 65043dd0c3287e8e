package consensus_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/consensus"
)

// BenchmarkPropose measures one group of three nodes in this process: real log
// files, frames handed over without a network.
func BenchmarkPropose(b *testing.B) {
	for _, clients := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			n, members := benchGroup(b)
			payload := bytes.Repeat([]byte("x"), 290)
			leader := benchLeader(b, members)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					done := make(chan consensus.Result, 1)
					for left.Add(-1) >= 0 {
						leader.engine.Propose(1, 1, payload, func(r consensus.Result) { done <- r })
						if r := <-done; r.Err != nil {
							b.Error(r.Err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(leader.log.Stats().Batches)/float64(b.N), "batches/op")
			for _, m := range members {
				m.stop(b, n)
			}
		})
	}
}

func benchGroup(b *testing.B) (*net, []*member) {
	n := newNet()
	var members []*member
	for i := range nodes {
		members = append(members, start(b, n, b.TempDir(), i, 1))
	}
	return n, members
}

func benchLeader(b *testing.B, members []*member) *member {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := propose(ctx, members, 1, "first"); err != nil {
		b.Fatal(err)
	}
	for _, m := range members {
		if st, ok := m.engine.Status(1); ok && st.Leads() {
			return m
		}
	}
	b.Fatal("no leader")
	return nil
}
