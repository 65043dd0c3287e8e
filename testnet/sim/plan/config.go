package plan

import (
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
	// Governance is what happens to policies and scopes.
	Governance Governance
	Plant      Plant
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
	Crash, PowerCut, Blackout time.Duration // one machine at once; at an I/O operation; all machines at once
	Kill                      time.Duration // of a process: the machine keeps what it wrote
	Down                      time.Duration // mean time until a crashed node is back
	Pause, Cut, Partition     time.Duration
	Swizzle, DiskFull         time.Duration
	Jump                      time.Duration // of a clock
	WrongDeath, WrongLost     time.Duration // gossip is wrong; a connection only blinked
	Transfer                  time.Duration // of leadership
	Wipe                      time.Duration // a node loses everything and a new one comes
	Rot                       time.Duration // a bit on the disk of a machine that is down
	Split                     time.Duration // of a segment, at a random key; up to three in a row
	Move                      time.Duration // of a replica, to another node by order
	Merge                     time.Duration // of two neighbours that were split apart
}
