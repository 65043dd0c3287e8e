package lease

import (
	"fmt"
	"time"
)

// Config bounds the core.
type Config struct {
	// Extend is added to every lease by a new leader: one election timeout, the
	// time in which nobody could renew.
	Extend time.Duration
	// CheckpointInterval is the time after which the remaining time of a lease
	// that was not renewed is persisted; shorter leases are never checkpointed.
	CheckpointInterval time.Duration
	// RetryInterval is the time after which a proposal that had no effect is made
	// again.
	RetryInterval time.Duration
	// StepMax is the longest time believed to pass between two steps. It must be
	// well above the interval of the caller's ticks, which keep time going.
	StepMax time.Duration
	// ExpireRate is how many leases may fall due in one second after an election.
	ExpireRate int
	// ExpireMax is how many expiries one step proposes; the rest waits for the
	// next tick.
	ExpireMax int
	// CheckpointMax is how many checkpoints one step proposes; the rest waits for
	// the next tick.
	CheckpointMax int
	// WaitingMax is how many renewals wait for the log; one more is answered
	// Overloaded.
	WaitingMax int
}

// DefaultConfig returns etcd's rates and intervals, for ticks every 500 ms.
func DefaultConfig() Config {
	return Config{
		Extend:             time.Second,
		CheckpointInterval: 5 * time.Minute,
		RetryInterval:      3 * time.Second,
		StepMax:            2 * time.Second,
		ExpireRate:         750,
		ExpireMax:          500,
		CheckpointMax:      1000,
		WaitingMax:         10000,
	}
}

// Validate says which field is out of range.
func (c Config) Validate() error {
	switch {
	case c.Extend < 0:
		return fmt.Errorf("lease: Extend is %v, want at least 0", c.Extend)
	case c.CheckpointInterval < time.Second:
		return fmt.Errorf("lease: CheckpointInterval is %v, want at least 1s", c.CheckpointInterval)
	case c.RetryInterval <= 0:
		return fmt.Errorf("lease: RetryInterval is %v, want more than 0", c.RetryInterval)
	case c.StepMax <= 0:
		return fmt.Errorf("lease: StepMax is %v, want more than 0", c.StepMax)
	case c.ExpireRate < 1 || c.ExpireMax < 1 || c.CheckpointMax < 1 || c.WaitingMax < 1:
		return fmt.Errorf("lease: ExpireRate, ExpireMax, CheckpointMax and WaitingMax must be at least 1")
	}
	return nil
}
