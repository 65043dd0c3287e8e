package entropy

import (
	"time"

	"github.com/anchormesh/anchormesh/entropy/sample"
)

// Window is what was measured in a time.
type Window struct {
	Length   time.Duration
	Totals   sample.Totals
	Samples  []sample.Sample
	Commit   time.Duration // commit latency of a typical write; 0: there was none
	Queue    uint64        // requests that waited at its end
	Degraded bool          // an anchor is dead or lags: nothing optional may happen
}

// Numbers is what a decision rests on.
type Numbers struct {
	WritesPerSec, ReadsPerSec, BytesPerSec uint64 // decayed
	CommitMicros, Queue                    uint64 // decayed
	Pressure                               uint64 // thousandths
	Pressing                               string // which ratio the pressure is
	Load                                   uint64 // thousandths; without latency and queue
	Spread                                 uint64 // thousandths
	HotKey                                 uint64 // thousandths of the load on the busiest key
	Edge                                   uint64 // thousandths of the load on new keys in one gap between known ones
	Left                                   uint64 // thousandths of the load left of the split key
}

// rates are decayed averages in thousandths of a unit.
type rates struct {
	writes, reads, bytes, commit, queue uint64
}

// observe decays what was and adds the window: avg += (x - avg) * len/(len+memory),
// the exponential average for windows of any length, in integers.
func (r *rates) observe(memory time.Duration, w *Window) {
	length := max(w.Length, time.Millisecond)
	perSec := func(n uint64) uint64 { return n * 1000 * 1000 / uint64(length/time.Millisecond) }
	l, m := uint64(length/time.Millisecond), uint64(memory/time.Millisecond)
	mean := func(avg *uint64, x uint64) { *avg = (*avg*m + x*l) / (l + m) }
	mean(&r.writes, perSec(w.Totals.Writes))
	mean(&r.reads, perSec(w.Totals.Reads))
	mean(&r.bytes, perSec(w.Totals.WriteBytes+w.Totals.ReadBytes))
	if w.Commit > 0 || w.Totals.Writes == 0 {
		mean(&r.commit, uint64(w.Commit/time.Microsecond)*1000)
	}
	mean(&r.queue, w.Queue*1000)
}

// numbers puts the rates in relation to the thresholds.
func (r *rates) numbers(t *Thresholds) Numbers {
	n := Numbers{
		WritesPerSec: r.writes / 1000, ReadsPerSec: r.reads / 1000, BytesPerSec: r.bytes / 1000,
		CommitMicros: r.commit / 1000, Queue: r.queue / 1000,
	}
	for _, x := range []struct {
		name         string
		value, limit uint64
		load         bool
	}{
		{"writes", r.writes, t.WritesPerSec, true},
		{"reads", r.reads, t.ReadsPerSec, true},
		{"bytes", r.bytes, t.BytesPerSec, true},
		{"latency", r.commit, uint64(t.Commit / time.Microsecond), false},
		{"queue", r.queue, t.Queue, false},
	} {
		ratio := x.value / x.limit
		if ratio > n.Pressure {
			n.Pressure, n.Pressing = ratio, x.name
		}
		if x.load {
			n.Load = max(n.Load, ratio)
		}
	}
	return n
}
