package fault

import (
	"fmt"
	"time"
)

// Kind is what is done.
type Kind string

// The kinds of faults.
const (
	Kill    Kind = "kill"    // kill -9, later started again
	Pause   Kind = "pause"   // the process gets no time
	Restart Kind = "restart" // an orderly end and a start
	Isolate Kind = "isolate" // the node has no network at all, clients included
	Cut     Kind = "cut"     // one node and the others do not hear each other
	OneWay  Kind = "one-way" // the others do not hear one node, or it does not hear them
	Delay   Kind = "delay"   // what one node gets and sends comes late
	Loss    Kind = "loss"    // a share of what one node gets is lost
	Full    Kind = "disk-full"
	Split   Kind = "split"    // two nodes and three do not hear each other
	Rolling Kind = "rolling"  // an orderly restart of one after the other
	KillAll Kind = "kill-all" // kill -9 of all at once
	Power   Kind = "power"    // kill -9, and started again as on a machine that was switched off meanwhile
)

// Kinds returns every kind, in a fixed order.
func Kinds() []Kind {
	return []Kind{Kill, Pause, Restart, Isolate, Cut, OneWay, Delay, Loss, Full, Split, Rolling, KillAll, Power}
}

// Single reports whether at most one node is harmed at any time, so that writes
// must go on.
func (k Kind) Single() bool { return k != KillAll && k != Split }

// Whom says which node a fault is meant for; roles are looked up when it begins.
type Whom string

// Roles of victims.
const (
	Anyone Whom = "any"
	Leader Whom = "leader"
)

// Fault is one thing that is done.
type Fault struct {
	N    int           `json:"n"` // from 1
	Kind Kind          `json:"kind"`
	Whom Whom          `json:"whom"`
	Node int           `json:"node"` // the victim if Whom is Anyone; else who if no leader is known
	For  time.Duration `json:"for"`  // from its begin to its end
	Rest time.Duration `json:"rest"` // after everything has recovered
	// Inbound is the direction of a one-way cut: what the victim gets, else what
	// it sends.
	Inbound bool          `json:"inbound,omitempty"`
	Late    time.Duration `json:"late,omitempty"`    // of a delay
	Percent int           `json:"percent,omitempty"` // of a loss
}

func (f Fault) String() string {
	s := fmt.Sprintf("#%d %s", f.N, f.Kind)
	switch {
	case f.Kind == Rolling || f.Kind == KillAll:
	case f.Whom == Leader:
		s += " of the leader"
	default:
		s += fmt.Sprintf(" of n%d", f.Node+1)
	}
	switch f.Kind {
	case OneWay:
		s += map[bool]string{true: " inbound", false: " outbound"}[f.Inbound]
	case Delay:
		s += fmt.Sprintf(" by %v", f.Late)
	case Loss:
		s += fmt.Sprintf(" of %d %%", f.Percent)
	}
	return fmt.Sprintf("%s for %v", s, f.For.Round(time.Millisecond))
}
