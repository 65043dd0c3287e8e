package lease

import (
	"time"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// Lease is what the segment's state says about one lease.
type Lease struct {
	ID        int64
	TTL       int64  // seconds, at least 1
	Remaining int64  // persisted remaining seconds; 0 is the whole TTL
	Epoch     uint64 // log index of the entry that granted it or last cleared the remaining time
}

// Event is one thing that happens to the core: Lead, Demote, Granted, Revoked,
// Checkpointed, Renew or Tick.
type Event interface{ event() }

// Lead: this node leads in Term, once per term, and has applied an entry of it. Leases is the
// whole table at that point of the log; later changes follow as events.
type Lead struct {
	Term   uint64
	Leases []Lease
}

// Demote: this node leads no longer.
type Demote struct{}

// Granted: a grant was applied.
type Granted struct{ Lease Lease }

// Revoked: a revoke or an expiry was applied.
type Revoked struct{ ID int64 }

// Checkpointed: a checkpoint or, with Remaining 0, a clear was applied.
type Checkpointed struct{ Lease Lease }

// Renew: keep-alives that arrived before this node last made sure that it leads.
type Renew struct{ Renewals []Renewal }

// Renewal is one keep-alive; Token comes back in its Answer.
type Renewal struct {
	ID    int64
	Token uint64
}

// Tick: time has passed. Needed at least every StepMax while leading.
type Tick struct{}

func (Lead) event()         {}
func (Demote) event()       {}
func (Granted) event()      {}
func (Revoked) event()      {}
func (Checkpointed) event() {}
func (Renew) event()        {}
func (Tick) event()         {}

// Verdict is the answer to a keep-alive.
type Verdict uint8

const (
	// Renewed: the lease has its whole TTL again.
	Renewed Verdict = iota + 1
	// NotFound: there is no such lease (any more).
	NotFound
	// NotLeader: this node cannot tell; the new leader can.
	NotLeader
	// Overloaded: too many renewals wait for the log.
	Overloaded
)

// String is the word used in logs and tests.
func (v Verdict) String() string {
	switch v {
	case Renewed:
		return "renewed"
	case NotFound:
		return "not-found"
	case NotLeader:
		return "not-leader"
	case Overloaded:
		return "overloaded"
	}
	return "unknown"
}

// Answer ends one Renewal.
type Answer struct {
	Renewal
	Verdict Verdict
	TTL     int64 // seconds, if renewed
}

// Effects is what the caller does after a step. The slices are the caller's.
type Effects struct {
	Answers    []Answer
	Expire     []codec.LeaseExpiry     // propose each
	Checkpoint []codec.LeaseCheckpoint // propose, in one command or several
	Clear      []codec.LeaseCheckpoint // propose; renewals wait for them
	// Next is the time until a Tick would do something; 0 if nothing is due ever.
	Next time.Duration
}
