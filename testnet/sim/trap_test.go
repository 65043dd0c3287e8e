package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// scenario is a run made for one schedule: what is set, and what must have happened
// for the run to show anything.
type scenario struct {
	name  string
	with  func(*plan.Config)
	shown func(witness.Stats) bool
}

// run tries as many seeds until one shows the schedule: what must hold is in every run.
func (s scenario) run(t *testing.T, seeds uint64, base func(seed uint64) plan.Config) {
	t.Run(s.name, func(t *testing.T) {
		var report *Report
		for seed := range seeds {
			cfg := base(seed)
			s.with(&cfg)
			var err error
			if report, err = Run(cfg); err != nil {
				t.Fatal(err)
			}
			if s.shown(report.Stats) {
				return
			}
		}
		t.Errorf("the schedule did not come about: %+v", report.Stats)
	})
}

// scenarios are named after reference/traps.md (4.3, 4.4) and
// reference/counterexamples.md; docs/testing.md has the table.
var scenarios = []scenario{
	{"trap29_30_asymmetric_partitions", func(c *plan.Config) { c.Faults.Cut, c.Faults.Partition = 3*time.Second, 20*time.Second },
		func(s witness.Stats) bool { return s.Elections > 4 }},
	{"trap31_leader_cut_from_clients_and_peers", func(c *plan.Config) { c.Faults.Swizzle = 15 * time.Second },
		func(s witness.Stats) bool { return s.Unknown > 0 }},
	{"trap32_reads_after_pauses", func(c *plan.Config) { c.Faults.Pause, c.Load.Get, c.Mesh.ElectionTicks = 4*time.Second, 12, 5 },
		func(s witness.Stats) bool { return s.Elections > 4 && s.Reads > 500 }},
	{"trap33_read_rounds_over_leader_changes", func(c *plan.Config) { c.Faults.Transfer, c.Load.Get, c.Link.Reorder = time.Second, 12, 0.3 },
		func(s witness.Stats) bool { return s.Elections > 50 && s.Reads > 500 }},
	{"trap34_ce6cd_leases_over_pauses_and_leaders", func(c *plan.Config) {
		c.Faults.Pause, c.Faults.Transfer, c.Faults.Partition = 5*time.Second, 3*time.Second, 20*time.Second
		c.Load.Grant, c.Load.TTLMax, c.Mesh.Lease.CheckpointInterval, c.Mesh.ElectionTicks = 6, 6, time.Second, 5
	}, func(s witness.Stats) bool { return s.Renewed > 50 && s.Expired > 20 && s.Elections > 20 }},
	{"trap35_36_37_replacing_the_dead", func(c *plan.Config) {
		c.Faults.Crash, c.Faults.Down, c.Faults.WrongDeath, c.Mesh.ReplaceAfter = 10*time.Second, 20*time.Second, 10*time.Second, 3*time.Second
	}, func(s witness.Stats) bool { return s.ConfChanges > 10 && s.Retired > 0 }},
	{"trap35_replicas_move_by_order", func(c *plan.Config) {
		c.Faults.Move, c.Faults.Transfer, c.Faults.Kill, c.Faults.Down = 3*time.Second, 5*time.Second, 5*time.Second, time.Second
	},
		func(s witness.Stats) bool { return s.Moves > 10 && s.Retired > 3 }},
	{"trap39_lost_disks", func(c *plan.Config) {
		c.Faults.Wipe, c.Mesh.ReplaceAfter, c.Length = 20*time.Second, 3*time.Second, 6*time.Minute
	},
		func(s witness.Stats) bool { return s.Wiped > 1 && s.Snapshots > 4 }},
	{"trap40_changed_bits", func(c *plan.Config) {
		c.Faults.Rot, c.Mesh.ReplaceAfter, c.Length, c.Mesh.LogFileBytes = 3*time.Second, 3*time.Second, 6*time.Minute, 64<<10
	}, func(s witness.Stats) bool { return s.Rotten > 1 }},
	{"trap39_all_nodes_at_once", func(c *plan.Config) { c.Faults.Blackout, c.Faults.Down = 10*time.Second, time.Second },
		func(s witness.Stats) bool { return s.Crashes > 20 }},
	{"trap41_many_groups", func(c *plan.Config) { c.Mesh.Groups, c.Load.Clients, c.Faults.Crash = 12, 8, 15*time.Second },
		func(s witness.Stats) bool { return s.Acked > 500 }},
	{"trap42_watches_resume_while_history_is_compacted", func(c *plan.Config) {
		c.Load.Watchers, c.Load.Put, c.Load.Delete, c.Mesh.WatchBytes, c.Faults.Crash = 8, 10, 6, 300, 10*time.Second
	}, func(s witness.Stats) bool { return s.WatchEvents > 2000 }},
	{"trap45_ce5_power_cuts_and_full_disks", func(c *plan.Config) {
		c.Faults.PowerCut, c.Faults.DiskFull, c.Faults.Down, c.Mesh.LogFileBytes = 3*time.Second, 15*time.Second, time.Second, 64<<10
	}, func(s witness.Stats) bool { return s.Crashes > 30 }},
	{"ce4d_entries_of_former_leaders", func(c *plan.Config) {
		c.Faults.Transfer, c.Mesh.InflightBatches, c.Mesh.BatchRequests, c.Link.LatencyMean = time.Second, 4, 1, 20*time.Millisecond
	}, func(s witness.Stats) bool { return s.Elections > 20 && s.Acked > 200 }},
	{"ce5d_snapshots_all_the_time", func(c *plan.Config) {
		c.Mesh.KeepEntries, c.Faults.PowerCut, c.Faults.Crash, c.Faults.Down = 0, 5*time.Second, 10*time.Second, time.Second
	}, func(s witness.Stats) bool { return s.Snapshots > 10 }},
}

func TestTraps(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			shown := false
			for seed := range uint64(2) {
				cfg := rough(seed)
				s.with(&cfg)
				report, err := Run(cfg)
				if err != nil {
					t.Fatal(err)
				}
				shown = shown || s.shown(report.Stats)
				if seed == 1 && !shown {
					t.Errorf("the schedule did not come about: %+v", report.Stats)
				}
			}
		})
	}
}

// TestPowerCutAtEveryStep cuts the power at each disk operation of an act in turn:
// the first operation after its beginning, the second, and so on. Nothing that was
// acknowledged may be lost, and the mesh must become whole again (counterexamples.md
// 5; package host's crash orders).
func TestPowerCutAtEveryStep(t *testing.T) {
	for act, with := range map[string]func(*plan.Config){
		"genesis": func(*plan.Config) {},
		"install": func(c *plan.Config) { c.Mesh.KeepEntries, c.Faults.Crash = 0, 10*time.Second },
		"retire": func(c *plan.Config) {
			c.Faults.Crash, c.Faults.Down, c.Mesh.ReplaceAfter = 15*time.Second, 15*time.Second, 3*time.Second
		},
	} {
		t.Run(act, func(t *testing.T) {
			const steps = 14
			cuts := 0
			for step := range steps {
				cfg := rough(uint64(step))
				cfg.Length, cfg.Load.Clients, cfg.Load.Watchers = 90*time.Second, 2, 1
				with(&cfg)
				cut := 0
				_, err := run(cfg, map[string]func(*node.Process){act: func(p *node.Process) {
					if cut < 3 && !p.Mesh.Healed { // the node must come back to be cut again
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
			if cuts < steps {
				t.Errorf("the act came about %d times in %d runs", cuts, steps)
			}
		})
	}
}

// TestMetamorphicBatches: batch sizes, log files, commits and snapshots must not
// show in what one client without faults is answered.
func TestMetamorphicBatches(t *testing.T) {
	var first []string
	for i, with := range []func(*plan.Config){
		func(*plan.Config) {},
		func(c *plan.Config) { c.Mesh.BatchRequests, c.Mesh.InflightBatches = 1, 4 },
		func(c *plan.Config) { c.Mesh.CommitEvery, c.Mesh.KeepEntries = 20*time.Millisecond, 0 },
		func(c *plan.Config) { c.Mesh.LogFileBytes, c.Mesh.Workers = 64<<10, 1 },
		func(c *plan.Config) { c.Disk.SyncMean, c.Link.LatencyMean = 20*time.Millisecond, 5*time.Millisecond },
	} {
		cfg := rough(5)
		cfg.Faults, cfg.Load.Clients, cfg.Load.Grant, cfg.Load.Compact, cfg.Length = plan.Faults{}, 1, 0, 0, 40*time.Second
		cfg.Load.Start = 20 * time.Second
		with(&cfg)
		report, err := Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, op := range report.History.Ops {
			if op.Client == 0 && op.Kind != check.Range && op.Call < int64(35*time.Second) {
				got = append(got, fmt.Sprintf("%+v %+v", op.Request, *op.Result))
			}
		}
		if i == 0 {
			first = got
			if len(got) < 20 {
				t.Fatalf("only %d operations", len(got))
			}
			continue
		}
		for j := range min(len(first), len(got)) {
			if first[j] != got[j] {
				t.Fatalf("variant %d, operation %d: %s, was %s", i, j, got[j], first[j])
			}
		}
	}
}
