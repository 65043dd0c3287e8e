package config

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// FileFlag is the flag that names the YAML file.
const FileFlag = "config"

// Bind declares every flag of `serve` on fs. The flags write into c, and c's
// present values are their defaults.
func (c *Config) Bind(fs *pflag.FlagSet) {
	fs.String(FileFlag, "", "YAML file whose fields are these flags' names; flags and ANCHORMESH_* win over it")
	c.bindIdentity(fs)
	c.bindAddresses(fs)
	c.bindTuning(fs)
}

func (c *Config) bindIdentity(fs *pflag.FlagSet) {
	fs.StringVar(&c.Identity.Name, "name", c.Identity.Name, "name of this node, shown to people")
	fs.StringVar(&c.Identity.DataDir, "data-dir", c.Identity.DataDir, "directory of the node's key, log and store (default <name>.anchormesh)")
	fs.StringVar(&c.Identity.Zone, "zone", c.Identity.Zone, "failure domain of this node; anchors are spread over zones")
	fs.BoolVar(&c.Mesh.Genesis, "genesis", c.Mesh.Genesis, "create the mesh; for exactly one node, once; harmless afterwards")
	fs.StringSliceVar(&c.Mesh.Join, "join", c.Mesh.Join, "gossip addresses HOST:PORT of nodes to meet; one that answers is enough")
	fs.StringVar(&c.Mesh.KeyFile, "mesh-key-file", c.Mesh.KeyFile, "file with the mesh key, the same on every node (default mesh.key in the data directory; made there by --genesis)")
	fs.UintVar(&c.Recruit.Anchors, "anchors", c.Recruit.Anchors, "anchors the root scope asks for: 1, 3, 5 or 7; read at genesis only")
	fs.BoolVar(&c.Recruit.AutoSplit, "auto-split", c.Recruit.AutoSplit, "cut a segment in two when its load or size asks for it; off, say so only")
	fs.BoolVar(&c.Recruit.AutoMerge, "auto-merge", c.Recruit.AutoMerge, "join neighbouring segments that have been dormant for long; off, say so only")
	fs.UintVar(&c.Recruit.Haste, "structure-haste", c.Recruit.Haste, "divide the waits before splits, merges and moves by this; above 1 for tests and demonstrations only")
	fs.DurationVar(&c.Recruit.ReplaceDeadAfter, "replace-dead-after", c.Recruit.ReplaceDeadAfter, "how long an anchor's node must be gone before a free node takes its place")
}

func (c *Config) bindAddresses(fs *pflag.FlagSet) {
	fs.StringVar(&c.Listen.Client, "client-addr", c.Listen.Client, "HOST:PORT of the etcd v3 gRPC API")
	fs.StringVar(&c.Listen.Peer, "peer-addr", c.Listen.Peer, "multiaddr the libp2p host listens on, for peers and libp2p clients")
	fs.StringVar(&c.Listen.Gossip, "gossip-addr", c.Listen.Gossip, "HOST:PORT of membership gossip, TCP and UDP")
	fs.StringVar(&c.Listen.HTTP, "http-addr", c.Listen.HTTP, "HOST:PORT of /healthz, /readyz and /metrics; empty for none")
	fs.BoolVar(&c.Listen.Pprof, "pprof", c.Listen.Pprof, "serve /debug/pprof on --http-addr")
	fs.StringSliceVar(&c.Advertise.ClientURLs, "advertise-client-urls", c.Advertise.ClientURLs, "URLs of this node's API told to clients (default from --client-addr)")
	fs.StringSliceVar(&c.Advertise.Peer, "advertise-peer", c.Advertise.Peer, "multiaddrs told to peers (default from --peer-addr)")
	fs.StringVar(&c.Advertise.Gossip, "advertise-gossip", c.Advertise.Gossip, "HOST:PORT told to gossip (default from --gossip-addr)")
}

// bindTuning declares what serve and dev share.
func (c *Config) bindTuning(fs *pflag.FlagSet) {
	fs.DurationVar(&c.Watch.ProgressInterval, "watch-progress-notify-interval", c.Watch.ProgressInterval, "time between progress notifications of idle watches")
	fs.Int64Var(&c.Limits.QuotaBackendBytes, "quota-backend-bytes", c.Limits.QuotaBackendBytes, "store size at which writes are refused; 0 is 2 GiB, negative no limit")
	fs.UintVar(&c.Limits.RequestBytes, "max-request-bytes", c.Limits.RequestBytes, "largest client request, in bytes, at most 32 MiB")
	fs.UintVar(&c.Limits.TxnOps, "max-txn-ops", c.Limits.TxnOps, "most operations in one transaction")
	fs.Var((*millis)(&c.Raft.Heartbeat), "heartbeat-interval", "time between a leader's heartbeats; a plain number is milliseconds")
	fs.Var((*millis)(&c.Raft.Election), "election-timeout", "time without a leader before an election, at least 5 heartbeats; a plain number is milliseconds")
	fs.Uint64Var(&c.Raft.SnapshotCount, "snapshot-count", c.Raft.SnapshotCount, "applied entries a group keeps before it may cut its log")
	fs.StringVar(&c.Compaction.Mode, "auto-compaction-mode", c.Compaction.Mode, "what --auto-compaction-retention counts: periodic (time) or revision")
	fs.StringVar(&c.Compaction.Retention, "auto-compaction-retention", c.Compaction.Retention, "history to keep: 5m or 1 (hours) if periodic, 1000 if by revision; 0 keeps all")
	c.bindLog(fs)
}

func (c *Config) bindLog(fs *pflag.FlagSet) {
	fs.StringVar(&c.Log.Level, "log-level", c.Log.Level, "debug, info, warn or error")
	fs.StringVar(&c.Log.Format, "log-format", c.Log.Format, "text or json, on stderr")
}

// millis is a duration whose plain numbers are milliseconds, as etcd's timing
// flags have it.
type millis time.Duration

// String is the form that Set reads back: whole milliseconds as a number.
func (m *millis) String() string {
	if d := time.Duration(*m); d%time.Millisecond != 0 {
		return d.String()
	}
	return strconv.FormatInt(time.Duration(*m).Milliseconds(), 10)
}

// Type is the placeholder in help texts.
func (m *millis) Type() string { return "ms" }

// Set reads "100" or "100ms".
func (m *millis) Set(s string) error {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		*m = millis(time.Duration(n) * time.Millisecond)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("want milliseconds (100) or a duration (100ms)")
	}
	*m = millis(d)
	return nil
}
