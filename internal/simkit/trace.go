package simkit

import (
	"fmt"
	"time"
)

// traceKept is how many of the last notes are kept for a failure's report.
const traceKept = 400

// Note is one thing that happened. What A to D mean is the simulation's.
type Note struct {
	At         time.Duration
	What       string // a constant: it is hashed and printed, never built
	Where      int    // node, or -1
	A, B, C, D uint64
}

// String is the line of a failure's report.
func (n Note) String() string {
	return fmt.Sprintf("%12s node %2d %-14s %d %d %d %d", n.At.Round(time.Microsecond), n.Where, n.What, n.A, n.B, n.C, n.D)
}

// Trace is the hash of all notes and the last of them.
type Trace struct {
	hash  uint64
	count uint64
	ring  []Note
}

func newTrace() Trace { return Trace{hash: 14695981039346656037} }

// Note adds one thing that happened.
func (k *Kernel) Note(what string, where int, a, b, c, d uint64) {
	t := &k.Trace
	t.mix(uint64(k.now))
	for i := range len(what) {
		t.hash = (t.hash ^ uint64(what[i])) * 1099511628211
	}
	for _, v := range [...]uint64{uint64(where), a, b, c, d} {
		t.mix(v)
	}
	n := Note{At: k.now, What: what, Where: where, A: a, B: b, C: c, D: d}
	if len(t.ring) < traceKept {
		t.ring = append(t.ring, n)
	} else {
		t.ring[t.count%traceKept] = n
	}
	t.count++
}

// mix folds a value in, eight bytes at a time (the multiplier and shift of
// splitmix64, so that no bit is lost in the high half).
func (t *Trace) mix(v uint64) {
	t.hash ^= v
	t.hash *= 0xbf58476d1ce4e5b9
	t.hash ^= t.hash >> 29
}

// Sum is the hash of everything noted so far.
func (t *Trace) Sum() uint64 { return t.hash }

// Count is how many notes there were.
func (t *Trace) Count() uint64 { return t.count }

// Last returns the notes that are kept, oldest first.
func (t *Trace) Last() []Note {
	if t.count <= traceKept {
		return t.ring
	}
	at := t.count % traceKept
	return append(append([]Note(nil), t.ring[at:]...), t.ring[:at]...)
}
