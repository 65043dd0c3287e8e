package sample

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestUnbiased: a workload that cycles through 32 keys, as many as Rate, is
// sampled at all of them alike; a reservoir that overflows keeps early and late.
func TestUnbiased(t *testing.T) {
	var m Meter
	count := map[string]int{}
	var keys [Rate][]byte
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%02d", i)
	}
	for range 100 {
		for i := range 20_000 {
			m.Write(keys[i%Rate], 10)
		}
		totals, samples := m.Drain()
		if totals != (Totals{Writes: 20_000, WriteBytes: 200_000}) {
			t.Fatalf("totals %+v", totals)
		}
		if len(samples) != Keys {
			t.Fatalf("%d samples of 20,000 operations, want a full reservoir of %d", len(samples), Keys)
		}
		for _, s := range samples {
			if !s.Write {
				t.Fatal("a write was sampled as a read")
			}
			count[string(s.Key)]++
		}
	}
	for k, n := range count {
		if n < 500 || n > 1200 {
			t.Errorf("%s was sampled %d times of about %d", k, n, 100*Keys/Rate)
		}
	}
	if len(count) != Rate {
		t.Errorf("%d keys were sampled, want %d", len(count), Rate)
	}
}

// TestReservoirOverTime: of a window that moves through its keys, the sample
// covers beginning and end, in order.
func TestReservoirOverTime(t *testing.T) {
	var m Meter
	const n = 200_000
	for i := range n {
		m.Read(fmt.Appendf(nil, "%08d", i), 0)
	}
	_, samples := m.Drain()
	early := 0
	for i, s := range samples {
		if i > 0 && string(s.Key) <= string(samples[i-1].Key) {
			t.Fatalf("sample %d is out of order", i)
		}
		if string(s.Key) < fmt.Sprintf("%08d", n/2) {
			early++
		}
	}
	if early < Keys/3 || early > Keys*2/3 {
		t.Errorf("%d of %d samples are from the first half", early, len(samples))
	}
}

// TestIdle: after an idle window the reservoir is given back.
func TestIdle(t *testing.T) {
	var m Meter
	for range 1000 {
		m.Write([]byte("a"), 1)
	}
	m.Drain()
	if totals, samples := m.Drain(); totals != (Totals{}) || samples != nil || m.ring != nil {
		t.Errorf("idle meter: %+v, %d samples, reservoir %v", totals, len(samples), m.ring != nil)
	}
}

// TestOperationsAllocateNothing: once the reservoir is there.
func TestOperationsAllocateNothing(t *testing.T) {
	var m Meter
	key := []byte("registry/pods/default/pod-0001")
	for range 10 * Rate {
		m.Write(key, 100)
	}
	if n := testing.AllocsPerRun(1000, func() { m.Write(key, 100); m.Read(key, 100) }); n != 0 {
		t.Errorf("%v allocations per write and read, want 0", n)
	}
}

// TestConcurrent is for -race; counters lose nothing.
func TestConcurrent(t *testing.T) {
	var m Meter
	var wg sync.WaitGroup
	var sum Totals
	for range 4 {
		wg.Go(func() {
			for range 10_000 {
				m.Write([]byte("a"), 2)
				m.Read([]byte("b"), 3)
			}
		})
	}
	add := func() {
		t, _ := m.Drain()
		sum.Writes += t.Writes
		sum.Reads += t.Reads
		sum.WriteBytes += t.WriteBytes
		sum.ReadBytes += t.ReadBytes
	}
	for range 100 {
		add()
	}
	wg.Wait()
	add()
	if want := (Totals{40_000, 40_000, 80_000, 120_000}); sum != want {
		t.Errorf("drained %+v, want %+v", sum, want)
	}
}

func BenchmarkWrite(b *testing.B) {
	var m Meter
	key := []byte("registry/pods/default/pod-0001")
	b.ReportAllocs()
	for b.Loop() {
		m.Write(key, 100)
	}
}

func BenchmarkReadParallel(b *testing.B) {
	var m Meter
	key := []byte("registry/pods/default/pod-0001")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Read(key, 100)
		}
	})
}

// Of the writes on their way some are timed; all are counted while they last.
func TestLatency(t *testing.T) {
	var m Meter
	timed := 0
	const n = 10_000
	for range n {
		if m.Begin() {
			timed++
		}
	}
	if _, waiting := m.Latency(); waiting != n || timed < n/Rate/2 || timed > 2*n/Rate {
		t.Fatalf("%d wait, %d are timed", waiting, timed)
	}
	for i := range n {
		took := time.Duration(0)
		if i < timed {
			took = time.Duration(1+i%2) * time.Millisecond
		}
		m.End(took)
	}
	mean, waiting := m.Latency()
	if waiting != 0 || mean < 1490*time.Microsecond || mean > 1510*time.Microsecond {
		t.Errorf("mean %v, %d wait", mean, waiting)
	}
	if mean, _ := m.Latency(); mean != 0 {
		t.Errorf("the same times again: %v", mean)
	}
}
