package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// BenchmarkRest says what segments cost that nobody uses: of three nodes in this
// process, per segment and node, heap that is in use, stacks, and what is allocated
// in ten seconds of rest; per node, CPU. The figures of memory do not depend on how
// busy the machine is.
//
// PROFILES names a directory for profiles of memory before and after the rest, and of
// CPU meanwhile.
//
//	SEGMENTS=2000 PROFILES=/tmp go test -run '^$' -bench Rest -benchtime 1x -memprofilerate 4096 ./node
func BenchmarkRest(b *testing.B) {
	const nodes, window = 3, 10 * time.Second
	segments := 300
	if s := os.Getenv("SEGMENTS"); s != "" {
		segments, _ = strconv.Atoi(s)
	}
	m := newMesh(b, nodes)
	before := held()
	m.cutInto(segments)
	m.eventually(3*time.Minute, "rest", func() bool { return m.atRest(segments) })
	after := held()
	profile(b, "held")

	var begin, end runtime.MemStats
	runtime.ReadMemStats(&begin)
	cpu := used()
	stop := profileCPU(b)
	b.ResetTimer()
	for range b.N {
		<-time.After(window)
	}
	stop()
	cpu = used() - cpu
	runtime.ReadMemStats(&end)
	held() // a profile knows of what a collection has seen
	profile(b, "rested")
	of := func(now, then uint64, per int) float64 { return (float64(now) - float64(then)) / float64(per) }
	replicas := nodes * (segments - 1)
	b.ReportMetric(of(after.HeapAlloc, before.HeapAlloc, replicas), "heap-B/replica")
	b.ReportMetric(of(after.HeapObjects, before.HeapObjects, replicas), "objects/replica")
	b.ReportMetric(of(after.StackInuse, before.StackInuse, replicas), "stack-B/replica")
	b.ReportMetric(of(end.TotalAlloc, begin.TotalAlloc, nodes*b.N*int(window/time.Second)), "alloc-B/node/s")
	b.ReportMetric(100*cpu.Seconds()/(window.Seconds()*float64(nodes*b.N)), "cpu-%/node")
	b.ReportMetric(0, "ns/op")
}

// profile writes what was allocated up to now.
func profile(b *testing.B, name string) {
	if f := profileFile(b, name); f != nil {
		defer f.Close()
		if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func profileCPU(b *testing.B) (stop func()) {
	f := profileFile(b, "cpu")
	if f == nil {
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		b.Fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

func profileFile(b *testing.B, name string) *os.File {
	dir := os.Getenv("PROFILES")
	if dir == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// held is what this process has in use.
func held() (s runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s
}

// used is the CPU that this process has used.
func used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cutInto cuts the whole keyspace into n segments, halves first.
func (m *testMesh) cutInto(n int) {
	m.t.Helper()
	admin := m.admin(0)
	for step := 1 << 20; step > 0; step /= 2 {
		var wait sync.WaitGroup
		slots := make(chan struct{}, 8)
		for i := step; i < n; i += 2 * step {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				for try := range 50 {
					_, err := admin.Split(m.t.Context(), &meshpb.SplitRequest{Boundary: fmt.Appendf(nil, "k/%08d", i), Operator: "bench"})
					if err == nil {
						return
					}
					<-time.After(time.Duration(try) * 10 * time.Millisecond)
				}
				m.t.Errorf("segment %d was not cut", i)
			})
		}
		wait.Wait()
	}
}

// atRest reports whether all nodes have so many segments and all of these sleep.
func (m *testMesh) atRest(segments int) bool {
	for i := range m.nodes {
		list := m.segments(i)
		if len(list) != segments {
			return false
		}
		for _, s := range list {
			if !s.GetAsleep() {
				return false
			}
		}
	}
	return true
}
