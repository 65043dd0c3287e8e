package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
	"github.com/anchormesh/anchormesh/testnet/torture/audit"
)

// governing is a rough mesh of one line whose policies are amended, and in which scopes
// come and go.
func governing(seed uint64) plan.Config {
	c := splitting(seed)
	c.Faults.Split, c.Load.Keys, c.Length, c.Load.Clients, c.Load.Watchers = 30*time.Second, 20, time.Minute, 2, 1
	c.Governance = plan.Governance{Every: time.Second, Scopes: true, Refuse: 0.1}
	return c
}

// TestGovernanceMeetsFaults runs proposals, votes and adoptions through one schedule each.
func TestGovernanceMeetsFaults(t *testing.T) {
	for _, s := range []scenario{
		{"ce15_leaders_change", func(c *plan.Config) { c.Faults.Transfer, c.Faults.Partition = 2*time.Second, 20*time.Second },
			func(s witness.Stats) bool { return s.Adopted > 8 && s.Elections > 10 && s.Ruled > 0 }},
		{"ce15_nodes_are_down_and_replaced", func(c *plan.Config) {
			c.Faults.Crash, c.Faults.Down, c.Mesh.ReplaceAfter = 8*time.Second, 10*time.Second, 3*time.Second
		}, func(s witness.Stats) bool { return s.Adopted > 8 && s.ConfChanges > 5 }},
		{"decisions_that_nobody_can_sign_any_more", func(c *plan.Config) {
			c.Faults.Blackout, c.Faults.Down, c.Mesh.CommitEvery, c.Faults.Split = 15*time.Second, time.Second, 20*time.Millisecond, 5*time.Second
		},
			func(s witness.Stats) bool { return s.Adopted > 8 && s.Affirmed > 0 }},
		{"merges_between_scopes", func(c *plan.Config) {
			c.Faults.Merge, c.Faults.Split, c.Mesh.SplitsMax, c.Faults.Transfer, c.Governance.Refuse = 300*time.Millisecond, 3*time.Second, 40, 5*time.Second, 0
		}, func(s witness.Stats) bool { return s.Adopted > 8 && s.Merges > 1 && s.Attempts > s.Merges }},
	} {
		s.run(t, 4, governing)
	}
}

// TestPowerCutAtEveryAdoption cuts the power at the disk operations that follow a decision
// or an adoption, one after the other, on whichever node applied it first.
func TestPowerCutAtEveryAdoption(t *testing.T) {
	const steps = 6
	cuts := 0
	for step := range steps {
		cfg := governing(uint64(step))
		cfg.Length, cfg.Faults.Down = 20*time.Second, time.Second
		cut := 0
		_, err := run(cfg, map[string]func(*node.Process){"adopt": func(p *node.Process) {
			if cut < 6 && !p.Mesh.Healed && p.Fuse < 0 && p.Rng.IntN(2) == 0 {
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
	if cuts < 2*steps {
		t.Errorf("%d cuts in %d runs", cuts, steps)
	}
}

// TestPlantedGovernanceFaultsAreFound is TestPlantedFaultsAreFound for policies and scopes.
func TestPlantedGovernanceFaultsAreFound(t *testing.T) {
	for plant, c := range map[plan.Plant]struct {
		with func(*plan.Config)
		want error
	}{
		plan.PlantForgedVotes: {func(c *plan.Config) { c.Governance.Scopes = false }, audit.ErrGovernance},
		plan.PlantHastyForce:  {func(c *plan.Config) { c.Faults.Partition, c.Faults.Split = 10*time.Second, 10*time.Second }, node.ErrInForce},
		plan.PlantOldRules:    {func(*plan.Config) {}, node.ErrUnruled},
	} {
		t.Run(string(plant), func(t *testing.T) {
			var last error
			for seed := range uint64(10) {
				cfg := governing(seed)
				cfg.Length, cfg.Plant = 40*time.Second, plant
				c.with(&cfg)
				if _, last = Run(cfg); errors.Is(last, c.want) {
					return
				}
			}
			t.Errorf("no checker saw it; last error %v", last)
		})
	}
}

// TestDoctoredActs: what leaders do to the structure without their anchors' votes, or with
// votes that they made up, every machine refuses; where the machines do not look, the audit
// finds it.
func TestDoctoredActs(t *testing.T) {
	act := func(seed uint64, plant plan.Plant) (*Report, error) {
		cfg := merging(seed)
		cfg.Plant, cfg.Length, cfg.Load.Clients, cfg.Load.Watchers = plant, 20*time.Second, 1, 1
		return Run(cfg)
	}
	if report, err := act(1, plan.PlantDoctoredAct); err != nil || report.Stats.Forged == 0 || report.Stats.Splits > 0 {
		t.Errorf("%+v, %v", report.Stats, err)
	}
	for _, plant := range []plan.Plant{plan.PlantUnasked, plan.PlantForgedAct} {
		if report, err := act(1, plant); report.Stats.Splits == 0 || !errors.Is(err, audit.ErrGovernance) {
			t.Errorf("%s: %d splits, %v", plant, report.Stats.Splits, err)
		}
	}
}

// approving is a rough mesh whose policies often want approvals of every write.
func approving(seed uint64) plan.Config {
	c := governing(seed)
	c.Mesh.SplitsMax, c.Faults.Split, c.Load.Clients = 0, 0, 4
	c.Governance = plan.Governance{Every: 4 * time.Second, Strong: true}
	return c
}

// TestApprovalsMeetFaults runs writes that need votes through one schedule each.
func TestApprovalsMeetFaults(t *testing.T) {
	for _, s := range []scenario{
		{"ce8_leaders_and_policies_change", func(c *plan.Config) {
			c.Faults.Transfer, c.Faults.Partition, c.Governance.Every = 2*time.Second, 20*time.Second, 2*time.Second
		}, func(s witness.Stats) bool { return s.Approved > 30 && s.Adopted > 3 && s.Elections > 5 }},
		{"ce8_voters_are_down_and_late", func(c *plan.Config) {
			c.Faults.Crash, c.Faults.Down, c.Faults.Pause, c.Mesh.Stall = 8*time.Second, 5*time.Second, 5*time.Second, 0.01
		}, func(s witness.Stats) bool { return s.Approved > 30 && s.Crashes > 3 }},
		{"ce8_22_segments_are_cut", func(c *plan.Config) {
			c.Mesh.SplitsMax, c.Faults.Split, c.Faults.Transfer = 6, 8*time.Second, 10*time.Second
		}, func(s witness.Stats) bool { return s.Approved > 30 && s.Splits > 2 && s.Stamped > 30 }},
	} {
		s.run(t, 4, approving)
	}
}

// TestDoctoredLeader: a leader that makes votes up gets nothing into a strong scope as
// long as the others check; if nobody does, the audit finds it.
func TestDoctoredLeader(t *testing.T) {
	forged := false
	for seed := uint64(0); seed < 4 && !forged; seed++ {
		cfg := approving(seed)
		cfg.Plant, cfg.Length, cfg.Load.Think = plan.PlantDoctoredLeader, 20*time.Second, time.Second
		report, err := Run(cfg)
		if err != nil && !errors.Is(err, ErrStuck) || report.Stats.Approved > 0 { // it is stuck where a scope stays strong
			t.Fatalf("%d writes took effect: %v", report.Stats.Approved, err)
		}
		forged = report.Stats.Forged > 0
	}
	if !forged {
		t.Error("no leader made up votes")
	}
	var last error
	for seed := range uint64(5) {
		cfg := approving(seed)
		cfg.Plant = plan.PlantUnapproved
		if _, last = Run(cfg); errors.Is(last, audit.ErrGovernance) {
			return
		}
	}
	t.Errorf("the audit did not find it; last error %v", last)
}
