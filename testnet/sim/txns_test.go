package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// spanning is a splitting mesh whose clients mostly ask for transactions, over segments
// that stay apart.
func spanning(seed uint64) plan.Config {
	c := splitting(seed)
	c.Length, c.Faults.Split, c.Mesh.SplitsMax = time.Minute, 3*time.Second, 5
	c.Load.Txn, c.Load.Put, c.Load.Get, c.Load.Scan, c.Load.Grant, c.Load.Keys = 8, 3, 2, 2, 0, 8
	c.Load.Clients, c.Load.Watchers, c.Load.Think = 5, 2, 100*time.Millisecond
	return c
}

// TestTransactionsMeetFaults runs transactions over several segments through one schedule
// each: coordinators and leaders come and go, and so do the segments.
func TestTransactionsMeetFaults(t *testing.T) {
	for _, s := range []scenario{
		{"coordinators_and_leaders_crash", func(c *plan.Config) {
			c.Faults.Crash, c.Faults.PowerCut, c.Faults.Down = 3*time.Second, 5*time.Second, time.Second
		},
			func(s witness.Stats) bool { return s.Spanning > 30 && s.Recovered > 3 }},
		{"leaders_change", func(c *plan.Config) {
			c.Faults.Transfer, c.Faults.Partition, c.Faults.Pause = time.Second, 20*time.Second, 10*time.Second
		},
			func(s witness.Stats) bool { return s.Spanning > 50 && s.Elections > 20 }},
		{"segments_merge", func(c *plan.Config) {
			c.Faults.Merge, c.Mesh.SplitsMax, c.Faults.Transfer = time.Second, 40, 5*time.Second
		},
			func(s witness.Stats) bool { return s.Spanning > 50 && s.Merges > 2 }},
	} {
		s.run(t, 3, spanning)
	}
}

// TestPlantedTransactionFaultsAreFound is TestPlantedFaultsAreFound for transactions over
// several segments.
func TestPlantedTransactionFaultsAreFound(t *testing.T) {
	anything := []error{check.ErrRealTime, check.ErrAnswer, check.ErrLost, check.ErrRead, check.ErrNotLinearizable}
	for plant, with := range map[plan.Plant]func(*plan.Config){
		plan.PlantEarlyAnswer: func(c *plan.Config) { c.Faults.Transfer = time.Second },
		plan.PlantNoGate:      func(c *plan.Config) { c.Load.Keys = 4 },
		plan.PlantForgetfulLeader: func(c *plan.Config) {
			c.Faults.Transfer, c.Load.Scan, c.Load.Keys, c.Load.Clients = 200*time.Millisecond, 8, 4, 10
		},
	} {
		t.Run(string(plant), func(t *testing.T) {
			var last error
			for seed := range uint64(20) {
				cfg := spanning(seed)
				cfg.Length, cfg.Plant = 25*time.Second, plant
				with(&cfg)
				_, err := Run(cfg)
				for _, want := range anything {
					if errors.Is(err, want) {
						return
					}
				}
				if err != nil {
					last = err
				}
			}
			t.Errorf("no checker saw it; last error %v", last)
		})
	}
}
