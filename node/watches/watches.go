package watches

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// errNotYet makes clients try again soon. It is not etcd's "no leader", on which
// clientv3 ends a watch: a node that has just started knows no segment yet.
var errNotYet = status.Error(codes.Unavailable, "etcdserver: this node knows no anchor of these keys yet")

// Peers gives connections of the client protocol to other nodes.
type Peers interface {
	Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error)
}

// Watches implements etcdapi.Watches.
type Watches struct {
	self  anchormesh.NodeID
	host  *host.Host
	table *route.Table
	peers Peers
	// connected reports whether a node can be reached at once.
	connected func(anchormesh.NodeID) bool
}

// New returns the watches of the node self.
func New(self anchormesh.NodeID, h *host.Host, t *route.Table, p Peers, connected func(anchormesh.NodeID) bool) *Watches {
	return &Watches{self: self, host: h, table: t, peers: p, connected: connected}
}

// Open implements etcdapi.Watches.
func (w *Watches) Open(_ context.Context, keys anchormesh.KeyRange) (etcdapi.WatchStream, error) {
	d, ok := w.table.Lookup(keys.Start)
	if !ok {
		return nil, errNotYet
	}
	r, here := w.host.Get(d.Segment)
	if !here {
		return nil, etcdapi.ErrNotAnchor
	}
	return stream{r.Hub.NewStream(), w.host, r}, nil
}

// Forward implements etcdapi.Watches: the leader if known, else any voter.
func (w *Watches) Forward(_ context.Context, keys anchormesh.KeyRange) (grpc.ClientConnInterface, error) {
	d, ok := w.table.Lookup(keys.Start)
	if !ok {
		return nil, errNotYet
	}
	if leader, ok := w.table.Leader(d.Segment); ok && leader != w.self && w.connected(leader) {
		return w.peers.Conn(leader)
	}
	for _, node := range route.Askable(d, w.connected) {
		if node != w.self {
			return w.peers.Conn(node)
		}
	}
	return nil, errNotYet
}

// stream is a hub's stream that refuses keys the segment does not hold.
type stream struct {
	*watch.Stream
	host    *host.Host
	replica *host.Replica
}

// Create implements etcdapi.WatchStream.
func (s stream) Create(ctx context.Context, r watch.Request) (id, revision int64, err error) {
	if !r.Range.Empty() && !s.replica.Machine.Descriptor().Range.Covers(r.Range) {
		return 0, 0, etcdapi.ErrNotAnchor
	}
	s.host.CatchUp(ctx, s.replica) // "from now" begins behind what the client wrote here
	return s.Stream.Create(ctx, r)
}
