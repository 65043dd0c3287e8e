package recruit

import (
	"fmt"
	"time"
)

// Policy is what the segment's scope asks for.
type Policy struct {
	Anchors      int           // voters wanted: 1, 3, 5 or 7
	Zones        int           // at least so many different zones; 0: as many as there are
	ReplaceAfter time.Duration // how long a voter must be dead to be replaced
}

// DefaultPolicy is the root scope's: three anchors, replaced after five minutes,
// which is longer than a reboot and shorter than a second failure is likely.
func DefaultPolicy() Policy {
	return Policy{Anchors: 3, ReplaceAfter: 5 * time.Minute}
}

// Validate reports the first thing that makes no sense.
func (p Policy) Validate() error {
	switch p.Anchors {
	case 1, 3, 5, 7:
	default:
		return fmt.Errorf("recruit: policy asks for %d anchors, want 1, 3, 5 or 7", p.Anchors)
	}
	if p.ReplaceAfter < minReplaceAfter {
		return fmt.Errorf("recruit: policy replaces after %v, want at least %v", p.ReplaceAfter, minReplaceAfter)
	}
	return nil
}

// minReplaceAfter keeps a slow election from looking like a death.
const minReplaceAfter = 10 * time.Second

// Config holds what is the same for every segment of a node.
type Config struct {
	// ContactWithin is how recent a replica's last answer must be for it to count
	// as in contact: a few election timeouts.
	ContactWithin time.Duration
	// CatchUpEntries is how many committed entries a learner may lack to be given
	// a vote: what a follower catches up with in well under an election timeout.
	CatchUpEntries uint64
	// SettleAfter is how long a node must have been alive to be invited; it keeps
	// nodes that flap, and meshes that just started, from moving data.
	SettleAfter time.Duration
	// InviteTimeout is how long an invitation waits for its answer, and an
	// acceptance for its place.
	InviteTimeout time.Duration
	// RetryAfter is how long a node that declined or was silent is left alone.
	RetryAfter time.Duration
	// SurplusAfter is how long a learner that is not needed is kept: if the voter
	// it was to replace dies again, the copy is there.
	SurplusAfter time.Duration
}

// DefaultConfig fits groups with election timeouts around one second.
func DefaultConfig() Config {
	return Config{
		ContactWithin:  5 * time.Second,
		CatchUpEntries: 256,
		SettleAfter:    5 * time.Second,
		InviteTimeout:  20 * time.Second,
		RetryAfter:     time.Minute,
		SurplusAfter:   15 * time.Minute,
	}
}

// Validate reports the first field that makes no sense.
func (c Config) Validate() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"ContactWithin", c.ContactWithin}, {"InviteTimeout", c.InviteTimeout},
		{"RetryAfter", c.RetryAfter}, {"SurplusAfter", c.SurplusAfter},
	} {
		if f.value <= 0 {
			return fmt.Errorf("recruit: %s is %v, want more than 0", f.name, f.value)
		}
	}
	if c.SettleAfter < 0 {
		return fmt.Errorf("recruit: SettleAfter is %v, want 0 or more", c.SettleAfter)
	}
	return nil
}
