package merge

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

const (
	// FreezeMax is how long an attempt may take from the freeze to the last
	// confirmation.
	FreezeMax = time.Second
	// ReadyMax is how long it may take before: nothing is frozen yet.
	ReadyMax = 10 * time.Second
	// AskEvery is how often a frozen right asks.
	AskEvery = 250 * time.Millisecond
)

// Event is what a Driver takes in.
type Event interface{ event() }

// Events.
type (
	// Opened: Open is applied here, in the driver's own term.
	Opened struct{}
	// Ready: the node's replicas of both sides have applied what was committed when
	// the attempt was opened, and their descriptors are those of the pair.
	Ready struct{ Node anchormesh.NodeID }
	// Confirmed: the node's replica of the right has applied Freeze of this attempt.
	Confirmed struct {
		Node    anchormesh.NodeID
		Attempt Attempt
	}
	// Refused: the right refused the freeze, or a node is not alive or not equal.
	Refused struct{}
	// Ended: Absorb or Abort is applied.
	Ended struct{}
	// Tick: time has passed.
	Tick struct{}
)

func (Opened) event()    {}
func (Ready) event()     {}
func (Confirmed) event() {}
func (Refused) event()   {}
func (Ended) event()     {}
func (Tick) event()      {}

// Effect is what a Driver wants done.
type Effect uint8

// Effects, all of the driver's attempt and pair.
const (
	ProposeOpen Effect = iota + 1
	AskReady           // every node of the pair
	SendFreeze         // to the right's leader
	ProposeAbsorb
	ProposeAbort // again with each Tick, until Ended
)

type phase uint8

const (
	opening phase = iota + 1
	readying
	freezing
	absorbing
	aborting
	over
)

// Driver drives one attempt on the left's leader. It dies with the leadership.
type Driver struct {
	Attempt Attempt
	Pair    Pair
	phase   phase
	until   time.Duration
	heard   []anchormesh.NodeID // in this phase
}

// NewDriver returns the core of a new attempt and its first effect.
func NewDriver(now time.Duration, n Attempt, pair Pair) (*Driver, []Effect) {
	return &Driver{Attempt: n, Pair: pair, phase: opening, until: now + ReadyMax}, []Effect{ProposeOpen}
}

// Inherit returns the core for an attempt that a new leader finds open: what its
// predecessor knew of it is gone, so it is aborted.
func Inherit(l *Left) (*Driver, []Effect) {
	return &Driver{Attempt: l.Last, Pair: l.Pair, phase: aborting}, []Effect{ProposeAbort}
}

// Over reports whether nothing is left to do.
func (d *Driver) Over() bool { return d.phase == over }

// Step takes in one event.
func (d *Driver) Step(now time.Duration, e Event) []Effect {
	switch e := e.(type) {
	case Ended:
		d.phase = over
	case Opened:
		if d.phase == opening {
			d.phase = readying
			return []Effect{AskReady}
		}
	case Ready:
		if d.phase == readying && d.hear(e.Node) {
			d.phase, d.until, d.heard = freezing, now+FreezeMax, nil
			return []Effect{SendFreeze}
		}
	case Confirmed:
		if d.phase == freezing && e.Attempt == d.Attempt && d.hear(e.Node) {
			d.phase = absorbing
			return []Effect{ProposeAbsorb}
		}
	case Refused:
		return d.abort()
	case Tick:
		return d.tick(now)
	}
	return nil
}

// hear counts a node and says whether all were heard.
func (d *Driver) hear(node anchormesh.NodeID) bool {
	if slices.Contains(d.Pair.Right.Nodes, node) && !slices.Contains(d.heard, node) {
		d.heard = append(slices.Clone(d.heard), node)
	}
	return len(d.heard) == len(d.Pair.Right.Nodes)
}

// abort gives up. After ProposeAbsorb the log decides which of the two is first.
func (d *Driver) abort() []Effect {
	if d.phase == over {
		return nil
	}
	d.phase = aborting
	return []Effect{ProposeAbort}
}

func (d *Driver) tick(now time.Duration) []Effect {
	if d.phase == aborting || d.phase != over && now >= d.until {
		return d.abort()
	}
	return nil
}

// Asker asks, on the leader of a frozen right, what became of the attempt.
type Asker struct {
	attempt Attempt
	next    time.Duration
}

// NewAsker returns the core for a right that is frozen.
func NewAsker(r *Right) *Asker { return &Asker{attempt: r.By} }

// Tick says whether to ask now: the segment that holds the left range, found by key.
func (a *Asker) Tick(now time.Duration) bool {
	if now < a.next {
		return false
	}
	a.next = now + AskEvery
	return true
}

// Hear says whether to propose the thaw, with the proof that came along.
func (a *Asker) Hear(n Attempt, v Verdict) bool { return n == a.attempt && v == Aborted }
