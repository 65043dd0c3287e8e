package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/anchormesh/anchormesh"
)

// Addr is the net.Addr of client connections: a multiaddr with the node ID that
// TLS proved.
type Addr struct {
	ID        anchormesh.NodeID
	Multiaddr string // without /p2p
}

// Network returns "libp2p".
func (a Addr) Network() string { return "libp2p" }

// String returns the multiaddr, /p2p included.
func (a Addr) String() string { return a.Multiaddr + "/p2p/" + string(a.ID) }

// streamConn is a stream as a BulkStream and as a net.Conn.
type streamConn struct {
	network.MuxedStream
	local, remote Addr
	closed        sync.Once
	onClose       func()
}

var (
	_ net.Conn   = (*streamConn)(nil)
	_ BulkStream = (*streamConn)(nil)
)

func newStreamConn(s network.MuxedStream, c *conn, local Addr, onClose func()) *streamConn {
	remote := Addr{ID: c.id, Multiaddr: c.tc.RemoteMultiaddr().String()}
	return &streamConn{MuxedStream: s, local: local, remote: remote, onClose: onClose}
}

func (s *streamConn) LocalAddr() net.Addr  { return s.local }
func (s *streamConn) RemoteAddr() net.Addr { return s.remote }

func (s *streamConn) Read(b []byte) (int, error) {
	n, err := s.MuxedStream.Read(b)
	return n, deadlineError(err)
}

func (s *streamConn) Write(b []byte) (int, error) {
	n, err := s.MuxedStream.Write(b)
	return n, deadlineError(err)
}

func (s *streamConn) Close() error {
	err := s.MuxedStream.Close()
	s.closed.Do(s.ended)
	return err
}

func (s *streamConn) Reset() error {
	err := s.MuxedStream.Reset()
	s.closed.Do(s.ended)
	return err
}

func (s *streamConn) ended() {
	if s.onClose != nil {
		s.onClose()
	}
}

// deadlineError makes yamux's timeout the one users of net.Conn look for.
func deadlineError(err error) error {
	var t net.Error
	if errors.As(err, &t) && t.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// OpenBulk opens a stream to a peer's handler of a bulk protocol. The caller
// must Close or Reset it. ErrNoHandler if the peer has none.
func (h *Host) OpenBulk(ctx context.Context, to anchormesh.NodeID, name string) (BulkStream, error) {
	if len(name) > helloTextMax {
		return nil, fmt.Errorf("%w: bulk protocol name of %d bytes", ErrTooLarge, len(name))
	}
	p, err := h.peer(to)
	if err != nil {
		return nil, err
	}
	c, s, err := p.open(ctx, &p.bulk, protocolBulk, hello{name: name})
	if err != nil {
		return nil, err
	}
	c.streams.Add(1)
	return newStreamConn(s, c, h.clients.addr, func() { c.streams.Add(-1) }), nil
}

// DialClient opens a connection of the client protocol to another node.
func (h *Host) DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error) {
	p, err := h.peer(to)
	if err != nil {
		return nil, err
	}
	c, err := p.bulk.connect(ctx)
	if err != nil {
		return nil, err
	}
	s, err := openClient(ctx, c, h.limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, p.id.Short(), err)
	}
	c.streams.Add(1)
	return newStreamConn(s, c, h.clients.addr, func() { c.streams.Add(-1) }), nil
}

// openClient opens a client stream. There is no hello: any libp2p client that
// holds the mesh key may speak gRPC after protocol selection.
func openClient(ctx context.Context, c *conn, limits Limits) (network.MuxedStream, error) {
	ctx, cancel := context.WithTimeout(ctx, limits.Handshake)
	defer cancel()
	s, err := c.tc.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	_, err = multistream.SelectOneOf([]protocol.ID{ProtocolClients}, s)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.Reset()
		return nil, err
	}
	s.SetDeadline(time.Time{})
	return s, nil
}

// clientListener is the net.Listener of client streams.
type clientListener struct {
	addr    Addr
	backlog chan *streamConn
	done    chan struct{}
	once    sync.Once
}

func newClientListener(addr Addr, backlog int) *clientListener {
	return &clientListener{addr: addr, backlog: make(chan *streamConn, backlog), done: make(chan struct{})}
}

// offer queues a stream to be accepted, or resets it.
func (l *clientListener) offer(s *streamConn) {
	select {
	case <-l.done:
	case l.backlog <- s:
		return
	default:
	}
	s.Reset()
}

func (l *clientListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	case s := <-l.backlog:
		return s, nil
	}
}

func (l *clientListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *clientListener) Addr() net.Addr { return l.addr }
