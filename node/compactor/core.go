package compactor

import "time"

// revisionInterval is how often compaction by revision looks, as in etcd.
const revisionInterval = 5 * time.Minute

// Core is the decision for one segment. The zero Core never compacts.
type Core struct {
	period    time.Duration
	revisions int64
	notes     []note // oldest first, one per step
	next      time.Time
	last      int64 // compacted to here
}

type note struct {
	at       time.Time
	revision int64
}

// NewCore keeps a period of history, or a number of revisions; at most one may
// be set.
func NewCore(period time.Duration, revisions int64) *Core {
	return &Core{period: period, revisions: revisions}
}

// Interval is the time between two calls of Step; zero if there is nothing to do
// ever.
func (c *Core) Interval() time.Duration {
	switch {
	case c.period > 0:
		return min(c.period, time.Hour) / 10
	case c.revisions > 0:
		return revisionInterval
	}
	return 0
}

// Step returns the revision to compact to, or zero.
func (c *Core) Step(now time.Time, current int64) int64 {
	if now.Before(c.next) {
		return 0
	}
	c.next = now.Add(c.Interval())
	to := current - c.revisions
	if c.period > 0 {
		to = c.aged(now, current)
	}
	if to <= c.last || to <= 0 {
		return 0
	}
	c.last = to
	return to
}

// aged notes the current revision and returns the newest one noted at least a
// period ago.
func (c *Core) aged(now time.Time, current int64) int64 {
	c.notes = append(c.notes, note{now, current})
	to := int64(0)
	for len(c.notes) > 0 && now.Sub(c.notes[0].at) >= c.period {
		to = c.notes[0].revision
		c.notes = c.notes[1:]
	}
	return to
}
