package sample

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Rate is how many operations one sample stands for, on average.
	Rate = 1 << rateBits
	// Keys is how many keys are kept between two drains.
	Keys = 256
	// KeyBytes is how much of a key is kept; what differs only behind it counts as
	// one key.
	KeyBytes = 128

	rateBits = 5
)

// Meter measures one segment.
type Meter struct {
	// Never reset: what is sampled must not repeat from window to window.
	writes, reads         atomic.Uint64
	writeBytes, readBytes atomic.Uint64

	begun   atomic.Uint64
	waiting atomic.Int64
	timed   atomic.Uint64 // since the last Latency
	nanos   atomic.Uint64

	mu   sync.Mutex
	past Totals // the counters at the last drain
	seen uint64 // samples offered since the last drain
	ever uint64 // samples offered
	kept int
	ring []kept
}

type kept struct {
	order uint64 // its place in the sequence of samples
	write bool
	size  uint8
	key   [KeyBytes]byte
}

// Sample is one sampled operation.
type Sample struct {
	Key   []byte
	Write bool
}

// Totals are the operations of a time.
type Totals struct {
	Writes, Reads         uint64
	WriteBytes, ReadBytes uint64
}

// Write counts a write of key with the given size.
func (m *Meter) Write(key []byte, bytes int) {
	m.writeBytes.Add(uint64(bytes))
	if n := m.writes.Add(1); chosen(n) {
		m.keep(key, true)
	}
}

// Read counts a read that began at key and returned the given size.
func (m *Meter) Read(key []byte, bytes int) {
	m.readBytes.Add(uint64(bytes))
	if n := m.reads.Add(1); chosen(n) {
		m.keep(key, false)
	}
}

// Begin counts a write that is on its way into the log, and says whether it is one of
// those to be timed. Each has its End.
func (m *Meter) Begin() (timed bool) {
	m.waiting.Add(1)
	return chosen(m.begun.Add(1))
}

// End counts a write that is over; took is how long it was on its way, 0 if it was not
// to be timed.
func (m *Meter) End(took time.Duration) {
	m.waiting.Add(-1)
	if took > 0 {
		m.nanos.Add(uint64(took))
		m.timed.Add(1)
	}
}

// Latency returns the mean of the times since it was asked last, 0 if there were none,
// and how many writes are on their way now. The first write of a calm time may not be
// timed: of few writes little is known.
func (m *Meter) Latency() (mean time.Duration, waiting uint64) {
	n, nanos := m.timed.Swap(0), m.nanos.Swap(0)
	if n > 0 {
		mean = time.Duration(nanos / n)
	}
	return mean, uint64(max(m.waiting.Load(), 0))
}

// Drain returns what was measured since the last drain, the samples in the order
// in which they were taken.
func (m *Meter) Drain() (Totals, []Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := Totals{
		Writes: m.writes.Load(), Reads: m.reads.Load(),
		WriteBytes: m.writeBytes.Load(), ReadBytes: m.readBytes.Load(),
	}
	t := Totals{
		Writes: now.Writes - m.past.Writes, Reads: now.Reads - m.past.Reads,
		WriteBytes: now.WriteBytes - m.past.WriteBytes, ReadBytes: now.ReadBytes - m.past.ReadBytes,
	}
	m.past = now
	out := m.samplesLocked()
	m.seen, m.kept = 0, 0
	if t.Writes+t.Reads == 0 {
		m.ring = nil // an idle segment holds no reservoir
	}
	return t, out
}

func (m *Meter) keep(key []byte, write bool) {
	if !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	if m.ring == nil {
		m.ring = make([]kept, Keys)
	}
	m.seen++
	m.ever++
	slot := m.kept
	if m.kept < Keys {
		m.kept++
	} else if slot = int(mix(m.ever) % m.seen); slot >= Keys {
		return
	}
	k := &m.ring[slot]
	k.order, k.write = m.seen, write
	k.size = uint8(copy(k.key[:], key))
}

// chosen reports whether the nth operation is sampled.
func chosen(n uint64) bool { return mix(n)>>(64-rateBits) == 0 }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// samplesLocked copies the reservoir out, in the order of sampling.
func (m *Meter) samplesLocked() []Sample {
	if m.kept == 0 {
		return nil
	}
	ring := m.ring[:m.kept]
	order := make([]int, len(ring))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ring[a].order, ring[b].order) })
	size := 0
	for i := range ring {
		size += int(ring[i].size)
	}
	bytes := make([]byte, 0, size)
	out := make([]Sample, len(ring))
	for i, slot := range order {
		k := &ring[slot]
		from := len(bytes)
		bytes = append(bytes, k.key[:k.size]...)
		out[i] = Sample{Key: bytes[from:len(bytes):len(bytes)], Write: k.write}
	}
	return out
}
