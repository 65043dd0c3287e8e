package sim

import (
	"errors"
	"flag"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the random runs")
	seedCount = flag.Uint64("seeds", 6, "number of random runs")
)

func TestRandomMeshesKeepEveryPromise(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*seedCount; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			if report, err := Run(plan.Swarm(seed)); err != nil {
				t.Fatal(err)
			} else if report.Stats.Acked == 0 || report.Stats.Reads == 0 {
				t.Errorf("nothing was done, so nothing is shown: %+v", report.Stats)
			}
		})
	}
}

// TestOneSeedIsOneRun catches what a simulation must not depend on: the order of a
// map, the real clock, chance from elsewhere.
func TestOneSeedIsOneRun(t *testing.T) {
	hashes := make(map[uint64]bool)
	for _, seed := range []uint64{3, 6, 22} {
		first, err := Run(plan.Swarm(seed))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Run(plan.Swarm(seed))
		if err != nil {
			t.Fatal(err)
		}
		if first.Hash != again.Hash || !reflect.DeepEqual(first.Stats, again.Stats) {
			t.Errorf("seed %d: one run has hash %x and %+v, the other %x and %+v", seed, first.Hash, first.Stats, again.Hash, again.Stats)
		}
		hashes[first.Hash] = true
	}
	if len(hashes) != 3 {
		t.Error("different seeds give the same run")
	}
}

// rough is a mesh under load in which little goes wrong unless a test adds it.
func rough(seed uint64) plan.Config {
	c := plan.Calm(seed, 4*time.Minute)
	c.Mesh.KeepEntries, c.Mesh.CommitEvery, c.Mesh.ReplaceAfter = 20, 300*time.Millisecond, 10*time.Second
	c.Mesh.Drift, c.Mesh.WatchBytes, c.Mesh.Groups = 0, 2000, 2
	c.Mesh.BatchRequests, c.Mesh.InflightBatches = 4, 1
	c.Load = plan.LoadConfig{Clients: 4, Watchers: 3, Keys: 4, Think: 200 * time.Millisecond, Timeout: 2 * time.Second, TTLMax: 5,
		Put: 4, Delete: 1, Get: 4, Scan: 1, Txn: 1, Grant: 1, Compact: 1}
	c.Link = simkit.LinkConfig{LatencyMin: 100 * time.Microsecond, LatencyMean: time.Millisecond}
	c.Disk = simkit.DiskConfig{SyncMin: 100 * time.Microsecond, SyncMean: time.Millisecond}
	c.Faults = plan.Faults{Down: 3 * time.Second}
	return c
}

// TestPlantedFaultsAreFound plants a defect into the shell and looks for the checker
// that must see it.
func TestPlantedFaultsAreFound(t *testing.T) {
	for plant, c := range map[plan.Plant]struct {
		with func(*plan.Config)
		want []error
	}{
		plan.PlantAckEarly: {func(c *plan.Config) { c.Faults.Blackout, c.Disk.SyncMean = 10*time.Second, 50*time.Millisecond },
			[]error{check.ErrDiverged, check.ErrLost, check.ErrTwoLeaders, check.ErrNotLinearizable, witness.ErrTwice}},
		plan.PlantStaleRead:    {func(c *plan.Config) { c.Faults.Partition = 10 * time.Second }, []error{check.ErrNotLinearizable}},
		plan.PlantRetryUnknown: {func(c *plan.Config) { c.Faults.Partition, c.Faults.Crash = 10*time.Second, 5*time.Second }, []error{witness.ErrTwice}},
		plan.PlantSkipEvent:    {func(*plan.Config) {}, []error{check.ErrReliable, check.ErrResumable}},
		plan.PlantAmnesia:      {func(c *plan.Config) { c.Faults.Crash = 5 * time.Second }, []error{check.ErrDiverged, &errPanic{}}},
		plan.PlantEarlyExpiry:  {func(*plan.Config) {}, []error{check.ErrLeaseEarly}},
		plan.PlantKeepRemoved: {func(c *plan.Config) {
			c.Faults.Cut, c.Faults.WrongDeath, c.Mesh.ReplaceAfter, c.Mesh.KeepEntries = 3*time.Second, 2*time.Second, 3*time.Second, 10_000
		}, []error{ErrStuck}},
		plan.PlantOldOffer: {func(c *plan.Config) {
			c.Mesh.KeepEntries, c.Mesh.CommitEvery, c.Faults.Transfer = 0, 10*time.Second, 2*time.Second
			c.Faults.Cut, c.Faults.Down, c.Faults.Crash = 2*time.Second, 500*time.Millisecond, 10*time.Second
		}, []error{wal.ErrBadUpdate, node.ErrIncomplete}},
		plan.PlantDropTail: {func(c *plan.Config) {
			c.Mesh.KeepEntries, c.Mesh.CommitEvery, c.Link.Loss, c.Mesh.Groups = 20, 200*time.Millisecond, 0.2, 1
			c.Mesh.BatchRequests, c.Mesh.InflightBatches, c.Load.Clients, c.Load.Think = 1, 4, 12, 20*time.Millisecond
			c.Disk = simkit.DiskConfig{SyncMin: time.Millisecond, SyncMean: 5 * time.Millisecond, Slow: 0.05, SlowBy: 2 * time.Second}
		}, []error{check.ErrDiverged, check.ErrLost, check.ErrNotLinearizable, &errPanic{}}},
		plan.PlantTruncateAhead: {func(c *plan.Config) {
			c.Mesh.KeepEntries, c.Mesh.CommitEvery, c.Mesh.Stall, c.Mesh.BatchRequests = 0, 20*time.Millisecond, 0.05, 1
			c.Mesh.InflightBatches, c.Load.Clients, c.Faults.Transfer, c.Faults.Partition = 4, 10, 2*time.Second, 10*time.Second
		}, []error{&errPanic{}}},
		plan.PlantLateApply: {func(c *plan.Config) {
			c.Mesh.KeepEntries, c.Mesh.Stall, c.Faults.Partition, c.Faults.Cut = 0, 0.05, 5*time.Second, 3*time.Second
		}, []error{&errPanic{}}},
		plan.PlantNoInstall: {func(c *plan.Config) { c.Faults.Crash, c.Mesh.KeepEntries = 5*time.Second, 0 }, []error{ErrStuck}},
	} {
		t.Run(string(plant), func(t *testing.T) {
			var last error
			for seed := range uint64(30) {
				cfg := rough(seed)
				c.with(&cfg)
				if seed == 0 {
					if _, err := Run(cfg); err != nil {
						t.Fatalf("without the plant: %v", err)
					}
				}
				cfg.Plant = plant
				_, err := run(cfg, cutInstalls(plant))
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

// cutInstalls cuts the power some disk operations into an installation, for the plant
// that needs one that ended between the log's restart and the store's last word.
func cutInstalls(plant plan.Plant) map[string]func(*node.Process) {
	if plant != plan.PlantOldOffer {
		return nil
	}
	return map[string]func(*node.Process){"install": func(p *node.Process) {
		if p.Fuse < 0 && p.Rng.IntN(2) == 0 {
			p.Fuse = 3 + p.Rng.IntN(4)
			p.Mesh.Later(2*time.Second, p.Defuse)
		}
	}}
}

func TestFailureShrinks(t *testing.T) {
	cfg := rough(1)
	cfg.Plant, cfg.Faults.Crash, cfg.Faults.Pause = plan.PlantSkipEvent, 20*time.Second, 20*time.Second
	_, err := Run(cfg)
	var f *Failure
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a failure", err)
	}
	small := Shrink(f)
	if small.Config.Faults.Crash != 0 || small.Config.Faults.Pause != 0 || small.Config.Length >= cfg.Length {
		t.Errorf("not smaller: %+v", small.Config)
	}
	if _, err := Run(small.Config); err == nil {
		t.Error("what was shrunk does not fail")
	}
}
