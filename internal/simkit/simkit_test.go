package simkit

import (
	"slices"
	"testing"
	"time"
)

func never() bool { return false }

func TestEventsRunInOrderOfTimeThenOfAsking(t *testing.T) {
	k := New(1)
	var got []int
	add := func(n int) func() { return func() { got = append(got, n) } }
	k.After(2*time.Second, add(4))
	k.After(time.Second, func() { got = append(got, 2); k.After(0, add(3)) })
	k.After(-time.Second, add(1))
	k.After(time.Hour, add(9))
	if !k.Run(3*time.Second, never) {
		t.Fatal("stopped")
	}
	if !slices.Equal(got, []int{1, 2, 3, 4}) || k.Now() != 3*time.Second || k.Pending() != 1 {
		t.Fatalf("got %v at %v, %d pending", got, k.Now(), k.Pending())
	}
	if k.Run(2*time.Hour, func() bool { return true }) || k.Now() != time.Hour {
		t.Fatalf("stop was not obeyed, time is %v", k.Now())
	}
}

// traffic is a little run whose hash depends on every draw.
func traffic(seed uint64) uint64 {
	k := New(seed)
	n := NewNetwork(k, LinkConfig{LatencyMin: time.Millisecond, LatencyMean: 5 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.2})
	n.Swizzle(3, 20*time.Millisecond)
	for i := range uint64(200) {
		k.After(time.Duration(i)*time.Millisecond, func() {
			n.Send(int(i%3), int(i+1)%3, func() { k.Note("arrived", int(i+1)%3, i, 0, 0, 0) })
		})
	}
	k.Run(time.Minute, never)
	return k.Trace.Sum()
}

func TestOneSeedIsOneRun(t *testing.T) {
	if traffic(7) != traffic(7) {
		t.Error("one seed gave two runs")
	}
	if traffic(7) == traffic(8) {
		t.Error("two seeds gave one run")
	}
}

func TestStreamsAreIndependent(t *testing.T) {
	a, b := New(1), New(1)
	a.Stream("x").Uint64()
	if a.Stream("y").Uint64() != b.Stream("y").Uint64() {
		t.Error("a draw in one stream shifts another")
	}
	if a.Stream("x").Uint64() == a.Stream("y").Uint64() {
		t.Error("streams are the same")
	}
}

func TestNetworkFaults(t *testing.T) {
	k := New(3)
	n := NewNetwork(k, LinkConfig{LatencyMin: time.Millisecond})
	var got []int
	send := func(v int) { n.Send(0, 1, func() { got = append(got, v) }) }
	send(1)
	n.Cut(0, 1)
	send(2) // lost, as is 1, which is under way
	k.Run(time.Second, never)
	n.Join(0, 1)
	n.Clog(0, 1)
	send(3)
	send(4)
	k.Run(2*time.Second, never)
	if len(got) != 0 || n.Open(0, 1) || !n.Open(1, 0) {
		t.Fatalf("cut and clogged link delivered %v", got)
	}
	n.Unclog(0, 1)
	k.Run(3*time.Second, never)
	if !slices.Equal(got, []int{3, 4}) {
		t.Fatalf("clogged packets arrived as %v", got)
	}
	n.cfg.Loss = 1
	send(5)
	n.cfg.Loss, n.cfg.Duplicate = 0, 1
	send(6)
	k.Run(4*time.Second, never)
	if !slices.Equal(got, []int{3, 4, 6, 6}) || n.Stats.Doubled != 1 || n.Stats.Lost != 3 {
		t.Fatalf("got %v, %+v", got, n.Stats)
	}
}

// A swizzle that was under way clogs nothing once the network is healed.
func TestHealEndsASwizzle(t *testing.T) {
	for at := range 10 {
		k := New(uint64(at))
		n := NewNetwork(k, LinkConfig{})
		n.Swizzle(4, time.Second)
		k.Run(time.Duration(at)*500*time.Millisecond, never)
		n.Heal(4)
		for range 20 {
			k.Run(k.Now()+500*time.Millisecond, never)
			for from := range 4 {
				for to := range 4 {
					if !n.Open(from, to) {
						t.Fatalf("healed at step %d, %d to %d is clogged at %v", at, from, to, k.Now())
					}
				}
			}
		}
	}
}

func TestLinksKeepOrderUnlessAskedOtherwise(t *testing.T) {
	for _, reorder := range []float64{0, 0.5} {
		k := New(5)
		n := NewNetwork(k, LinkConfig{LatencyMean: 10 * time.Millisecond, Reorder: reorder})
		var got []int
		for i := range 100 {
			n.Send(0, 1, func() { got = append(got, i) })
		}
		k.Run(time.Minute, never)
		if slices.IsSorted(got) != (reorder == 0) || len(got) != 100 {
			t.Errorf("reorder %v: %v", reorder, got)
		}
	}
}

func TestClockAndDisk(t *testing.T) {
	c := NewClock(time.Second, 0.1)
	if got := c.Read(10 * time.Second).Sub(c.Read(0)); got != 11*time.Second {
		t.Errorf("ten seconds took %v", got)
	}
	before := c.Read(0)
	c.Jump(-time.Minute)
	if got := c.Read(0).Sub(before); got != -time.Minute {
		t.Errorf("jumped by %v", got)
	}
	d := NewDisk(New(1).Stream("disk"), DiskConfig{SyncMin: time.Millisecond, Slow: 1, SlowBy: time.Second})
	slow := d.Sync() + d.Sync() + d.Sync()
	d.Heal()
	if slow < 4*time.Millisecond || d.Sync() != time.Millisecond {
		t.Errorf("slow spell took %v", slow)
	}
}

func TestTraceKeepsTheLast(t *testing.T) {
	k := New(1)
	for i := range uint64(traceKept + 10) {
		k.Note("n", 0, i, 0, 0, 0)
	}
	last := k.Trace.Last()
	if len(last) != traceKept || last[0].A != 10 || last[traceKept-1].A != traceKept+9 || k.Trace.Count() != traceKept+10 {
		t.Fatalf("%d kept, from %v to %v", len(last), last[0], last[len(last)-1])
	}
}
