package sim

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// volatile is a rough mesh whose scopes become light and normal again, on slow disks.
func volatile(seed uint64) plan.Config {
	c := governing(seed)
	c.Governance = plan.Governance{Every: 2 * time.Second, Light: true}
	c.Mesh.ReplaceAfter, c.Load.Think = 3*time.Second, 100*time.Millisecond
	c.Disk = simkit.DiskConfig{SyncMin: time.Millisecond, SyncMean: 20 * time.Millisecond}
	return c
}

// TestLightMeetsFaults runs light segments through one schedule each. Deaths of processes
// and stops of a minority's machines lose nothing.
func TestLightMeetsFaults(t *testing.T) {
	for _, s := range []scenario{
		{"ce15_processes_die", func(c *plan.Config) { c.Faults.Kill, c.Faults.Down = 3*time.Second, time.Second },
			func(s witness.Stats) bool { return s.Kills > 10 && s.Memory > 200 && s.Adopted > 4 }},
		{"machines_stop", func(c *plan.Config) {
			c.Faults.Crash, c.Faults.PowerCut, c.Faults.Down = 6*time.Second, 6*time.Second, time.Second
		}, func(s witness.Stats) bool { return s.Forgot > 2 && s.Memory > 100 && s.Adopted > 4 }},
		{"all_processes_die_and_machines_stop", func(c *plan.Config) {
			c.Faults.Blackout, c.Faults.Crash, c.Faults.Down = 10*time.Second, 10*time.Second, time.Second
		}, func(s witness.Stats) bool { return s.Kills > 10 && s.Forgot > 1 && s.Memory > 100 }},
	} {
		s.run(t, 12, volatile)
	}
}

// TestWhoForgotDoesNotVote: a forgetful replica that runs on loses what was acknowledged.
func TestWhoForgotDoesNotVote(t *testing.T) {
	var last error
	for seed := range uint64(20) {
		cfg := volatile(seed)
		cfg.Faults.Crash, cfg.Faults.Down, cfg.Faults.Partition, cfg.Plant = 2*time.Second, 500*time.Millisecond, 3*time.Second, plan.PlantForgetfulVotes
		cfg.Mesh.Nodes, cfg.Mesh.SplitsMax, cfg.Mesh.CommitEvery, cfg.Faults.Split = 3, 0, time.Minute, 0 // the store is not ahead of what the log lost
		_, last = Run(cfg)
		var stopped *errPanic // raft's own: what it is told to be committed is not in its log
		if errors.Is(last, check.ErrLost) || errors.Is(last, check.ErrDiverged) || errors.As(last, &stopped) && strings.Contains(stopped.text, "tocommit") {
			return
		}
	}
	t.Errorf("no checker saw it; last error %v", last)
}

// TestAMajorityOfMachinesIsNotStopped: what the machine of a process that is down has
// forgotten counts, too. Where a light segment would lose a majority, processes die.
func TestAMajorityOfMachinesIsNotStopped(t *testing.T) {
	cfg := volatile(1)
	cfg.Mesh.Nodes, cfg.Mesh.SplitsMax, cfg.Length, cfg.Faults = 3, 0, 10*time.Second, plan.Faults{}
	report, err := simulate(cfg, nil, func(m *world) {
		m.safety()
		until := func(what string, is func() bool) {
			if m.K.Run(m.K.Now()+time.Minute, is) {
				t.Fatalf("never came: %s", what)
			}
		}
		id, one, other := m.Segments[0].ID, m.Computers[1], m.Computers[2]
		until("a light segment whose nodes all write to memory", func() bool {
			s := m.Newest(id)
			return s.Light() && !s.Joint() && len(s.Descriptor.Voters()) == 3 && m.Stats.Memory > 20
		})
		one.Crash()
		until("a replica that forgot", func() bool { return one.Proc != nil && len(one.Proc.Forgotten()) > 0 })
		one.Kill()
		other.Crash()
		m.liveness()
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Stats.Crashes != 1 || report.Stats.Kills != 2 {
		t.Errorf("%d machines stopped and %d processes died, want 1 and 2", report.Stats.Crashes, report.Stats.Kills)
	}
}
