package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// splitting is a rough mesh whose one scope is split often.
func splitting(seed uint64) plan.Config {
	c := rough(seed)
	c.Mesh.Groups, c.Mesh.SplitsMax, c.Mesh.Window, c.Faults.Split = 1, 6, 20, 15*time.Second
	c.Load.Keys, c.Load.Scan, c.Load.Start = 12, 4, time.Second
	return c
}

// TestSplitMeetsFaults runs splits through one schedule each: what must hold is in
// every run, what must have happened is said here.
func TestSplitMeetsFaults(t *testing.T) {
	for _, s := range []scenario{
		{"trap1_16_leaders_change", func(c *plan.Config) { c.Faults.Transfer, c.Faults.Partition = 2*time.Second, 20*time.Second },
			func(s witness.Stats) bool { return s.Splits > 3 && s.Elections > 30 && s.Wide > 50 }},
		{"trap1_16_nodes_are_down_and_replaced", func(c *plan.Config) {
			c.Faults.Crash, c.Faults.Down, c.Mesh.ReplaceAfter = 8*time.Second, 15*time.Second, 3*time.Second
		}, func(s witness.Stats) bool { return s.Splits > 3 && s.ConfChanges > 10 && s.Crashes > 5 }},
		{"node_slept_through_several_splits", func(c *plan.Config) {
			c.Mesh.KeepEntries, c.Faults.Split, c.Faults.Crash, c.Faults.Down, c.Mesh.ReplaceAfter = 0, 5*time.Second, 40*time.Second, 60*time.Second, time.Hour
		}, func(s witness.Stats) bool { return s.Splits > 3 && s.Snapshots > 3 }},
		{"ce5a_power_cuts", func(c *plan.Config) {
			c.Faults.PowerCut, c.Faults.Down, c.Faults.Split = 3*time.Second, time.Second, 5*time.Second
		},
			func(s witness.Stats) bool { return s.Splits > 3 && s.Crashes > 20 }},
		{"ce4_22_windows_and_homes", func(c *plan.Config) {
			c.Mesh.Window, c.Faults.Transfer, c.Link.LatencyMean, c.Mesh.InflightBatches = 2, time.Second, 10*time.Millisecond, 4
		}, func(s witness.Stats) bool { return s.Splits > 3 && s.Stamped > 200 && s.Elections > 50 }},
		{"ce13_sleeping_segments", func(c *plan.Config) {
			c.Mesh.SleepTicks, c.Load.Clients, c.Load.Think, c.Faults.Crash = 5, 1, 2*time.Second, 30*time.Second
		}, func(s witness.Stats) bool { return s.Splits > 3 && s.Slept > 50 }},
		{"all_nodes_at_once", func(c *plan.Config) {
			c.Faults.Blackout, c.Faults.Down, c.Faults.Split = 8*time.Second, time.Second, 5*time.Second
		},
			func(s witness.Stats) bool { return s.Splits > 3 && s.Crashes > 20 }},
	} {
		s.run(t, 3, splitting)
	}
}

// TestCounterexample5a cuts the power at every disk operation between a split's apply,
// the store's commit of it and the child's first log records, on one anchor after the
// other. A child's log never exists without its parent's split on disk, and nothing
// acknowledged is lost.
func TestCounterexample5a(t *testing.T) {
	for _, act := range []string{"split", "birth"} {
		t.Run(act, func(t *testing.T) {
			const steps = 12
			cuts := 0
			for step := range steps {
				cfg := splitting(uint64(step))
				cfg.Length, cfg.Faults.Split, cfg.Faults.Down = time.Minute, 5*time.Second, 2*time.Second
				cfg.Load.Clients, cfg.Load.Watchers = 2, 1
				cut := 0
				_, err := run(cfg, map[string]func(*node.Process){act: func(p *node.Process) {
					if cut < 6 && !p.Mesh.Healed {
						cut++
						p.Fuse = step
						p.Mesh.Later(2*time.Second, p.Defuse)
					}
				}})
				if err != nil {
					t.Fatalf("cut at step %d: %v", step, err)
				}
				cuts += cut
			}
			if cuts < 3*steps {
				t.Errorf("%d cuts in %d runs", cuts, steps)
			}
		})
	}
}

// TestPlantedSplitFaultsAreFound is TestPlantedFaultsAreFound for splits.
func TestPlantedSplitFaultsAreFound(t *testing.T) {
	for plant, c := range map[plan.Plant]struct {
		with func(*plan.Config)
		want []error
	}{
		plan.PlantEarlyChild: {func(c *plan.Config) {
			c.Faults.Split, c.Faults.PowerCut, c.Faults.Crash, c.Faults.Down, c.Mesh.CommitEvery = 5*time.Second, 3*time.Second, 3*time.Second, time.Second, time.Minute
		}, []error{node.ErrIncomplete}},
		plan.PlantNoBarrier: {func(c *plan.Config) {
			c.Load.Clients, c.Load.Think, c.Link.LatencyMean = 8, 50*time.Millisecond, 10*time.Millisecond
		}, []error{check.ErrRead, check.ErrRealTime}},
		plan.PlantNoRound: {func(c *plan.Config) {
			c.Faults.Partition, c.Faults.Pause, c.Mesh.ElectionTicks = 5*time.Second, 5*time.Second, 5
		}, []error{check.ErrRead, check.ErrRealTime, check.ErrEvents, check.ErrDiverged, check.ErrNotLinearizable}},
		plan.PlantDense:       {func(*plan.Config) {}, []error{check.ErrRead, check.ErrRealTime, check.ErrAnswer}},
		plan.PlantDenseExpiry: {func(c *plan.Config) { c.Load.Grant, c.Load.TTLMax, c.Load.Get = 8, 2, 12 }, []error{check.ErrRead, check.ErrRealTime, check.ErrAnswer}},
		plan.PlantLeadersOnly: {func(c *plan.Config) { c.Faults.Cut, c.Faults.Crash = 3*time.Second, 10*time.Second }, []error{ErrStuck}},
		plan.PlantRacingBirth: {func(c *plan.Config) {
			c.Faults.Split, c.Mesh.KeepEntries = 5*time.Second, 0
		}, []error{&errPanic{}}},
		plan.PlantWatchPastSplit: {func(c *plan.Config) { c.Load.Watchers = 8 }, []error{check.ErrReliable, check.ErrResumable}},
	} {
		t.Run(string(plant), func(t *testing.T) {
			var last error
			for seed := range uint64(30) {
				cfg := splitting(seed)
				c.with(&cfg)
				if seed == 0 {
					if _, err := Run(cfg); err != nil {
						t.Fatalf("without the plant: %v", err)
					}
				}
				cfg.Plant = plant
				_, err := Run(cfg)
				for _, want := range c.want {
					_, stops := want.(*errPanic)
					var stopped *errPanic
					if errors.Is(err, want) || stops && errors.As(err, &stopped) {
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

// merging is a splitting mesh whose segments merge again as often.
func merging(seed uint64) plan.Config {
	c := splitting(seed)
	c.Mesh.SplitsMax, c.Faults.Split, c.Faults.Merge = 40, 8*time.Second, time.Second
	return c
}

// TestMergeMeetsFaults runs merges through one schedule each, leaders that change and
// nodes that crash in every phase among them.
func TestMergeMeetsFaults(t *testing.T) {
	for _, s := range []scenario{
		{"leaders_change", func(c *plan.Config) { c.Faults.Transfer, c.Faults.Partition = time.Second, 20*time.Second },
			func(s witness.Stats) bool { return s.Merges > 3 && s.Attempts > s.Merges && s.Elections > 30 }},
		{"pauses", func(c *plan.Config) { c.Faults.Pause, c.Mesh.ElectionTicks = 4*time.Second, 5 },
			func(s witness.Stats) bool { return s.Merges > 3 && s.Attempts > s.Merges }},
		{"power_cuts", func(c *plan.Config) { c.Faults.PowerCut, c.Faults.Down = 3*time.Second, time.Second },
			func(s witness.Stats) bool { return s.Merges > 3 && s.Crashes > 20 }},
	} {
		s.run(t, 3, merging)
	}
}

// TestPlantedMergeFaultsAreFound is TestPlantedFaultsAreFound for merges.
func TestPlantedMergeFaultsAreFound(t *testing.T) {
	for plant, c := range map[plan.Plant]struct {
		with func(*plan.Config)
		want []error
	}{
		plan.PlantThawUnproved: {func(c *plan.Config) { c.Disk.SyncMean, c.Link.LatencyMean = 20*time.Millisecond, 10*time.Millisecond },
			[]error{&errPanic{}}},
		plan.PlantAbsorbUnconfirmed: {func(c *plan.Config) {
			c.Faults.Cut, c.Faults.Partition, c.Mesh.Stall = 3*time.Second, 10*time.Second, 0.02
		},
			[]error{&errPanic{}}},
	} {
		t.Run(string(plant), func(t *testing.T) {
			var last error
			for seed := range uint64(30) {
				cfg := merging(seed)
				c.with(&cfg)
				cfg.Plant = plant
				_, err := Run(cfg)
				for _, want := range c.want {
					_, stops := want.(*errPanic)
					var stopped *errPanic
					if errors.Is(err, want) || stops && errors.As(err, &stopped) {
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
