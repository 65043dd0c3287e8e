package mesh

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/quiet"
	"github.com/anchormesh/anchormesh/mesh/gossip"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/view"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// The words of the mesh, so that most users need only this package.
type (
	Key            = meshkey.Key
	Member         = view.Member
	View           = view.View
	State          = view.State
	Class          = wire.Class
	Responder      = wire.Responder
	RemoteError    = wire.RemoteError
	MessageHandler = wire.MessageHandler
	CallHandler    = wire.CallHandler
	BulkHandler    = wire.BulkHandler
	BulkStream     = wire.BulkStream
	NewsHandler    = gossip.NewsHandler
)

// States of a member.
const (
	Alive = view.Alive
	Left  = view.Left
	Dead  = view.Dead
)

// What sending may fail with; see package wire.
var (
	ErrUnreachable    = wire.ErrUnreachable
	ErrUnknownOutcome = wire.ErrUnknownOutcome
	ErrOverloaded     = wire.ErrOverloaded
	ErrTooLarge       = wire.ErrTooLarge
	ErrClosed         = wire.ErrClosed
	ErrNoHandler      = wire.ErrNoHandler
	ErrRefused        = wire.ErrRefused
	ErrNewsTooLarge   = gossip.ErrNewsTooLarge
)

// ErrMeshID is returned when a node that belongs to a mesh is told another.
var ErrMeshID = errors.New("this node belongs to another mesh already")

// autoAddrsMax bounds the interface addresses advertised when none were
// configured: they must fit into the node record.
const autoAddrsMax = 3

// Mesh is this node's place in the mesh.
type Mesh struct {
	cfg    Config
	id     anchormesh.NodeID
	gossip *gossip.Gossip
	host   *wire.Host
	known  *known
	noise  quiet.Gate
	done   chan struct{} // closed by Close
	tasks  sync.WaitGroup

	meshID atomic.Uint64
	idMu   sync.Mutex // one change of the mesh ID at a time
	view   atomic.Pointer[View]

	mu          sync.Mutex // guards what follows
	closed      bool
	subscribers []chan View
}

// Start loads or makes the node's identity, opens the peer and gossip ports and
// begins to join. It returns when the ports are open, not when others are met.
// ctx bounds only the start. Handlers may be set afterwards: what comes before
// them is dropped (messages) or refused (calls, bulk).
func Start(ctx context.Context, cfg Config) (*Mesh, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	id, err := wire.LoadIdentity(cfg.FS, cfg.DataDir)
	if err != nil {
		return nil, err
	}
	epochs, err := loadEpochs(cfg.FS, cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = id.NodeID().Short()
	}
	m := &Mesh{cfg: cfg, id: id.NodeID(), done: make(chan struct{})}
	m.known = loadKnown(cfg.FS, cfg.DataDir, m.id, cfg.Members.KeepGone, cfg.Logger)
	m.meshID.Store(uint64(cfg.Mesh))
	m.view.Store(&View{})
	boot := drawBoot()
	if m.host, err = wire.NewHost(wire.Config{
		Identity: id, Key: cfg.Key, Boot: boot, Listen: cfg.PeerAddr, Directory: directory{m},
		Logger: cfg.Logger, Limits: cfg.Wire,
		Events: wire.Events{PeerUp: cfg.Events.PeerUp, PeerDown: cfg.Events.PeerDown, ForeignMesh: cfg.Events.ForeignMesh},
	}); err != nil {
		return nil, err
	}
	advertise := cfg.AdvertisePeer
	if len(advertise) == 0 {
		advertise = m.host.DialableAddrs(autoAddrsMax)
	}
	if m.gossip, err = gossip.Start(ctx, gossip.Config{
		Key: cfg.Key, Identity: id, NodeID: wire.NodeIDOf, Epochs: epochs,
		Self: view.Record{
			Name: cfg.Name, Zone: cfg.Zone, Version: cfg.Version, PeerAddrs: advertise,
			ClientURLs: cfg.ClientURLs, Mesh: cfg.Mesh, Boot: boot,
		},
		Listen: cfg.GossipAddr, Advertise: cfg.AdvertiseGossip, Join: cfg.Join, Known: m.known.addrs,
		Logger: cfg.Logger, Pace: cfg.Gossip, Members: cfg.Members,
		Events: gossip.Events{View: m.publish, ForeignMesh: cfg.Events.ForeignMesh, IdentityInUse: cfg.Events.IdentityInUse},
	}); err != nil {
		m.host.Close()
		return nil, err
	}
	m.publish(m.gossip.View())
	m.tasks.Go(func() { m.remember(m.done) })
	return m, nil
}

// drawBoot names this process among those of the node, past and future.
func drawBoot() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}

// Close leaves the mesh and releases everything; it may be called twice. In
// order, because the later needs the earlier: what others said of themselves is
// kept for the next start; gossip tells the others that this
// node goes, so that they stop dialling; the wire ends what is under way;
// subscribers' channels close.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	close(m.done)
	m.tasks.Wait()
	m.rememberNow(time.Now())
	err := errors.Join(m.gossip.Close(), m.host.Close())
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.subscribers {
		close(s)
	}
	m.subscribers = nil
	return err
}

// ID returns this node's ID.
func (m *Mesh) ID() anchormesh.NodeID { return m.id }

// Self returns this node as others shall see it.
func (m *Mesh) Self() Member {
	r := m.gossip.Self()
	self, _ := m.View().Get(m.id)
	return Member{
		ID: m.id, Name: r.Name, Zone: r.Zone, Version: r.Version, PeerAddrs: r.PeerAddrs, ClientURLs: r.ClientURLs,
		Mesh: r.Mesh, Epoch: r.Epoch, Boot: r.Boot, State: Alive, Since: self.Since,
	}
}

// GossipAddr returns the host:port others gossip to: a join address for them.
func (m *Mesh) GossipAddr() string { return m.gossip.Addr() }

// PeerListenAddr returns the multiaddr listened on, with the port picked.
func (m *Mesh) PeerListenAddr() string { return m.host.ListenAddr() }

// View returns the newest published view. It holds this node, too.
func (m *Mesh) View() View { return *m.view.Load() }

// Members returns the members of the newest published view, sorted by ID.
func (m *Mesh) Members() []Member { return m.View().Members() }

// Subscribe returns a channel that holds the newest view and gets one after
// each coalesced change; views that were not taken are replaced by newer ones.
// Close closes it. Subscribers are for the life of the mesh.
func (m *Mesh) Subscribe() <-chan View {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := make(chan View, 1)
	if m.closed {
		close(s)
		return s
	}
	s <- m.View()
	m.subscribers = append(m.subscribers, s)
	return s
}

// publish takes a view from gossip.
func (m *Mesh) publish(v View) {
	m.mu.Lock()
	old := m.View()
	if m.closed || v.Version() < old.Version() {
		m.mu.Unlock()
		return
	}
	m.view.Store(&v)
	for _, s := range m.subscribers {
		select {
		case <-s:
		default:
		}
		s <- v // room was made, and nobody else sends
	}
	m.mu.Unlock()
	m.refresh(old, v)
}

// refresh ends the pause before peers with news are dialled again.
func (m *Mesh) refresh(old, v View) {
	for _, mem := range v.Members() {
		was, ok := old.Get(mem.ID)
		if !ok || was.Epoch != mem.Epoch || was.State != mem.State && mem.State == Alive {
			m.host.Refresh(mem.ID)
		}
	}
}

// MeshIDs returns the mesh IDs that verified records under this key name,
// sorted, this node's own included; more than one is an operator's mistake.
func (m *Mesh) MeshIDs() []anchormesh.MeshID { return m.gossip.Meshes() }

// MeshID returns the mesh this node belongs to, zero if none yet.
func (m *Mesh) MeshID() anchormesh.MeshID { return anchormesh.MeshID(m.meshID.Load()) }

// SetMeshID puts the mesh ID (genesis or adoption) into this node's record. A
// node that belongs to a mesh stays there: ErrMeshID.
func (m *Mesh) SetMeshID(id anchormesh.MeshID) error {
	m.idMu.Lock()
	defer m.idMu.Unlock()
	switch m.MeshID() {
	case id:
		return nil
	case 0:
	default:
		return ErrMeshID
	}
	if err := m.gossip.Update(func(r *view.Record) { r.Mesh = id }); err != nil {
		return err
	}
	m.meshID.Store(uint64(id))
	return nil
}

// SetClientURLs changes the client URLs in this node's record.
func (m *Mesh) SetClientURLs(urls ...string) error {
	return m.gossip.Update(func(r *view.Record) { r.ClientURLs = slices.Clone(urls) })
}

// Tell gossips news of this node, in place of those it told before; see package
// gossip for how much and how often.
func (m *Mesh) Tell(news []byte) error { return m.gossip.Tell(news) }

// HandleNews sets who judges the news that others tell.
func (m *Mesh) HandleNews(h NewsHandler) { m.gossip.HandleNews(h) }

// Send queues a one-way message, copying the parts, and never blocks. False
// means dropped: the queue is full or the peer cannot be reached now. True
// promises nothing.
func (m *Mesh) Send(to anchormesh.NodeID, class Class, parts ...[]byte) bool {
	return m.host.Send(to, class, parts...)
}

// HandleMessages sets the handler of a class.
func (m *Mesh) HandleMessages(class Class, h MessageHandler) { m.host.HandleMessages(class, h) }

// Call sends a request, copying the parts, and waits for the answer, which
// belongs to the caller. See wire.Host.Call for its errors.
func (m *Mesh) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	return m.host.Call(ctx, to, method, parts...)
}

// HandleCalls sets the handler of a method.
func (m *Mesh) HandleCalls(method uint8, h CallHandler) { m.host.HandleCalls(method, h) }

// OpenBulk opens a byte stream to a peer's handler of protocol. The caller must
// Close or Reset it.
func (m *Mesh) OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (BulkStream, error) {
	return m.host.OpenBulk(ctx, to, protocol)
}

// HandleBulk sets the handler of a bulk protocol.
func (m *Mesh) HandleBulk(protocol string, h BulkHandler) { m.host.HandleBulk(protocol, h) }

// Connected reports whether a connection to the peer is open now. One that was
// opened is made again by itself as long as the peer has not left.
func (m *Mesh) Connected(id anchormesh.NodeID) bool { return m.host.Connected(id) }

// Connect makes sure of a connection to the peer, for a caller who wants to wait
// for a dial no longer than ctx.
func (m *Mesh) Connect(ctx context.Context, id anchormesh.NodeID) error {
	return m.host.Connect(ctx, id)
}

// ListenClients returns the listener of the client protocol. There is one.
func (m *Mesh) ListenClients() net.Listener { return m.host.Clients() }

// DialClient opens a connection of the client protocol to another node.
func (m *Mesh) DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error) {
	return m.host.DialClient(ctx, to)
}

// Stats are counters and gauges of both halves.
type Stats struct {
	Gossip gossip.Stats
	Wire   wire.Stats
}

// Stats returns counters since the start.
func (m *Mesh) Stats() Stats { return Stats{Gossip: m.gossip.Stats(), Wire: m.host.Stats()} }

// directory answers the wire from the view. Members that left are not dialled;
// dead ones are, since gossip may be wrong and the wire learns it first.
type directory struct{ m *Mesh }

func (d directory) PeerAddrs(id anchormesh.NodeID) ([]string, bool) {
	mem, ok := d.m.View().Get(id)
	if !ok || mem.State == Left {
		return nil, false
	}
	return mem.PeerAddrs, true
}

func (d directory) MeshID() anchormesh.MeshID { return d.m.MeshID() }
