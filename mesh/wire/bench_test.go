package wire

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// reportCPU adds the CPU time of both nodes per operation.
func reportCPU(b *testing.B) func() {
	begun := cpuTime()
	return func() {
		b.ReportMetric(float64((cpuTime()-begun).Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
}

func BenchmarkCallLatency(b *testing.B) {
	x, y := pair(b)
	y.HandleCalls(1, echo)
	ctx := context.Background()
	payload := make([]byte, 300)
	if _, err := x.Call(ctx, y.id, 1, payload); err != nil {
		b.Fatal(err)
	}
	took := make([]time.Duration, 0, b.N)
	b.ReportAllocs()
	cpu := reportCPU(b)
	b.ResetTimer()
	for range b.N {
		begun := time.Now()
		if _, err := x.Call(ctx, y.id, 1, payload); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	b.StopTimer()
	cpu()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

func benchmarkCalls(b *testing.B, callers int) {
	x, y := pair(b)
	y.HandleCalls(1, echo)
	ctx := context.Background()
	payload := make([]byte, 300)
	if _, err := x.Call(ctx, y.id, 1, payload); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	cpu := reportCPU(b)
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := x.Call(ctx, y.id, 1, payload); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func BenchmarkCalls4(b *testing.B)   { benchmarkCalls(b, 4) }
func BenchmarkCalls32(b *testing.B)  { benchmarkCalls(b, 32) }
func BenchmarkCalls500(b *testing.B) { benchmarkCalls(b, 500) }

func benchmarkSend(b *testing.B, size int) {
	x, y := pair(b)
	var got atomic.Int64
	done := make(chan struct{}, 1)
	want := int64(b.N)
	y.HandleMessages(0, func(_ anchormesh.NodeID, p []byte) {
		if got.Add(1) == want {
			done <- struct{}{}
		}
	})
	payload := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	cpu := reportCPU(b)
	b.ResetTimer()
	for range b.N {
		for !x.Send(y.id, 0, payload) {
			time.Sleep(20 * time.Microsecond) // the queue is full: the figure is what gets through
		}
	}
	<-done
	b.StopTimer()
	cpu()
}

func BenchmarkSend1KiB(b *testing.B)  { benchmarkSend(b, 1<<10) }
func BenchmarkSend64KiB(b *testing.B) { benchmarkSend(b, 64<<10) }
