package gossip

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/quiet"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// keyUse names the gossip key among those derived from the mesh key.
const keyUse = "gossip"

const (
	choresEvery = time.Second // also the pace at which rivals are outbid
	reapChores  = 60          // chores between two searches for members gone too long
	eventsMax   = 16          // events that wait to be told; further ones are dropped
)

// Gossip is this node's part in the gossip.
type Gossip struct {
	cfg    Config
	log    *slog.Logger
	quiet  quiet.Gate
	counts counters
	news   news
	ml     *memberlist.Memberlist
	port   int

	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	close  sync.Once

	updating sync.Mutex // one change of the own record at a time

	mu sync.Mutex // guards state; memberlist's lock is taken before it, never under it
	state

	changed chan struct{} // capacity 1
	view    atomic.Pointer[view.View]
}

// state is what the goroutines share under the lock.
type state struct {
	table     *view.Table
	coalescer view.Coalescer
	self      view.Record
	meta      []byte                       // self, encoded
	addrs     map[anchormesh.NodeID]string // where members gossip
	rivals    map[uint64]uint64            // highest epoch seen, of other boots of this node
	outbid    uint64                       // a rival's epoch that must be exceeded; zero for none
	events    []func()                     // to be told by the publishing goroutine
}

type counters struct {
	undecrypted, malformed, unsigned, misnamed, foreign, rival, conflicts atomic.Uint64
}

// Stats are counters since the start, and gauges of now.
type Stats struct {
	Undecrypted uint64 // packets and exchanges under another key, or garbage
	Malformed   uint64 // records that could not be read
	Unsigned    uint64 // records with a wrong signature
	Misnamed    uint64 // records under another node's name
	Foreign     uint64 // records of another mesh
	Rival       uint64 // records of this node's identity made by another process
	Conflicts   uint64 // one process of a node at two addresses
	Records     view.Counts
	Members     int // of the newest view, any state
	Alive       int // likewise, alive
	Health      int // memberlist's own doubt of this node's timeliness; 0 is good
}

// Start opens the port and begins to join. It returns when the port is open.
func Start(ctx context.Context, cfg Config) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		cfg: cfg, log: cfg.Logger,
		state: state{
			table:     view.NewTable(cfg.Self.Mesh, cfg.Members),
			coalescer: view.Coalescer{Quantum: cfg.Pace.Quantum, Quiescence: cfg.Pace.Quiescence},
			self:      cfg.Self,
			addrs:     make(map[anchormesh.NodeID]string),
			rivals:    make(map[uint64]uint64),
		},
		changed: make(chan struct{}, 1),
	}
	g.self.ID = cfg.Identity.NodeID()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.renew(0, func(*view.Record) {}); err != nil {
		g.cancel()
		return nil, err
	}
	if err := g.open(ctx); err != nil {
		g.cancel()
		return nil, err
	}
	first := g.table.View()
	g.view.Store(&first)
	g.tasks.Go(g.publish)
	g.tasks.Go(g.join)
	return g, nil
}

// open starts memberlist.
func (g *Gossip) open(ctx context.Context) error {
	logger := (&memberlistLog{log: g.log, quiet: &g.quiet, undecrypted: func() { g.counts.undecrypted.Add(1) }}).logger()
	tr, err := newTransport(g.ctx, g.cfg.Listen, logger)
	if err != nil {
		return err
	}
	g.port = tr.GetAutoBindPort()
	ip, port, err := advertised(ctx, g.cfg.Advertise, g.cfg.Listen, g.port)
	if err != nil {
		tr.Shutdown()
		return err
	}
	key := g.cfg.Key.Derive(keyUse)
	pace := g.cfg.Pace
	mc := memberlist.DefaultLANConfig()
	mc.Name = memberName(g.self.ID, g.self.Boot)
	mc.Transport = tr
	mc.BindPort = g.port
	mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), port
	mc.SecretKey = key[:]
	mc.Logger, mc.LogOutput = logger, nil
	mc.ProbeInterval, mc.ProbeTimeout, mc.SuspicionMult = pace.Probe, pace.ProbeTimeout, pace.Suspicion
	mc.GossipInterval, mc.PushPullInterval, mc.TCPTimeout = pace.Gossip, pace.PushPull, pace.Stream
	// A compressor for each packet of 100 bytes is the larger part of what a node at rest
	// allocates, and keys and signatures do not get smaller. What others compress is read.
	mc.EnableCompression = false
	mc.DeadNodeReclaimTime = time.Nanosecond // an address that changed under a living process
	d := delegate{g}
	mc.Delegate, mc.Events, mc.Alive, mc.Conflict = d, d, d, d
	// memberlist asks the system about its own addresses and warns on stderr's
	// behalf; both go to the logger above.
	if g.ml, err = memberlist.Create(mc); err != nil {
		tr.Shutdown()
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// Addr returns the host:port others gossip to.
func (g *Gossip) Addr() string { return g.ml.LocalNode().Address() }

// ListenPort returns the port listened on, for UDP and TCP.
func (g *Gossip) ListenPort() int { return g.port }

// Addrs returns where the members known now gossip, this node aside.
func (g *Gossip) Addrs() map[anchormesh.NodeID]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.addrs)
}

// View returns the newest published view.
func (g *Gossip) View() view.View {
	if v := g.view.Load(); v != nil {
		return *v
	}
	return view.View{}
}

// Self returns this node's own record.
func (g *Gossip) Self() view.Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self
}

// Meshes returns the mesh IDs that verified records name, sorted; its own, too.
func (g *Gossip) Meshes() []anchormesh.MeshID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.Meshes()
}

// Update changes this node's record and spreads it. What does not fit is
// refused, and nothing changes.
func (g *Gossip) Update(change func(*view.Record)) error {
	if err := g.renew(0, change); err != nil {
		return err
	}
	g.spread()
	return nil
}

// renew makes the next record of this node.
func (g *Gossip) renew(atLeast uint64, change func(*view.Record)) error {
	g.updating.Lock()
	defer g.updating.Unlock()
	g.mu.Lock()
	rec := g.self
	g.mu.Unlock()
	rec.PeerAddrs, rec.ClientURLs = slices.Clone(rec.PeerAddrs), slices.Clone(rec.ClientURLs)
	change(&rec)
	var err error
	if rec.Epoch, err = g.cfg.Epochs.Next(max(atLeast, rec.Epoch+1)); err != nil {
		return fmt.Errorf("the epoch of the node record: %w", err)
	}
	meta, err := encode(&rec, g.cfg.Identity)
	if err != nil {
		return err
	}
	rec.Raw = string(meta)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.self, g.meta = rec, meta
	g.table.SetMesh(rec.Mesh)
	g.table.Merge(time.Now(), rec)
	g.noteLocked()
	return nil
}

// spread hands the record to memberlist, which gossips it. It does not wait
// until that is done.
func (g *Gossip) spread() { g.ml.UpdateNode(time.Nanosecond) } // the error only says that it did not wait

// noteLocked has the table's change published in time.
func (g *Gossip) noteLocked() {
	if g.table.Dirty() {
		g.coalescer.Note(time.Now())
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// tell has an event told by the publishing goroutine.
func (g *Gossip) tell(event func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.events) < eventsMax {
		g.events = append(g.events, event)
	}
	g.noteLocked()
}

// publish is the goroutine that publishes views, tells events and outbids
// rivals.
func (g *Gossip) publish() {
	due := time.NewTimer(0)
	defer due.Stop()
	chores := time.NewTicker(choresEvery)
	defer chores.Stop()
	for n := 1; ; {
		select {
		case <-g.ctx.Done():
			return
		case <-g.changed:
		case <-due.C:
		case <-chores.C:
			g.outbidRival()
			if n++; n%reapChores == 0 {
				g.reap()
			}
		}
		g.publishDue(due)
	}
}

func (g *Gossip) reap() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.table.Reap(time.Now())
	g.noteLocked()
}

func (g *Gossip) publishDue(due *time.Timer) {
	g.mu.Lock()
	now := time.Now()
	var out *view.View
	if g.coalescer.Flush(now) {
		v := g.table.View()
		out = &v
		g.forgetAddrsLocked(v)
	}
	if at, pending := g.coalescer.Due(); pending {
		due.Reset(at.Sub(now))
	}
	events := g.events
	g.events = nil
	g.mu.Unlock()
	for _, tell := range events {
		tell()
	}
	if out == nil {
		return
	}
	g.view.Store(out)
	if f := g.cfg.Events.View; f != nil {
		f(*out)
	}
}

func (g *Gossip) forgetAddrsLocked(v view.View) {
	for id := range g.addrs {
		if _, ok := v.Get(id); !ok {
			delete(g.addrs, id)
		}
	}
}

// Close says that this node goes, then stops. In order: a last record tells
// every member directly, memberlist spreads the departure, the port closes, the
// goroutines are joined. A departure nobody heard looks like a death.
func (g *Gossip) Close() error {
	g.close.Do(func() {
		if err := g.renew(0, func(r *view.Record) { r.Left = true }); err == nil {
			g.mu.Lock()
			last := g.meta
			g.mu.Unlock()
			for _, n := range g.ml.Members() {
				if n.Name != g.ml.LocalNode().Name {
					g.ml.SendBestEffort(n, last)
				}
			}
		}
		if err := g.ml.Leave(g.cfg.Pace.Leave); err != nil {
			g.log.Debug("leaving the gossip", "error", err)
		}
		g.cancel()
		g.ml.Shutdown()
		g.tasks.Wait()
	})
	return nil
}

// Stats returns the counters.
func (g *Gossip) Stats() Stats {
	c, v := &g.counts, g.View()
	s := Stats{
		Undecrypted: c.undecrypted.Load(), Malformed: c.malformed.Load(), Unsigned: c.unsigned.Load(),
		Misnamed: c.misnamed.Load(), Foreign: c.foreign.Load(), Rival: c.rival.Load(), Conflicts: c.conflicts.Load(),
		Members: v.Len(), Alive: len(v.Alive()), Health: g.ml.GetHealthScore(),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Records = g.table.Counts()
	return s
}

var _ io.Closer = (*Gossip)(nil)

func hostPort(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}
