package torture

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

func TestDifferentHashesAreFound(t *testing.T) {
	names := []string{"n1", "n2", "n3"}
	hashes := func(third *clientv3.HashKVResponse) []*clientv3.HashKVResponse {
		return []*clientv3.HashKVResponse{{Hash: 7, HashRevision: 9}, {Hash: 7, HashRevision: 9}, third}
	}
	if err := sameHashes(names, hashes(&clientv3.HashKVResponse{Hash: 7, HashRevision: 9})); err != nil {
		t.Error(err)
	}
	for _, bad := range []*clientv3.HashKVResponse{{Hash: 8, HashRevision: 9}, {Hash: 7, HashRevision: 8}} {
		if err := sameHashes(names, hashes(bad)); !errors.Is(err, ErrHash) || !strings.Contains(err.Error(), "n3") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestOutageBeyondTheGoalIsAViolation(t *testing.T) {
	second := time.Second
	acks := []traffic.Ack{{At: second}, {At: 4 * second}, {At: 5 * second}, {At: 20 * second}}
	faults := []Injected{
		{Fault: fault.Fault{N: 1, Kind: fault.Kill}, From: second, Until: 5 * second},
		{Fault: fault.Fault{N: 2, Kind: fault.KillAll}, From: 5 * second, Until: 20 * second}, // has no goal
	}
	for goal, want := range map[time.Duration]int{0: 0, 3 * second: 0, 2 * second: 1} {
		r := &Report{Goal: goal, Nodes: []string{"n1"}}
		r.outages(acks, faults)
		if len(r.Violations) != want || r.Longest().Outage != 3*second {
			t.Errorf("goal %v: longest %v, violations %v", goal, r.Longest().Outage, r.Violations)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Length = 0 }, func(c *Config) { c.Faults = -1 },
		func(c *Config) { c.Recovery = 0 }, func(c *Config) { c.OutageGoal = -1 },
	} {
		c := Default()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// Three local processes, killed, stopped and restarted for half a minute, while segments
// are split, merged and handed over, and policies of scopes amended.
func TestTortureOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	mesh, err := target.Processes(ctx, cluster.Mesh, 3, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mesh.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg := Default()
	cfg.Length, cfg.Faults, cfg.Seed = 30*time.Second, 5, uint64(time.Now().Unix())
	cfg.Kinds = []fault.Kind{fault.Kill, fault.Pause, fault.Restart, fault.KillAll, fault.Power}
	cfg.Changes, cfg.Policies = 4, 4
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	report, _, err := Run(ctx, cfg, mesh)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Print(t.Output()); err != nil {
		t.Fatal(err)
	}
	if len(report.Violations) > 0 {
		t.Errorf("seed %d: %d promises were broken", cfg.Seed, len(report.Violations))
	}
}
