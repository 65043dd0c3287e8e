package entropy

import (
	"time"

	"github.com/anchormesh/anchormesh/entropy/sample"
)

// Window is what was measured in a time.
type Window struct {
	Length  time.Duration
	Totals  sample.Totals
	Samples []sample.Sample
	Commit  time.Duration // commit latency of a typical write; 0: there was none
	Queue   uint64        // requests that waited at its end
	Size    uint64        // bytes kept, live and historical
	Keys    uint64        // keys kept
	// Marks are keys, ascending, that part what is kept into equal pieces, by size
	// or by number; a dozen will do. Only asked for by Decision.Seek.
	Marks [][]byte

	Degraded bool // an anchor is dead or lags: nothing optional may happen
	Changing bool // a change of range or anchors is under way: nothing else may begin
	Alone    bool // no other node could lead a part: no use in dividing load
}

// Numbers is what a decision rests on.
type Numbers struct {
	WritesPerSec, ReadsPerSec, BytesPerSec uint64 // decayed
	CommitMicros, Queue                    uint64 // decayed
	Size, Keys                             uint64 // now
	Pressing                               Cause  // which ratio the pressure is
	Pressure                               uint64 // thousandths
	Load                                   uint64 // thousandths; without latency and queue
	Fill                                   uint64 // thousandths; the larger of size and keys to their thresholds
	Peak                                   uint64 // highest pressure in MergeAfter
	Spread                                 uint64 // thousandths
	HotKey                                 uint64 // thousandths of the load on the busiest key
	Edge                                   uint64 // thousandths of the load on new keys in one gap between known ones
	Left                                   uint64 // thousandths left of the split key: of the load, or of what is kept
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

// scale leaves a share, in thousandths, of the load: the rest went elsewhere.
func (r *rates) scale(share uint64) {
	for _, x := range []*uint64{&r.writes, &r.reads, &r.bytes, &r.queue} {
		*x = *x / 1000 * share
	}
}

// numbers puts the rates in relation to the thresholds.
func (r *rates) numbers(t *Thresholds) Numbers {
	n := Numbers{
		WritesPerSec: r.writes / 1000, ReadsPerSec: r.reads / 1000, BytesPerSec: r.bytes / 1000,
		CommitMicros: r.commit / 1000, Queue: r.queue / 1000,
	}
	for _, x := range []struct {
		cause        Cause
		value, limit uint64
		load         bool
	}{
		{ByWrites, r.writes, t.WritesPerSec, true},
		{ByReads, r.reads, t.ReadsPerSec, true},
		{ByBytes, r.bytes, t.BytesPerSec, true},
		{ByLatency, r.commit, uint64(t.Commit / time.Microsecond), false},
		{ByQueue, r.queue, t.Queue, false},
	} {
		ratio := x.value / x.limit
		if ratio > n.Pressure {
			n.Pressure, n.Pressing = ratio, x.cause
		}
		if x.load {
			n.Load = max(n.Load, ratio)
		}
	}
	return n
}

// weigh adds what the segment keeps, and says which of both is the fuller.
func (n *Numbers) weigh(t *Thresholds, w *Window) Cause {
	n.Size, n.Keys = w.Size, w.Keys
	ratio := func(x, limit uint64) uint64 {
		if limit == 0 {
			return 0
		}
		return x/limit*1000 + x%limit*1000/limit
	}
	size, keys := ratio(w.Size, t.Size), ratio(w.Keys, t.Keys)
	n.Fill = max(size, keys)
	if keys > size {
		return ByKeys
	}
	return BySize
}

// peaks is the highest pressure in each part of a time; a part is 1/peakParts.
type peaks [peakParts + 1]struct {
	part int64
	max  uint64
}

const peakParts = 8

// observe takes a pressure and returns the highest of the last such time.
func (p *peaks) observe(now time.Time, length time.Duration, pressure uint64) (highest uint64) {
	part := now.UnixNano() / max(1, int64(length)/peakParts)
	slot := &p[uint64(part)%uint64(len(p))]
	if slot.part != part {
		slot.part, slot.max = part, 0
	}
	slot.max = max(slot.max, pressure)
	for i := range p {
		if age := part - p[i].part; age >= 0 && age <= peakParts {
			highest = max(highest, p[i].max)
		}
	}
	return highest
}
