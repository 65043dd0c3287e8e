package view

import "time"

// Coalescer turns a storm of changes into few Views: a change is published when
// nothing more has changed for Quiescence, and at the latest Quantum after the
// first one. (The method is serf's, coalesce.go.)
type Coalescer struct {
	Quantum    time.Duration
	Quiescence time.Duration

	pending     bool
	first, last time.Time
}

// Note records that something changed.
func (c *Coalescer) Note(now time.Time) {
	if !c.pending {
		c.pending, c.first = true, now
	}
	c.last = now
}

// Due returns when to publish, and false if there is nothing to.
func (c *Coalescer) Due() (time.Time, bool) {
	if !c.pending {
		return time.Time{}, false
	}
	at := c.last.Add(c.Quiescence)
	if latest := c.first.Add(c.Quantum); latest.Before(at) {
		at = latest
	}
	return at, true
}

// Flush reports whether it is time to publish; if so the changes are taken as
// published.
func (c *Coalescer) Flush(now time.Time) bool {
	at, ok := c.Due()
	if !ok || now.Before(at) {
		return false
	}
	c.pending = false
	return true
}
