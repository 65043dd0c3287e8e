package plan

import (
	"math/rand/v2"
	"time"

	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace/lease"
)

// Swarm draws a configuration: every option is random, and each fault is off in
// some runs, because a fault that is always there hides what happens without it.
func Swarm(seed uint64) Config {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	nodes := Pick(rng, 3, 3, 4, 5, 5, 5, 6, 7)
	c := Config{Seed: seed, Length: Pick[time.Duration](rng, 2, 5, 10, 20) * time.Minute}
	c.Mesh = MeshConfig{
		Nodes: nodes, Groups: 1 + rng.IntN(4), Want: Pick(rng, 1, 3, 3, 3, 5), Zones: 1 + rng.IntN(3), Workers: 1 + rng.IntN(2),
		Tick: 100 * time.Millisecond, ElectionTicks: Pick(rng, 5, 10, 10, 20),
		KeepEntries: Pick[uint64](rng, 0, 5, 50, 500, 10_000), CommitEvery: Pick[time.Duration](rng, 20, 200, 1000, 5000) * time.Millisecond,
		LogFileBytes:  Pick[int64](rng, 64<<10, 128<<10, 256<<10),
		BatchRequests: Pick(rng, 1, 3, 1024), InflightBatches: Pick(rng, 1, 1, 4),
		ReplaceAfter: Pick[time.Duration](rng, 5, 15, 60) * time.Second, Lease: lease.DefaultConfig(),
		Drift: Pick(rng, 0, 1e-5, 2e-4), WatchBytes: Pick(rng, 300, 4<<10, 1<<20),
	}
	c.Mesh.Want = min(c.Mesh.Want, (nodes-1)|1)
	c.Mesh.Lease.CheckpointInterval = Pick[time.Duration](rng, 1, 3, 300) * time.Second
	c.Load = LoadConfig{
		Clients: 1 + rng.IntN(6), Watchers: 1 + rng.IntN(5), Keys: Pick(rng, 2, 5, 20), Start: Pick[time.Duration](rng, 0, 5) * time.Second,
		Think: Pick[time.Duration](rng, 100, 400, 1000) * time.Millisecond, Timeout: Pick[time.Duration](rng, 1, 5) * time.Second, TTLMax: Pick(rng, 2, 10, 30),
		Put: 1 + rng.IntN(8), Delete: rng.IntN(4), Get: 1 + rng.IntN(6), Scan: rng.IntN(4), Txn: rng.IntN(4),
		Grant: rng.IntN(2), Compact: rng.IntN(2),
	}
	c.Link = simkit.LinkConfig{
		LatencyMin: 100 * time.Microsecond, LatencyMean: Pick(rng, 200*time.Microsecond, 2*time.Millisecond, 30*time.Millisecond),
		Loss: Pick(rng, 0, 0, 0.01, 0.1), Duplicate: Pick(rng, 0, 0.01, 0.1), Reorder: Pick(rng, 0, 0, 0.1),
	}
	c.Disk = simkit.DiskConfig{
		SyncMin: 100 * time.Microsecond, SyncMean: Pick(rng, 500*time.Microsecond, 5*time.Millisecond),
		Slow: Pick(rng, 0, 0, 0.01), SlowBy: 2 * time.Second,
	}
	c.Faults = swarmFaults(rng)
	c.Mesh.Stall = Pick(rng, 0, 0, 0.001, 0.02)
	swarmSplits(&c)
	swarmGovernance(&c)
	swarmMerges(&c)
	swarmClasses(&c)
	if rng := rand.New(rand.NewPCG(seed, 0x2077e4)); rng.IntN(10) < 3 {
		c.Faults.Rot = Pick(rng, 30*time.Second, 2*time.Minute)
	}
	if rng := rand.New(rand.NewPCG(seed, 0x6d0e5)); rng.IntN(10) < 5 {
		c.Faults.Move = Pick(rng, 2*time.Second, 10*time.Second, 30*time.Second)
	}
	return c
}

// swarmSplits draws from a source of its own, so that the rest of a seed's
// configuration is what it was.
func swarmSplits(c *Config) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x59117))
	c.Mesh.SleepTicks, c.Mesh.Window = Pick(rng, 0, 5, 20, 20), Pick[int64](rng, 2, 10, 100, 1<<16)
	if rng.IntN(10) < 7 {
		c.Faults.Split, c.Mesh.SplitsMax = Pick(rng, 5*time.Second, 20*time.Second, time.Minute), Pick[uint64](rng, 1, 3, 6, 12)
	}
}

func swarmMerges(c *Config) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x3e26e))
	if c.Mesh.SplitsMax > 0 && rng.IntN(10) < 7 {
		c.Faults.Merge = Pick(rng, 2*time.Second, 10*time.Second, 30*time.Second)
		c.Mesh.SplitsMax *= Pick[uint64](rng, 1, 4)
	}
}

func swarmFaults(rng *rand.Rand) Faults {
	every := func(off int, means ...time.Duration) time.Duration {
		if rng.IntN(100) < off {
			return 0
		}
		return Pick(rng, means...)
	}
	return Faults{
		Crash: every(30, 20*time.Second, time.Minute), PowerCut: every(30, 20*time.Second, time.Minute),
		Blackout: every(70, 2*time.Minute), Down: Pick(rng, 2*time.Second, 10*time.Second, 40*time.Second),
		Pause: every(40, 20*time.Second, time.Minute), Cut: every(40, 10*time.Second, time.Minute),
		Partition: every(50, 30*time.Second, 2*time.Minute), Swizzle: every(70, time.Minute),
		DiskFull: every(80, 2*time.Minute), Jump: every(70, time.Minute),
		WrongDeath: every(60, time.Minute), WrongLost: every(50, 10*time.Second), Transfer: every(50, 5*time.Second, 30*time.Second),
		Wipe: every(60, 3*time.Minute),
	}
}

// Calm returns a five-node mesh under load with rare faults: the run that speed is
// measured on.
func Calm(seed uint64, length time.Duration) Config {
	c := Swarm(seed)
	c.Length = length
	c.Mesh.Nodes, c.Mesh.Groups, c.Mesh.Want, c.Mesh.Workers, c.Mesh.ElectionTicks, c.Mesh.Stall = 5, 3, 3, 2, 10, 0
	c.Mesh.SplitsMax, c.Mesh.SleepTicks, c.Governance = 0, 20, Governance{}
	c.Load.Clients, c.Load.Think = 5, time.Second
	c.Faults = Faults{Crash: 5 * time.Minute, Down: 10 * time.Second, Cut: 5 * time.Minute, Transfer: 2 * time.Minute}
	return c
}
