package torture

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

// Config says what a run is.
type Config struct {
	Seed    uint64
	Length  time.Duration // of the traffic under faults
	Faults  int
	Kinds   []fault.Kind   // to choose from; empty: all that the target allows
	Traffic traffic.Config // endpoints, names, prefix and seed are filled in
	// OutageGoal is the longest outage of writes after a fault of a single node that
	// is accepted. 0: it is only reported.
	OutageGoal time.Duration
	Recovery   time.Duration // in which every node must serve again after a fault
	// Changes is how many splits, merges and moves must be done meanwhile; 0: none are
	// tried. They are tried four times as often as that needs, for many are refused.
	Changes int
	// Automatic is how many of them nodes must have done by themselves; 0: nothing is
	// done to provoke any. Operators try half as often then.
	Automatic int
	// Policies is how many changes of scopes must be in force meanwhile, with users in
	// scopes of several classes; 0: there are no scopes.
	Policies int
	Log      *slog.Logger
}

// Default returns a short run.
func Default() Config {
	return Config{
		Length:   2 * time.Minute,
		Faults:   8,
		Traffic:  traffic.Default(),
		Recovery: time.Minute,
		Log:      slog.New(slog.DiscardHandler),
	}
}

const (
	lengthMax  = 24 * time.Hour
	changesMax = 100_000
)

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Length <= 0 || c.Length > lengthMax:
		return fmt.Errorf("torture: length is %v, must be above 0 and at most %v", c.Length, lengthMax)
	case c.Faults < 0:
		return fmt.Errorf("torture: %d faults", c.Faults)
	case c.Recovery <= 0:
		return fmt.Errorf("torture: recovery is %v, must be positive", c.Recovery)
	case c.Changes < 0 || c.Changes > changesMax:
		return fmt.Errorf("torture: %d changes of structure, can be 0 to %d", c.Changes, changesMax)
	case c.Automatic < 0 || c.Automatic > c.Changes:
		return fmt.Errorf("torture: %d automatic changes of structure, can be 0 to the %d of all", c.Automatic, c.Changes)
	case c.Policies < 0 || c.Policies > changesMax:
		return fmt.Errorf("torture: %d changes of policies, can be 0 to %d", c.Policies, changesMax)
	case c.OutageGoal < 0:
		return fmt.Errorf("torture: outage goal is %v", c.OutageGoal)
	}
	return nil
}
