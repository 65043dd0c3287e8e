package config

import (
	"math"
	"time"
)

// Config is everything that one node is told by its operator.
type Config struct {
	Identity   Identity
	Mesh       Mesh
	Recruit    Recruit
	Listen     Listen
	Advertise  Advertise
	Limits     Limits
	Raft       Raft
	Watch      Watch
	Compaction Compaction
	Log        Log
}

// Identity says which node this is.
type Identity struct {
	// Name is shown to people and in etcd's member list. It identifies nothing:
	// the node's key does.
	Name string
	// DataDir holds the node's key, log and store. Empty: <name>.anchormesh.
	DataDir string
	// Zone is the failure domain that anchors are spread over. Empty: unknown.
	Zone string
}

// Dir is the data directory in force.
func (i Identity) Dir() string {
	if i.DataDir != "" {
		return i.DataDir
	}
	return i.Name + ".anchormesh"
}

// Mesh says which mesh the node belongs to.
type Mesh struct {
	// Genesis creates the mesh if the data directory knows none.
	Genesis bool
	// Join holds gossip addresses (host:port) of nodes to meet. One that answers
	// is enough.
	Join []string
	// KeyFile holds the mesh key. Empty: mesh.key in the data directory.
	KeyFile string
}

// Recruit says how the anchor groups led here keep their strength.
type Recruit struct {
	// Anchors is how many anchors the root scope asks for: 1, 3, 5 or 7. It is
	// read once, at genesis; from then on the segment's log knows it.
	Anchors uint
	// ReplaceDeadAfter is how long an anchor's node must be gone before another
	// takes its place. Shorter moves data for every reboot, longer leaves the
	// group one failure from stopping.
	ReplaceDeadAfter time.Duration
	// AutoSplit lets leaders cut segments whose load or size is over the thresholds.
	// Off, the decision is logged and shown as advice.
	AutoSplit bool
	// AutoMerge lets leaders join neighbouring segments that are dormant. Off, likewise.
	AutoMerge bool
	// Haste divides the waits before splits, merges and moves: 1 is how meshes are
	// meant to run, more is for tests and for looking on.
	Haste uint
}

// Listen holds the addresses the node binds. Port 0 takes any free one.
type Listen struct {
	Client string // host:port of the gRPC API
	Peer   string // multiaddr of the libp2p host
	Gossip string // host:port, TCP and UDP
	HTTP   string // host:port of health and metrics; empty: none
	// Pprof adds /debug/pprof to HTTP. Off: profiles tell a stranger a lot.
	Pprof bool
}

// Advertise holds the addresses others are told. Empty fields are derived from
// Listen; see Resolve.
type Advertise struct {
	ClientURLs []string
	Peer       []string
	Gossip     string
}

// Limits bounds what clients may ask.
type Limits struct {
	// QuotaBackendBytes is the size of the store at which writes are refused
	// with etcd's NOSPACE. 0: DefaultQuotaBytes; negative: no limit.
	QuotaBackendBytes int64
	// RequestBytes is the largest client request.
	RequestBytes uint
	// TxnOps is the largest number of operations in one transaction.
	TxnOps uint
}

// DefaultQuotaBytes is etcd's default space quota.
const DefaultQuotaBytes = 2 << 30

// Quota is the space quota in force, in bytes.
func (l Limits) Quota() int64 {
	switch {
	case l.QuotaBackendBytes == 0:
		return DefaultQuotaBytes
	case l.QuotaBackendBytes < 0:
		return math.MaxInt64
	}
	return l.QuotaBackendBytes
}

// Raft tunes the anchor groups.
type Raft struct {
	// Heartbeat is the time between a leader's heartbeats: about the round-trip
	// time between anchors.
	Heartbeat time.Duration
	// Election is how long an anchor waits for a leader before it campaigns. At
	// least five heartbeats, so that one lost packet is not an election.
	Election time.Duration
	// SnapshotCount is how many applied entries a group keeps before it may cut
	// its log.
	SnapshotCount uint64
}

// Watch tunes watches.
type Watch struct {
	// ProgressInterval is the time between progress notifications to watchers
	// that asked for them and see no event.
	ProgressInterval time.Duration
}

// Log says what the node writes to stderr.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Default returns the configuration of a node that was told nothing.
func Default() Config {
	return Config{
		Identity: Identity{Name: "default"},
		Recruit:  Recruit{Anchors: 3, AutoSplit: true, AutoMerge: true, Haste: 1, ReplaceDeadAfter: 5 * time.Minute},
		Listen: Listen{
			Client: "127.0.0.1:2379",
			Peer:   "/ip4/0.0.0.0/tcp/2380",
			Gossip: "0.0.0.0:7946",
			HTTP:   "127.0.0.1:2381",
		},
		Limits:     Limits{RequestBytes: 1572864, TxnOps: 128},
		Raft:       Raft{Heartbeat: 100 * time.Millisecond, Election: time.Second, SnapshotCount: 10_000},
		Watch:      Watch{ProgressInterval: 10 * time.Minute},
		Compaction: Compaction{Mode: Periodic, Retention: "0"},
		Log:        Log{Level: "info", Format: "text"},
	}
}
