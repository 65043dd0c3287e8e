package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

// ErrClientAddr is returned for an address a ClientHost cannot dial.
var ErrClientAddr = errors.New("want a multiaddr such as /ip4/192.0.2.1/tcp/2390/p2p/12D3KooW...")

// ClientHost dials the client protocol from outside the mesh: it holds the mesh
// key and an identity of its own, does not gossip, and serves nothing. One
// connection per node carries all its streams.
type ClientHost struct {
	id     Identity
	end    *endpoint
	limits Limits

	mu     sync.Mutex
	closed bool
	nodes  map[peer.ID]*clientConn
}

// clientConn is the connection to one node. Its lock is held while dialling, so
// that those who want the same node wait for one dial.
type clientConn struct {
	mu   chan struct{} // capacity 1: a lock that a context can end
	conn *conn
}

// NewClientHost draws an identity and makes a host that holds key.
func NewClientHost(key meshkey.Key, limits Limits) (*ClientHost, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	id, err := NewIdentity()
	if err != nil {
		return nil, err
	}
	end, err := newEndpoint(id, key, limits)
	if err != nil {
		return nil, err
	}
	return &ClientHost{id: id, end: end, limits: limits, nodes: make(map[peer.ID]*clientConn)}, nil
}

// ID returns the identity drawn.
func (h *ClientHost) ID() anchormesh.NodeID { return h.id.id }

// Dial opens a connection to the client protocol of the node that addr names,
// with its node ID: /ip4/192.0.2.1/tcp/2390/p2p/12D3KooW...
func (h *ClientHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	pid, at, err := splitClientAddr(addr)
	if err != nil {
		return nil, err
	}
	n, err := h.node(pid)
	if err != nil {
		return nil, err
	}
	c, err := n.connect(ctx, h, pid, at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	s, err := openClient(ctx, c, h.limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, addr, err)
	}
	local := Addr{ID: h.id.id, Multiaddr: c.tc.LocalMultiaddr().String()}
	return newStreamConn(s, c, local, nil), nil
}

func splitClientAddr(addr string) (peer.ID, string, error) {
	m, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return "", "", fmt.Errorf("%q: %w", addr, ErrClientAddr)
	}
	at, pid := peer.SplitAddr(m)
	if pid == "" || at == nil {
		return "", "", fmt.Errorf("%q: %w", addr, ErrClientAddr)
	}
	if err := ValidateAddr(at.String()); err != nil {
		return "", "", err
	}
	return pid, at.String(), nil
}

func (h *ClientHost) node(pid peer.ID) (*clientConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	n := h.nodes[pid]
	if n == nil {
		n = &clientConn{mu: make(chan struct{}, 1)}
		h.nodes[pid] = n
	}
	return n, nil
}

func (n *clientConn) connect(ctx context.Context, h *ClientHost, pid peer.ID, at string) (*conn, error) {
	select {
	case n.mu <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-n.mu }()
	if n.conn != nil && !n.conn.dead() {
		return n.conn, nil
	}
	tc, err := h.end.dial(ctx, pid, []string{at})
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		tc.Close()
		return nil, ErrClosed
	}
	n.conn = &conn{tc: tc, id: anchormesh.NodeID(pid.String()), outbound: true, made: time.Now()}
	return n.conn, nil
}

// Close ends every connection and with them all that Dial returned.
func (h *ClientHost) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	nodes := h.nodes
	h.mu.Unlock()
	for _, n := range nodes {
		n.mu <- struct{}{}
		if n.conn != nil {
			n.conn.close()
		}
		<-n.mu
	}
	h.end.close()
	return nil
}
