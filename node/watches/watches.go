package watches

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// errNotYet makes clients try again soon. It is not etcd's "no leader", on which
// clientv3 ends a watch: a node that has just started knows no segment yet.
var errNotYet = status.Error(codes.Unavailable, "etcdserver: this node knows no anchor of these keys yet")

// Peers gives connections of the client protocol to other nodes.
type Peers interface {
	Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error)
}

// Lines answers questions about lines of revisions; *stamps.Lines is one.
type Lines interface {
	ToldOver(ctx context.Context, lines [][]byte, since anchormesh.Revision) (stamps.Told, error)
	Raise(ctx context.Context, line []byte, to anchormesh.Revision) error
	Barrier(ctx context.Context, d *anchormesh.Descriptor, t anchormesh.Revision) (uint64, error)
}

// Engine tells when an entry is applied here; *consensus.Engine is one.
type Engine interface {
	WhenApplied(segment anchormesh.SegmentID, index uint64, done func(error))
}

// Config of Watches.
type Config struct {
	Self anchormesh.NodeID
	// ProgressInterval is how often a watch that asked for it hears about progress.
	ProgressInterval time.Duration
	Logger           *slog.Logger
	// Connected reports whether a node can be reached at once.
	Connected func(anchormesh.NodeID) bool
}

// Watches implements etcdapi.Watches.
type Watches struct {
	cfg    Config
	host   *host.Host
	engine Engine
	table  *route.Table
	lines  Lines
	peers  Peers

	ctx  context.Context // ends at Close
	stop context.CancelFunc

	mu        sync.Mutex
	closed    bool
	running   sync.WaitGroup
	frontiers map[string]*frontier // by lines
	raised    map[string]int64     // what each line is known to be at or above
}

// New returns the watches of a node. Close ends what they run.
func New(cfg Config, h *host.Host, e Engine, t *route.Table, l Lines, p Peers) *Watches {
	w := &Watches{cfg: cfg, host: h, engine: e, table: t, lines: l, peers: p, frontiers: make(map[string]*frontier), raised: make(map[string]int64)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Close ends the questions of all watches and the streams that other nodes have here,
// and waits for the former.
func (w *Watches) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.stop()
	w.running.Wait()
}

// run starts f on a goroutine of its own, unless the node stops.
func (w *Watches) run(f func(context.Context)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.running.Go(func() { f(w.ctx) })
	}
	return !w.closed
}

// frontier returns the one of some lines; over says that barriers in them come at numbers
// of others, too.
func (w *Watches) frontier(lines [][]byte, over bool) *frontier {
	key := fmt.Sprintf("%t %q", over, lines)
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.frontiers[key]
	if f == nil {
		f = newFrontier(w, lines, over)
		w.frontiers[key] = f
	}
	return f
}

// raise makes a line be at or above a revision that another one gave out.
func (w *Watches) raise(ctx context.Context, line []byte, to int64) error {
	w.mu.Lock()
	known := w.raised[string(line)]
	w.mu.Unlock()
	if known >= to {
		return nil
	}
	err := w.lines.Raise(ctx, line, to)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.raised[string(line)] = max(w.raised[string(line)], to)
	}
	return err
}

// Open implements etcdapi.Watches. The watches of a scope that was split are served
// here, wherever its segments are.
func (w *Watches) Open(_ context.Context, keys anchormesh.KeyRange) (etcdapi.WatchStream, error) {
	d, ok := w.table.Lookup(keys.Start)
	if !ok {
		return nil, errNotYet
	}
	if d.Stamped || len(d.Line) > 0 {
		return newSeveral(w), nil
	}
	r, here := w.host.Get(d.Segment)
	if !here {
		return nil, etcdapi.ErrNotAnchor
	}
	return newDirect(w, r), nil
}

// Forward implements etcdapi.Watches: the leader if known, else any voter.
func (w *Watches) Forward(_ context.Context, keys anchormesh.KeyRange) (grpc.ClientConnInterface, error) {
	d, ok := w.table.Lookup(keys.Start)
	if !ok {
		return nil, errNotYet
	}
	node, ok := w.near(d)
	if !ok {
		return nil, errNotYet
	}
	return w.peers.Conn(node)
}

// near picks another node that has a replica of a segment: the leader if known, else
// any voter.
func (w *Watches) near(d *anchormesh.Descriptor) (anchormesh.NodeID, bool) {
	if leader, ok := w.table.Leader(d.Segment); ok && leader != w.cfg.Self && w.cfg.Connected(leader) {
		return leader, true
	}
	var others []anchormesh.NodeID
	for _, node := range route.Askable(d, w.cfg.Connected) {
		if node != w.cfg.Self {
			others = append(others, node)
		}
	}
	return pick(others)
}
