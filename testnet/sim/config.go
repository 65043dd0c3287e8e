package sim

import (
	"math/rand/v2"
	"time"

	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace/lease"
)

// Config is one run, whole: the same Config gives the same run.
type Config struct {
	Seed uint64
	Mesh MeshConfig
	Load LoadConfig
	// Length of the first phase, with faults. The second ends by itself.
	Length time.Duration
	Link   simkit.LinkConfig
	Disk   simkit.DiskConfig
	Faults Faults
	Plant  Plant
}

// MeshConfig is how the nodes are built and set.
type MeshConfig struct {
	Nodes, Groups, Want, Zones, Workers int
	Tick                                time.Duration
	ElectionTicks                       int
	KeepEntries                         uint64 // of the log, behind the applied index
	CommitEvery                         time.Duration
	LogFileBytes                        int64
	BatchRequests, InflightBatches      int
	ReplaceAfter                        time.Duration
	Lease                               lease.Config
	Drift                               float64 // clocks gain or lose up to this many seconds per second
	Stall                               float64 // chance of an apply to wait for seconds
	WatchBytes                          int     // small: watches lag and catch up from history
	SplitsMax                           uint64  // segments are split so often, all in all
	SleepTicks                          int     // after which an idle group sleeps; 0: never
	Window                              int64   // numbers that a home takes at once
}

// LoadConfig is what clients do.
type LoadConfig struct {
	Clients, Watchers, Keys int
	Start                   time.Duration // nothing is asked before
	Think                   time.Duration // mean pause of a client between operations
	Timeout                 time.Duration
	TTLMax                  int // seconds
	// Weights of the kinds of operations, relative to each other.
	Put, Delete, Get, Scan, Txn, Grant, Compact int
}

// Faults holds the mean time between faults of each kind; 0 is never.
type Faults struct {
	Crash, PowerCut, Blackout time.Duration // one node at once; at an I/O operation; all nodes at once
	Down                      time.Duration // mean time until a crashed node is back
	Pause, Cut, Partition     time.Duration
	Swizzle, DiskFull         time.Duration
	Jump                      time.Duration // of a clock
	WrongDeath, WrongLost     time.Duration // gossip is wrong; a connection only blinked
	Transfer                  time.Duration // of leadership
	Wipe                      time.Duration // a node loses everything and a new one comes
	Split                     time.Duration // of a segment, at a random key; up to three in a row
}

// Plant is a fault planted into the simulation's own shell, to show that the
// checkers see it. The zero Plant is none.
type Plant string

// Plants.
const (
	// PlantAckEarly delivers what waits for the disk before the log is written.
	PlantAckEarly Plant = "ack-early"
	// PlantStaleRead answers linearizable reads without a read round.
	PlantStaleRead Plant = "stale-read"
	// PlantRetryUnknown repeats writes whose outcome is unknown.
	PlantRetryUnknown Plant = "retry-unknown"
	// PlantSkipEvent drops some events on their way to the watch hub.
	PlantSkipEvent Plant = "skip-event"
	// PlantAmnesia lets a node come back with an empty log and its old identity.
	PlantAmnesia Plant = "amnesia"
	// PlantEarlyExpiry makes clocks run ten times too fast for leases.
	PlantEarlyExpiry Plant = "early-expiry"
	// PlantOldOffer takes a snapshot that is older than the log which an installation
	// that was cut short left behind.
	PlantOldOffer Plant = "old-offer"
	// PlantTruncateAhead lets go of log that raft was not told to be applied yet.
	PlantTruncateAhead Plant = "truncate-ahead"
	// PlantDropTail drops the log behind an installed snapshot, acknowledged entries
	// included.
	PlantDropTail Plant = "drop-tail"
	// PlantLateApply gives entries that a stopped replica was to apply to the one that
	// a snapshot brought back under the same ID.
	PlantLateApply Plant = "late-apply"
	// PlantKeepRemoved lets a replica run on that applied its own removal.
	PlantKeepRemoved Plant = "keep-removed"
	// PlantNoInstall answers snapshots as installed without installing them.
	PlantNoInstall Plant = "no-install"
	// PlantEarlyChild begins the log of a split's child before the cut is in the store.
	PlantEarlyChild Plant = "early-child"
	// PlantNoBarrier reads at a number of the line behind a read round, without a
	// barrier.
	PlantNoBarrier Plant = "no-barrier"
	// PlantNoRound gives out numbers and answers barriers without asking a majority.
	PlantNoRound Plant = "no-round"
	// PlantDense counts writes of a scope that was split where they are applied.
	PlantDense Plant = "dense"
	// PlantDenseExpiry does so with the ends of leases.
	PlantDenseExpiry Plant = "dense-expiry"
	// PlantLeadersOnly asks for numbers of the line only where a leader is known.
	PlantLeadersOnly Plant = "leaders-only"
	// PlantRacingBirth takes a snapshot of a child that is about to begin from a split.
	PlantRacingBirth Plant = "racing-birth"
	// PlantPartOfNow reads a part of a range at the newest revision here, not at that of
	// the other parts, if the replica has not applied the split yet.
	PlantPartOfNow Plant = "part-of-now"
	// PlantWatchPastSplit lets watches go on that reach beyond what a split left.
	PlantWatchPastSplit Plant = "watch-past-split"
)

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// Swarm draws a configuration: every option is random, and each fault is off in
// some runs, because a fault that is always there hides what happens without it.
func Swarm(seed uint64) Config {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	nodes := pick(rng, 3, 3, 4, 5, 5, 5, 6, 7)
	c := Config{Seed: seed, Length: pick[time.Duration](rng, 2, 5, 10, 20) * time.Minute}
	c.Mesh = MeshConfig{
		Nodes: nodes, Groups: 1 + rng.IntN(4), Want: pick(rng, 1, 3, 3, 3, 5), Zones: 1 + rng.IntN(3), Workers: 1 + rng.IntN(2),
		Tick: 100 * time.Millisecond, ElectionTicks: pick(rng, 5, 10, 10, 20),
		KeepEntries: pick[uint64](rng, 0, 5, 50, 500, 10_000), CommitEvery: pick[time.Duration](rng, 20, 200, 1000, 5000) * time.Millisecond,
		LogFileBytes:  pick[int64](rng, 64<<10, 128<<10, 256<<10),
		BatchRequests: pick(rng, 1, 3, 1024), InflightBatches: pick(rng, 1, 1, 4),
		ReplaceAfter: pick[time.Duration](rng, 5, 15, 60) * time.Second, Lease: lease.DefaultConfig(),
		Drift: pick(rng, 0, 1e-5, 2e-4), WatchBytes: pick(rng, 300, 4<<10, 1<<20),
	}
	c.Mesh.Want = min(c.Mesh.Want, (nodes-1)|1)
	c.Mesh.Lease.CheckpointInterval = pick[time.Duration](rng, 1, 3, 300) * time.Second
	c.Load = LoadConfig{
		Clients: 1 + rng.IntN(6), Watchers: 1 + rng.IntN(5), Keys: pick(rng, 2, 5, 20), Start: pick[time.Duration](rng, 0, 5) * time.Second,
		Think: pick[time.Duration](rng, 100, 400, 1000) * time.Millisecond, Timeout: pick[time.Duration](rng, 1, 5) * time.Second, TTLMax: pick(rng, 2, 10, 30),
		Put: 1 + rng.IntN(8), Delete: rng.IntN(4), Get: 1 + rng.IntN(6), Scan: rng.IntN(4), Txn: rng.IntN(4),
		Grant: rng.IntN(2), Compact: rng.IntN(2),
	}
	c.Link = simkit.LinkConfig{
		LatencyMin: 100 * time.Microsecond, LatencyMean: pick(rng, 200*time.Microsecond, 2*time.Millisecond, 30*time.Millisecond),
		Loss: pick(rng, 0, 0, 0.01, 0.1), Duplicate: pick(rng, 0, 0.01, 0.1), Reorder: pick(rng, 0, 0, 0.1),
	}
	c.Disk = simkit.DiskConfig{
		SyncMin: 100 * time.Microsecond, SyncMean: pick(rng, 500*time.Microsecond, 5*time.Millisecond),
		Slow: pick(rng, 0, 0, 0.01), SlowBy: 2 * time.Second,
	}
	c.Faults = swarmFaults(rng)
	c.Mesh.Stall = pick(rng, 0, 0, 0.001, 0.02)
	swarmSplits(&c)
	return c
}

// swarmSplits draws from a source of its own, so that the rest of a seed's
// configuration is what it was.
func swarmSplits(c *Config) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x59117))
	c.Mesh.SleepTicks, c.Mesh.Window = pick(rng, 0, 5, 20, 20), pick[int64](rng, 2, 10, 100, 1<<16)
	if rng.IntN(10) < 7 {
		c.Faults.Split, c.Mesh.SplitsMax = pick(rng, 5*time.Second, 20*time.Second, time.Minute), pick[uint64](rng, 1, 3, 6, 12)
	}
}

func swarmFaults(rng *rand.Rand) Faults {
	every := func(off int, means ...time.Duration) time.Duration {
		if rng.IntN(100) < off {
			return 0
		}
		return pick(rng, means...)
	}
	return Faults{
		Crash: every(30, 20*time.Second, time.Minute), PowerCut: every(30, 20*time.Second, time.Minute),
		Blackout: every(70, 2*time.Minute), Down: pick(rng, 2*time.Second, 10*time.Second, 40*time.Second),
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
	c.Mesh.SplitsMax, c.Mesh.SleepTicks = 0, 20
	c.Load.Clients, c.Load.Think = 5, time.Second
	c.Faults = Faults{Crash: 5 * time.Minute, Down: 10 * time.Second, Cut: 5 * time.Minute, Transfer: 2 * time.Minute}
	return c
}
