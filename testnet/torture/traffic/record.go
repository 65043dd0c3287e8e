package traffic

import (
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// Ack is an acknowledged write.
type Ack struct {
	Node     int // that was asked; -1: any
	Call, At time.Duration
}

// Count is how many operations ended how.
type Count struct {
	OK      int `json:"ok"`
	Unknown int `json:"unknown"` // no answer, or one that says nothing
	Refused int `json:"refused"` // certainly without effect
}

// Log is what a run of traffic saw.
type Log struct {
	check.History
	Acks   []Ack
	Counts map[string]Count
	Errors map[string]int // what clients were told, by text; bounded
	// Strange are those of them that no client of etcd would try again after.
	Strange map[string]int
}

// errorsMax bounds the texts of errors that are kept.
const errorsMax = 50

// recorder collects a Log; safe for concurrent use.
type recorder struct {
	start time.Time
	mu    sync.Mutex
	log   Log
}

func newRecorder(start time.Time) *recorder {
	return &recorder{start: start, log: Log{Counts: map[string]Count{}, Errors: map[string]int{}, Strange: map[string]int{}}}
}

func (r *recorder) now() time.Duration { return time.Since(r.start) }

func (r *recorder) note(name string, outcome outcome, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.log.Counts[name]
	switch outcome {
	case answered:
		c.OK++
	case unknown:
		c.Unknown++
	case refused:
		c.Refused++
	}
	r.log.Counts[name] = c
	if err != nil {
		r.noteErrorLocked(r.log.Errors, err)
	}
	if outcome == unknown && !retryable(err) {
		r.noteErrorLocked(r.log.Strange, err)
	}
}

func (r *recorder) noteErrorLocked(in map[string]int, err error) {
	text := err.Error()
	if _, known := in[text]; known || len(in) < errorsMax {
		in[text]++
	} else {
		in["others"]++
	}
}

func (r *recorder) op(op check.Op) {
	r.mu.Lock()
	r.log.Ops = append(r.log.Ops, op)
	r.mu.Unlock()
}

func (r *recorder) ack(a Ack) {
	r.mu.Lock()
	r.log.Acks = append(r.log.Acks, a)
	r.mu.Unlock()
}

func (r *recorder) lease(l check.Lease) {
	r.mu.Lock()
	r.log.Leases = append(r.log.Leases, l)
	r.mu.Unlock()
}

func (r *recorder) watch(w check.Watch) {
	r.mu.Lock()
	r.log.Watches = append(r.log.Watches, w)
	r.mu.Unlock()
}

func (r *recorder) event(e check.Event) {
	r.mu.Lock()
	r.log.Events = append(r.log.Events, e)
	r.mu.Unlock()
}
