package weave

import (
	"errors"
	"fmt"
	"time"
)

// Limits bounds what a Weave holds and asks.
type Limits struct {
	// HeldBytes of events may wait for the other segments of their watch, counted
	// over the stream. Beyond it the flow that holds most is cut: what it brought
	// behind its watch's first waiting revision is dropped and read again from
	// history when its turn comes. So a weave holds at most this and one revision per
	// watch.
	HeldBytes int
	// ResponseBytes is the size from which on a response takes no further revision.
	// One revision is never cut, whatever its size.
	ResponseBytes int
	// Asks is how many questions to the home may be under way: with one, an event that
	// comes just behind a question waits for two.
	Asks int
	// Direct is how many segments are asked for a barrier at an event's own revision
	// without asking the home first: one exchange instead of two where a watch spans
	// few segments, none of which a question could leave asleep for long.
	Direct int
	// ProgressInterval is how often a watch that asked for it hears about progress
	// while no event comes.
	ProgressInterval time.Duration
}

// DefaultLimits fits a node with thousands of client streams, few of which wait.
func DefaultLimits() Limits {
	return Limits{
		HeldBytes:        4 << 20,
		ResponseBytes:    256 << 10,
		Asks:             2,
		Direct:           3,
		ProgressInterval: 10 * time.Minute,
	}
}

// Validate reports the first limit that makes no sense.
func (l Limits) Validate() error {
	for _, f := range []struct {
		name       string
		value, min int
	}{
		{"HeldBytes", l.HeldBytes, 1}, {"ResponseBytes", l.ResponseBytes, 1},
		{"Asks", l.Asks, 1}, {"Direct", l.Direct, 0},
	} {
		if f.value < f.min {
			return fmt.Errorf("weave: %s is %d, want at least %d", f.name, f.value, f.min)
		}
	}
	if l.ProgressInterval <= 0 {
		return fmt.Errorf("weave: ProgressInterval is %v, want more than 0", l.ProgressInterval)
	}
	return nil
}

var (
	// ErrNoLeader ends a require-leader watch of keys that have had no leader for too
	// long. The text is etcd's.
	ErrNoLeader = errors.New("etcdserver: no leader")
	// ErrPromise ends a watch of which a segment brought an event at or below a
	// revision that it had said to be complete.
	ErrPromise = errors.New("weave: a segment brought an event behind its own barrier")
)
