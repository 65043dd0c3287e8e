package txns

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 10

// Limits and times.
const (
	// AttemptsMax is how many attempts run on a node, those included that only have to
	// be finished.
	AttemptsMax = 4096
	// RecoveriesMax is how many transactions of others a node ends at once.
	RecoveriesMax = 64
	// RecoverAfter is how long a transaction may be prepared before its segment's leader
	// ends it.
	RecoverAfter = time.Second
	// ResumeAfter is how long a decision may be kept before its segment's leader
	// finishes it. Its coordinator is mostly at it.
	ResumeAfter = 5 * time.Second

	tick       = 250 * time.Millisecond
	retryWait  = 10 * time.Millisecond // between two tries of a request that took effect nowhere
	tellWait   = 100 * time.Millisecond
	numberWait = 300 * time.Millisecond
	finishMax  = 10 * time.Second // of what a coordinator or a recoverer does behind the answer
	serveMax   = 10 * time.Second // of a request whose sender named no deadline
	restampMax = 8                // stamps that a prepare may lose to later ones
)

// Engine is what this package needs of consensus.Engine.
type Engine interface {
	Propose(segment anchormesh.SegmentID, gen anchormesh.Generation, payload []byte, done func(consensus.Result))
	ReadIndex(segment anchormesh.SegmentID, done func(index uint64, err error))
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
	Seek(segment anchormesh.SegmentID)
}

// Lines is what it needs of stamps.Lines.
type Lines interface {
	Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result))
	Now(ctx context.Context, scope []byte) (anchormesh.Revision, error)
	NumberOver(ctx context.Context, lines [][]byte) (anchormesh.Revision, error)
	Barrier(ctx context.Context, d *anchormesh.Descriptor, t anchormesh.Revision) (uint64, error)
}

// Caller sends requests to other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Config of Txns.
type Config struct {
	Self anchormesh.NodeID
	// Admit refuses a command that would grow a replica's store beyond its quota.
	Admit  func(r *host.Replica, d *anchormesh.Descriptor, command []byte) error
	Logger *slog.Logger
}

// Txns runs the transactions of a node.
type Txns struct {
	cfg    Config
	host   *host.Host
	engine Engine
	lines  Lines
	table  *route.Table
	caller Caller
	start  time.Time

	life     context.Context // of the node
	end      context.CancelFunc
	attempts chan struct{}
	running  sync.WaitGroup

	mu    sync.RWMutex
	gates map[anchormesh.SegmentID]*gate

	watched watched
}

// New returns transactions that can be run at once; Run ends what others left behind.
func New(cfg Config, h *host.Host, e Engine, l Lines, t *route.Table, c Caller) *Txns {
	x := &Txns{
		cfg: cfg, host: h, engine: e, lines: l, table: t, caller: c, start: time.Now(),
		attempts: make(chan struct{}, AttemptsMax), gates: make(map[anchormesh.SegmentID]*gate),
		watched: newWatched(),
	}
	x.life, x.end = context.WithCancel(context.Background())
	return x
}

func (x *Txns) now() time.Duration { return time.Since(x.start) }

func (x *Txns) gate(segment anchormesh.SegmentID) *gate {
	x.mu.RLock()
	g := x.gates[segment]
	x.mu.RUnlock()
	if g != nil {
		return g
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if g = x.gates[segment]; g == nil {
		g = newGate()
		x.gates[segment] = g
	}
	return g
}

// Propose puts an ordinary write that takes a stamp into the log of a segment that this
// node leads: stamps.Lines.Propose, unless a transaction holds its keys. Then the error
// is keyspace.ErrLocked, and it took effect nowhere.
func (x *Txns) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	r, here := x.host.Get(d.Segment)
	if !here {
		done(consensus.Result{Err: consensus.ErrNoGroup})
		return
	}
	g := x.gate(d.Segment)
	ticket, err := g.enter(r.Machine.Space(), command)
	if err != nil {
		done(consensus.Result{Err: err})
		return
	}
	x.lines.Propose(d, command, func(res consensus.Result) {
		g.leave(ticket)
		done(res)
	})
}

// spans says which segments hold the keys of a request, or nil if that is not known
// now.
func (x *Txns) spans(keys anchormesh.KeyRange) (list []commit.Segment, parts []*anchormesh.Descriptor) {
	parts, whole := x.table.Covering(keys)
	if !whole || len(parts) == 0 {
		return nil, nil
	}
	for _, d := range parts {
		list = append(list, commit.Segment{Range: d.Range})
	}
	return list, parts
}

func (x *Txns) header(home *anchormesh.Descriptor, at anchormesh.Revision) codec.Header {
	h := codec.Header{ClusterID: uint64(home.Mesh), MemberID: x.cfg.Self.MemberID(), Revision: at}
	if st, ok := x.engine.Status(home.Segment); ok {
		h.RaftTerm = st.Term
	}
	return h
}

// command is a request's body as a command of the log.
func command(kind byte, body []byte) []byte {
	return keyspace.AppendCommand(make([]byte, 0, 1+len(body)), opOf(kind), body)
}
