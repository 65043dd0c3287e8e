package peers

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anchormesh/anchormesh"
)

// Dialer opens byte streams of the client protocol; mesh.Mesh is one. They are
// authenticated and encrypted already.
type Dialer interface {
	DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error)
}

// Peers holds the connections.
type Peers struct {
	dialer Dialer

	mu     sync.Mutex
	conns  map[anchormesh.NodeID]*grpc.ClientConn
	closed bool
}

// ErrClosed says that the node is stopping.
var ErrClosed = errors.New("connections to other nodes are closed")

// New returns an empty set.
func New(d Dialer) *Peers {
	return &Peers{dialer: d, conns: make(map[anchormesh.NodeID]*grpc.ClientConn)}
}

// Conn returns the connection to a node; it may not be established yet.
func (p *Peers) Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if c := p.conns[node]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+string(node),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dialer.DialClient(ctx, node) }),
	)
	if err != nil {
		return nil, err
	}
	p.conns[node] = c
	return c, nil
}

// Close closes every connection.
func (p *Peers) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
