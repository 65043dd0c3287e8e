package node_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
)

// BenchmarkApprovals compares the CPU that a write of 64 concurrent clients costs the
// whole process (three nodes and the clients) in a normal scope and in a strong one.
func BenchmarkApprovals(b *testing.B) {
	m := newMesh(b, 3)
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/n/"), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}}})
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: strong(nil)})
	c := m.client(0)
	for _, prefix := range []string{"/n/", "/s/"} {
		b.Run(prefix[1:2], func(b *testing.B) {
			var next atomic.Int64
			var writers sync.WaitGroup
			before, begin := cpu(b), time.Now()
			for w := range 64 {
				writers.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if _, err := c.Put(ctx, fmt.Sprintf("%s%d", prefix, w), "value"); err != nil {
							b.Error(err)
						}
					}
				})
			}
			writers.Wait()
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/write")
			b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "writes/s")
		})
	}
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
