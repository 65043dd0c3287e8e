package traffic

import (
	"errors"
	"fmt"
	"time"
)

// Config says how much traffic there is.
type Config struct {
	Endpoints []string // one per node
	Names     []string // of the nodes
	Prefix    string   // of every key
	Seed      uint64
	Rate      float64       // operations per second and worker
	Timeout   time.Duration // of a request; its outcome is unknown afterwards
	Epoch     time.Duration // age at which groups of keys are left behind
	Surge     float64       // writes per second at the beginning of each epoch, to many keys; 0: none
	Probe     time.Duration // between two probes of a node
	// Lean: two workers, one holder of leases and two watches in all, no probes, and nobody compacts.
	Lean bool
	// Bad is the beginning of values that a rule forbids, if there is one: they are tried now and then.
	Bad string
	// Hold gives the revision up to which others need no history any more; nil: nobody else does.
	Hold func() int64
}

// Default suits a machine of two cores that runs the mesh too.
func Default() Config {
	return Config{
		Rate:    8,
		Timeout: 2 * time.Second,
		Epoch:   15 * time.Second,
		Probe:   125 * time.Millisecond,
	}
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case len(c.Endpoints) == 0 || len(c.Endpoints) != len(c.Names):
		return fmt.Errorf("traffic: %d endpoints for %d names", len(c.Endpoints), len(c.Names))
	case c.Prefix == "" || c.Prefix[len(c.Prefix)-1] != '/':
		return errors.New("traffic: the prefix must end with '/'")
	case c.Rate <= 0 || c.Rate > 1000:
		return fmt.Errorf("traffic: rate is %v, must be above 0 and at most 1000", c.Rate)
	case c.Surge < 0 || c.Surge > 10_000:
		return fmt.Errorf("traffic: surges of %v writes per second, can be 0 to 10000", c.Surge)
	case c.Timeout <= 0 || c.Epoch <= 0 || c.Probe < 10*time.Millisecond:
		return errors.New("traffic: timeout and epoch must be positive, probes at least 10 ms apart")
	}
	return nil
}
