package watch

import (
	"errors"
	"fmt"
	"time"
)

// Limits bounds what a Hub holds. Sizes count encoded events plus a constant
// per event.
type Limits struct {
	// QueueBytes of published events may wait for the hub. Beyond it the queue is
	// emptied and the hub reads them from history. Some tens of milliseconds of a
	// fast writer.
	QueueBytes int
	// StepBytes is what one step takes from the queue or reads from history: the
	// longest time that a lagging watch makes live ones wait, and the reverse.
	StepBytes int
	// StreamBytes of events may wait in a stream. When they are reached, no
	// further revision is admitted and its watches lag. Events are shared, so a
	// thousand full streams of one prefix hold them once.
	StreamBytes int
	// ResponseBytes is the size from which on a Response takes no further
	// revision. One revision is never cut, whatever its size.
	ResponseBytes int
	// ScanWatches is how many lagging watches share one scan.
	ScanWatches int
	// StreamControls is how many unread Created responses make Create wait: a
	// client that creates watches without reading is pushed back.
	StreamControls int
	// ProgressInterval is how often a watch that asked for it hears about progress
	// while no event comes; etcd's default is ten minutes, Kubernetes sets 5 s.
	ProgressInterval time.Duration
}

// DefaultLimits fits a node with many segments.
func DefaultLimits() Limits {
	return Limits{
		QueueBytes:       8 << 20,
		StepBytes:        512 << 10,
		StreamBytes:      1 << 20,
		ResponseBytes:    256 << 10,
		ScanWatches:      1024,
		StreamControls:   1024,
		ProgressInterval: 10 * time.Minute,
	}
}

// Validate reports the first limit that makes no sense.
func (l Limits) Validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"QueueBytes", l.QueueBytes}, {"StepBytes", l.StepBytes}, {"StreamBytes", l.StreamBytes},
		{"ResponseBytes", l.ResponseBytes}, {"ScanWatches", l.ScanWatches}, {"StreamControls", l.StreamControls},
	} {
		if f.value <= 0 {
			return fmt.Errorf("watch: %s is %d, want more than 0", f.name, f.value)
		}
	}
	if l.ProgressInterval < minProgressInterval {
		return fmt.Errorf("watch: ProgressInterval is %v, want at least %v", l.ProgressInterval, minProgressInterval)
	}
	return nil
}

// minProgressInterval is etcd's own floor.
const minProgressInterval = 100 * time.Millisecond

// The texts of the first two are etcd's and reach clients as cancel reasons.
var (
	// ErrEmptyRange: the range of a new watch holds no key.
	ErrEmptyRange = errors.New("mvcc: watcher range is empty")
	// ErrDuplicateID: the stream already has a watch with the ID asked for.
	ErrDuplicateID = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
	// ErrStartRevision: the start revision of a new watch is negative.
	ErrStartRevision = errors.New("watch: start revision is negative")
	// ErrStreamClosed: the stream was closed by its user.
	ErrStreamClosed = errors.New("watch: stream is closed")
	// ErrStopped: the hub was stopped without a reason of its own.
	ErrStopped = errors.New("watch: the segment's hub has stopped")
)
