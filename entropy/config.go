package entropy

import (
	"fmt"
	"time"
)

// Thresholds is a pressure, or a fill, of 1000, per segment; the scope's policy
// sets them.
type Thresholds struct {
	WritesPerSec uint64
	ReadsPerSec  uint64
	BytesPerSec  uint64        // written and read
	Commit       time.Duration // commit latency
	Queue        uint64        // requests waiting to be proposed
	Size         uint64        // bytes kept; 0: never cut for its size
	Keys         uint64        // keys kept; 0: never cut for their number
}

// Config is how a segment is judged.
type Config struct {
	Thresholds Thresholds
	Memory     time.Duration // time constant of the decay: shorter bursts are smoothed away
	// Spread is the least spread, in thousandths, at which a split helps.
	Spread uint64
	// Samples is how many sampled operations, decayed, say where the load falls.
	Samples uint64
	// Low is the pressure, in thousandths, up to which a segment is dormant: two of
	// them together stay clear of 1000 by a factor of two.
	Low uint64
	// Shed is the pressure, in thousandths, from which on a segment that no split
	// helps should refuse a part of its load.
	Shed       uint64
	SplitAfter time.Duration // pressure must have been high for so long
	SleepAfter time.Duration // without any operation
	MergeAfter time.Duration // pressure must have been low for so long
	MinAge     time.Duration // after a structural change, before the next
}

// DefaultConfig fits a segment that one group of ordinary nodes carries with ease.
// It is more than an etcd is asked for as a rule, and the size is the most that etcd
// suggests: a scope that fits into an etcd stays whole, and its revisions dense.
func DefaultConfig() Config {
	return Config{
		Thresholds: Thresholds{
			WritesPerSec: 10_000,
			ReadsPerSec:  50_000,
			BytesPerSec:  128 << 20,
			Commit:       100 * time.Millisecond,
			Queue:        2_000,
			Size:         8 << 30,
			Keys:         10_000_000,
		},
		Memory:     20 * time.Second,
		Spread:     500,
		Samples:    64,
		Low:        250,
		Shed:       2000,
		SplitAfter: 30 * time.Second,
		SleepAfter: 10 * time.Minute,
		MergeAfter: 30 * time.Minute,
		MinAge:     2 * time.Minute,
	}
}

// Validate reports the first field that makes no sense.
func (c Config) Validate() error {
	t := c.Thresholds
	switch {
	case t.WritesPerSec == 0 || t.ReadsPerSec == 0 || t.BytesPerSec == 0 || t.Commit < time.Microsecond || t.Queue == 0:
		return fmt.Errorf("entropy: a threshold of %+v is zero", t)
	case c.Memory <= 0:
		return fmt.Errorf("entropy: Memory is %v, want more than 0", c.Memory)
	case c.Spread > 1000:
		return fmt.Errorf("entropy: Spread is %d, want at most 1000", c.Spread)
	case c.Samples == 0:
		return fmt.Errorf("entropy: Samples is 0, want at least 1")
	case c.Low > 250:
		return fmt.Errorf("entropy: Low is %d, want at most 250: two merged segments must stay below half of the split threshold", c.Low)
	case c.Shed < 1000:
		return fmt.Errorf("entropy: Shed is %d, want at least 1000", c.Shed)
	case c.SplitAfter <= 0 || c.SleepAfter <= 0 || c.MergeAfter < c.SleepAfter || c.MinAge <= 0:
		return fmt.Errorf("entropy: want SplitAfter, SleepAfter and MinAge above 0 and MergeAfter not below SleepAfter")
	}
	return nil
}
