package simkit

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Kernel executes events in virtual time. It is for one goroutine.
type Kernel struct {
	seed   uint64
	now    time.Duration
	seq    uint64
	events events
	Trace  Trace
}

type event struct {
	at  time.Duration
	seq uint64
	run func()
}

// New returns a kernel at time zero.
func New(seed uint64) *Kernel { return &Kernel{seed: seed, Trace: newTrace()} }

// Seed returns the seed of the run.
func (k *Kernel) Seed() uint64 { return k.seed }

// Now returns the virtual time since the start.
func (k *Kernel) Now() time.Duration { return k.now }

// Stream returns the source of chance of one part of the simulation, the same for
// the same seed and name.
func (k *Kernel) Stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(k.seed, h.Sum64()))
}

// After runs f once d has passed. Events due at the same time run in the order in
// which they were asked for. A negative d is zero.
func (k *Kernel) After(d time.Duration, f func()) {
	k.seq++
	k.events.push(event{at: k.now + max(d, 0), seq: k.seq, run: f})
}

// Run executes events until none is left that is due at or before end, and moves
// the time there. It stops early, and reports false, once stop returns true.
func (k *Kernel) Run(end time.Duration, stop func() bool) bool {
	for len(k.events) > 0 && k.events[0].at <= end {
		e := k.events.pop()
		k.now = e.at
		e.run()
		if stop() {
			return false
		}
	}
	k.now = max(k.now, end)
	return true
}

// Pending is the number of events that wait.
func (k *Kernel) Pending() int { return len(k.events) }

// events is a heap by time, then sequence. It is written out because container/heap
// boxes what it is given, and a run makes millions.
type events []event

func (e events) less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}

func (e *events) push(one event) {
	*e = append(*e, one)
	h := *e
	for i := len(h) - 1; i > 0 && h.less(i, (i-1)/2); i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
}

func (e *events) pop() event {
	h := *e
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*e = h
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < last && h.less(child+1, child) {
			child++
		}
		if child >= last || !h.less(child, i) {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
