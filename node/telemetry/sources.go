package telemetry

import (
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// Sources are read at every scrape. A nil one leaves its metrics at zero. Each is
// called several times per scrape and must be cheap.
type Sources struct {
	Log     func() wal.Stats
	Wire    func() wire.Stats
	Watches func() watch.Stats // summed over the hubs of this node
	Members func() Members
	Stores  func() Stores
	Groups  func() consensus.Load
	Scopes  func() Scopes
}

// Scopes sums up what scopes refuse on this node.
type Scopes struct {
	Refused, Full int64  // commands, as they were applied
	Shed          uint64 // requests that came too fast
	Tight         int    // segments led here whose quota is nearly used up
	Forgetful     int    // replicas here that may have forgotten what they acknowledged
}

// Members counts the nodes of the newest view by state, this one included.
type Members struct{ Alive, Left, Dead int }

// Stores sums up the stores of this node.
type Stores struct {
	SizeBytes    int64 // of the files
	InUseBytes   int64 // of them holding data
	PendingBytes int64 // applied, not yet committed
	QuotaBytes   int64 // writes are refused above
	Leases       int64
}

// level is one figure of a source.
type level[S any] struct {
	name, help string
	of         func(*S) float64
}

// register makes a counter of every level whose name ends in _total and a gauge
// of every other.
func register[S any](c *catalog, source func() S, levels []level[S]) {
	for _, l := range levels {
		read := func() float64 {
			if source == nil {
				return 0
			}
			s := source()
			return l.of(&s)
		}
		if isTotal(l.name) {
			c.counterFunc(l.name, l.help, read)
		} else {
			c.gaugeFunc(l.name, l.help, read)
		}
	}
}

func isTotal(name string) bool {
	const suffix = "_total"
	return len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix
}

func (c *catalog) sources(src *Sources) {
	register(c, src.Log, logLevels)
	register(c, src.Wire, wireLevels)
	register(c, src.Watches, watchLevels)
	register(c, src.Members, memberLevels)
	register(c, src.Stores, storeLevels)
	register(c, src.Groups, groupLevels)
	register(c, src.Scopes, scopeLevels)
}

var logLevels = []level[wal.Stats]{
	{"log_entries_total", "Entries appended to the write-ahead log.", func(s *wal.Stats) float64 { return float64(s.Entries) }},
	{"log_written_bytes_total", "Bytes written to the write-ahead log.", func(s *wal.Stats) float64 { return float64(s.BytesWritten) }},
	{"log_carried_bytes_total", "Of the written bytes, those that carried old records forward so that a file could go.", func(s *wal.Stats) float64 { return float64(s.BytesCarried) }},
	{"log_rotation_waits_total", "Times a batch waited for the next log file to be prepared.", func(s *wal.Stats) float64 { return float64(s.RotationWaits) }},
	{"log_cache_misses_total", "Entries read back from log files because memory no longer had them.", func(s *wal.Stats) float64 { return float64(s.CacheMisses) }},
	{"log_files", "Log files on disk.", func(s *wal.Stats) float64 { return float64(s.Files) }},
	{"log_disk_bytes", "Size of the log files.", func(s *wal.Stats) float64 { return float64(s.DiskBytes) }},
	{"log_live_bytes", "Bytes in log files that some group still needs.", func(s *wal.Stats) float64 { return float64(s.LiveBytes) }},
	{"log_cached_bytes", "Recent entries kept in memory.", func(s *wal.Stats) float64 { return float64(s.CachedBytes) }},
}

var wireLevels = []level[wire.Stats]{
	{"mesh_connections", "Open libp2p connections.", func(s *wire.Stats) float64 { return float64(s.Conns) }},
	{"mesh_peers_connected", "Peers with an open connection.", func(s *wire.Stats) float64 { return float64(s.Up) }},
	{"mesh_connections_accepted_total", "Connections that others made.", func(s *wire.Stats) float64 { return float64(s.Accepted) }},
	{"mesh_connections_dialled_total", "Connections that this node made.", func(s *wire.Stats) float64 { return float64(s.Dialled) }},
	{"mesh_dials_failed_total", "Connections that this node could not make.", func(s *wire.Stats) float64 { return float64(s.DialFailed) }},
	{"mesh_foreign_streams_total", "Streams of nodes of another mesh.", func(s *wire.Stats) float64 { return float64(s.Foreign) }},
	{"mesh_garbage_streams_total", "Streams ended because the peer sent what no peer sends.", func(s *wire.Stats) float64 { return float64(s.Garbage) }},
	{"mesh_refused_streams_total", "Streams refused here, and refusals by peers.", func(s *wire.Stats) float64 { return float64(s.Refused) }},
	{"mesh_messages_sent_total", "One-way messages to peers.", func(s *wire.Stats) float64 { return float64(s.MessagesSent) }},
	{"mesh_messages_received_total", "One-way messages from peers.", func(s *wire.Stats) float64 { return float64(s.MessagesReceived) }},
	{"mesh_messages_dropped_total", "One-way messages dropped: queue full or peer out of reach. Raft sends again.", func(s *wire.Stats) float64 { return float64(s.MessagesDropped) }},
	{"mesh_calls_total", "Requests to peers: forwarded requests of clients and control calls.", func(s *wire.Stats) float64 { return float64(s.Calls) }},
	{"mesh_calls_served_total", "Requests from peers.", func(s *wire.Stats) float64 { return float64(s.Served) }},
	{"mesh_calls_overloaded_total", "Requests from peers refused because too many were waiting.", func(s *wire.Stats) float64 { return float64(s.Overloaded) }},
}

var watchLevels = []level[watch.Stats]{
	{"watch_watchers", "Watches served by replicas here.", func(s *watch.Stats) float64 { return float64(s.Watches) }},
	{"watch_streams", "Streams that carry them.", func(s *watch.Stats) float64 { return float64(s.Streams) }},
	{"watch_slow_watchers", "Watches that are behind and fed from history.", func(s *watch.Stats) float64 { return float64(s.Lagging) }},
	{"watch_queue_bytes", "Events published and not handed out.", func(s *watch.Stats) float64 { return float64(s.QueueBytes) }},
	{"watch_queue_drops_total", "Times the event queue was full and its watches went on from history.", func(s *watch.Stats) float64 { return float64(s.QueueDrops) }},
}

var memberLevels = []level[Members]{
	{"mesh_nodes_alive", "Nodes in this node's view, itself included.", func(m *Members) float64 { return float64(m.Alive) }},
	{"mesh_nodes_left", "Nodes that said goodbye.", func(m *Members) float64 { return float64(m.Left) }},
	{"mesh_nodes_dead", "Nodes that do not answer.", func(m *Members) float64 { return float64(m.Dead) }},
}

var storeLevels = []level[Stores]{
	{"store_size_bytes", "Size of the store files.", func(s *Stores) float64 { return float64(s.SizeBytes) }},
	{"store_in_use_bytes", "Bytes of the store files that hold data.", func(s *Stores) float64 { return float64(s.InUseBytes) }},
	{"store_pending_bytes", "Bytes applied in memory and not yet committed to a store.", func(s *Stores) float64 { return float64(s.PendingBytes) }},
	{"store_quota_bytes", "Size at which writes are refused (--quota-backend-bytes).", func(s *Stores) float64 { return float64(s.QuotaBytes) }},
	{"leases", "Leases of the segments led here.", func(s *Stores) float64 { return float64(s.Leases) }},
}

var scopeLevels = []level[Scopes]{
	{"scope_refusals_total", "Writes that the rules of a scope refused, by the replicas here.", func(s *Scopes) float64 { return float64(s.Refused) }},
	{"scope_quota_refusals_total", "Writes that a scope's quota had no room for, by the replicas here.", func(s *Scopes) float64 { return float64(s.Full) }},
	{"scope_requests_shed_total", "Requests refused here because their scope had more than its requests per second.", func(s *Scopes) float64 { return float64(s.Shed) }},
	{"scope_forgetful_replicas", "Replicas here that may have forgotten what they acknowledged in a light scope, and give way to new ones.", func(s *Scopes) float64 { return float64(s.Forgetful) }},
	{"scope_segments_nearly_full", "Segments led here that use more than nine tenths of their share of a quota.", func(s *Scopes) float64 { return float64(s.Tight) }},
}

var groupLevels = []level[consensus.Load]{
	{"consensus_groups", "Anchor groups with a replica here.", func(l *consensus.Load) float64 { return float64(l.Groups) }},
	{"consensus_groups_asleep", "Of these, groups to which nothing happens: they cost no messages.", func(l *consensus.Load) float64 { return float64(l.Asleep) }},
}
