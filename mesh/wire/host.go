package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/multiformats/go-multistream"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/quiet"
)

// Host is this node's end of all streams.
type Host struct {
	cfg      Config
	limits   Limits
	log      *slog.Logger
	quiet    quiet.Gate
	end      *endpoint
	listener transport.Listener
	protos   *multistream.MultistreamMuxer[protocol.ID]
	clients  *clientListener
	handlers handlers
	counters counters

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.RWMutex // guards what follows; no other lock is taken under it
	closed bool
	conns  map[*conn]struct{}
	peers  map[anchormesh.NodeID]*peerState
	tasks  sync.WaitGroup
}

// handlers are set at any time and read for every frame.
type handlers struct {
	messages [ClassMax + 1]atomic.Pointer[MessageHandler]
	calls    [256]atomic.Pointer[CallHandler]
	mu       sync.RWMutex
	bulk     map[string]BulkHandler
}

// NewHost opens the port and begins to serve.
func NewHost(cfg Config) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	end, err := newEndpoint(cfg.Identity, cfg.Key, cfg.Limits)
	if err != nil {
		return nil, err
	}
	l, err := end.listen(cfg.Listen)
	if err != nil {
		end.close()
		return nil, err
	}
	h := &Host{
		cfg: cfg, limits: cfg.Limits, log: cfg.Logger, end: end, listener: l,
		protos: multistream.NewMultistreamMuxer[protocol.ID](),
		conns:  make(map[*conn]struct{}),
		peers:  make(map[anchormesh.NodeID]*peerState),
	}
	h.handlers.bulk = make(map[string]BulkHandler)
	for _, p := range []protocol.ID{protocolMessages, protocolCalls, protocolBulk, ProtocolClients} {
		h.protos.AddHandler(p, nil)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.clients = newClientListener(Addr{ID: cfg.Identity.id, Multiaddr: l.Multiaddr().String()}, cfg.Limits.ClientBacklog)
	h.spawn(h.accept)
	h.spawn(h.sweep)
	return h, nil
}

// Close ends every connection and waits for every goroutine and handler. In
// order: nothing new is accepted or dialled, connections end (callers get
// ErrUnknownOutcome or ErrClosed, streams fail), goroutines are joined.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	conns := make([]*conn, 0, len(h.conns))
	for c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()

	h.cancel()
	h.clients.Close()
	h.listener.Close()
	for _, c := range conns {
		c.close()
	}
	h.tasks.Wait()
	h.end.close()
	return nil
}

// spawn runs f in a goroutine that Close waits for; after Close it does not.
func (h *Host) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.tasks.Go(f)
	return true
}

// warn logs what a stranger can provoke, once a minute per subject.
func (h *Host) warn(subject, msg string, args ...any) {
	if h.quiet.Allow(subject) {
		h.log.Warn(msg, args...)
	}
}

// ListenAddr returns the multiaddr listened on, with the port that was picked.
func (h *Host) ListenAddr() string { return h.listener.Multiaddr().String() }

// DialableAddrs returns the multiaddrs at which others may reach the listener:
// at most limit, those of the interfaces if it listens on all.
func (h *Host) DialableAddrs(limit int) []string { return dialable(h.listener.Multiaddr(), limit) }

// HandleMessages sets the handler of a class; until then its messages are
// dropped and counted.
func (h *Host) HandleMessages(class Class, f MessageHandler) {
	h.handlers.messages[class].Store(&f)
}

// HandleCalls sets the handler of a method; until then its requests are
// answered with ErrNoHandler.
func (h *Host) HandleCalls(method uint8, f CallHandler) {
	h.handlers.calls[method].Store(&f)
}

// HandleBulk sets the handler of a bulk protocol; until then its streams are
// refused with ErrNoHandler.
func (h *Host) HandleBulk(name string, f BulkHandler) {
	h.handlers.mu.Lock()
	defer h.handlers.mu.Unlock()
	h.handlers.bulk[name] = f
}

func (h *Host) bulkHandler(name string) BulkHandler {
	h.handlers.mu.RLock()
	defer h.handlers.mu.RUnlock()
	return h.handlers.bulk[name]
}

// Clients returns the listener of the client protocol.
func (h *Host) Clients() net.Listener { return h.clients }

// Connected reports whether a connection for messages and calls is open.
func (h *Host) Connected(id anchormesh.NodeID) bool {
	p := h.lookup(id)
	return p != nil && p.up.Load()
}

// Connect makes sure of a connection to the peer, for a caller who wants to wait
// for a dial no longer than ctx. Those who want the same peer share a dial, which
// goes on without them.
func (h *Host) Connect(ctx context.Context, id anchormesh.NodeID) error {
	p, err := h.peer(id)
	if err != nil {
		return err
	}
	_, err = p.main.connect(ctx)
	return err
}

// Refresh tells the host that the directory has news of a peer: a dial that
// failed may be tried again at once.
func (h *Host) Refresh(id anchormesh.NodeID) {
	if p := h.lookup(id); p != nil {
		p.main.refresh()
		p.bulk.refresh()
	}
}

func (h *Host) lookup(id anchormesh.NodeID) *peerState {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.peers[id]
}

// peer returns the state kept of a peer, making it if there is room.
func (h *Host) peer(id anchormesh.NodeID) (*peerState, error) {
	if p := h.lookup(id); p != nil {
		return p, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.peers[id]; p != nil {
		return p, nil
	}
	switch {
	case h.closed:
		return nil, ErrClosed
	case id == h.cfg.Identity.id:
		return nil, fmt.Errorf("%w: a node does not send to itself", ErrUnreachable)
	case len(h.peers) >= h.limits.Peers:
		return nil, fmt.Errorf("%w: state of %d peers is kept already", ErrUnreachable, len(h.peers))
	}
	pid, err := peer.Decode(string(id))
	if err != nil {
		return nil, fmt.Errorf("%w: %q is no node ID", ErrUnreachable, id)
	}
	p := newPeerState(h, id, pid)
	h.peers[id] = p
	return p, nil
}

// accept takes connections others made.
func (h *Host) accept() {
	for {
		tc, err := h.listener.Accept()
		if err != nil {
			if h.ctx.Err() == nil && !errors.Is(err, transport.ErrListenerClosed) {
				h.cfg.Logger.Error("the peer port is gone, nobody can connect any more", "error", err)
			}
			return
		}
		h.counters.accepted.Add(1)
		c := &conn{host: h, tc: tc, id: anchormesh.NodeID(tc.RemotePeer().String()), made: time.Now()}
		if !h.adopt(c) {
			tc.Close()
		}
	}
}

// adopt registers a connection and serves its streams until it ends.
func (h *Host) adopt(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.conns[c] = struct{}{}
	h.tasks.Go(c.serve)
	return true
}

func (h *Host) disown(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

// sweep does the rare chores: spare connections, forgotten peers.
func (h *Host) sweep() {
	every := time.NewTicker(h.limits.KeepAlive)
	defer every.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-every.C:
			h.sweepOnce(now)
		}
	}
}

func (h *Host) sweepOnce(now time.Time) {
	h.mu.Lock()
	peers := make([]*peerState, 0, len(h.peers))
	for _, p := range h.peers {
		peers = append(peers, p)
	}
	h.mu.Unlock()
	for _, p := range peers {
		p.sweep(now)
		if _, known := h.cfg.Directory.PeerAddrs(p.id); !known && p.idle() {
			h.forget(p)
		}
	}
}

func (h *Host) forget(p *peerState) {
	h.mu.Lock()
	delete(h.peers, p.id)
	h.mu.Unlock()
	p.stop()
}

// foreign reports a node of another mesh under the same key.
func (h *Host) foreign(other anchormesh.MeshID, from anchormesh.NodeID) {
	h.counters.foreign.Add(1)
	if !h.quiet.Allow("mesh " + other.String()) {
		return
	}
	h.cfg.Logger.Warn("refused a node of another mesh that uses this mesh's key", "their_mesh", other, "peer", from)
	if f := h.cfg.Events.ForeignMesh; f != nil {
		f(other, from)
	}
}

// Peers returns the IDs of the peers with an open connection, sorted.
func (h *Host) Peers() []anchormesh.NodeID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []anchormesh.NodeID
	for id, p := range h.peers {
		if p.up.Load() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
