package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/gologshim"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	goyamux "github.com/libp2p/go-yamux/v5"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/security"
)

// libp2p logs to stderr through a handler of its own, fixed at the first line
// logged. What it has to say reaches us as errors.
func init() { gologshim.SetDefaultHandler(slog.DiscardHandler) }

// keyUse names the key of the private network among those derived from the
// mesh key.
const keyUse = "libp2p-psk"

var errAddr = errors.New("want a TCP multiaddr such as /ip4/192.0.2.1/tcp/2390 or /dns4/name/tcp/2390")

// endpoint makes authenticated, multiplexed connections: libp2p's TCP transport
// with a private network, TLS 1.3 and yamux, and nothing above it.
type endpoint struct {
	transport *tcp.TcpTransport
	resources network.ResourceManager
	limits    Limits
}

func newEndpoint(id Identity, key meshkey.Key, limits Limits) (*endpoint, error) {
	resources, err := newResourceManager(limits)
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: newMuxer(limits)}}
	tls, err := security.New(id.key, yamux.ID)
	if err != nil {
		resources.Close()
		return nil, fmt.Errorf("TLS identity: %w", err)
	}
	psk := key.Derive(keyUse)
	up, err := upgrader.New([]sec.SecureTransport{tls}, muxers, psk[:], resources, nil,
		upgrader.WithAcceptTimeout(limits.Handshake))
	if err != nil {
		resources.Close()
		return nil, fmt.Errorf("connection upgrader: %w", err)
	}
	// Reusing the listen port for dialling serves hole punching only, and makes
	// two nodes that dial each other collide on one 4-tuple.
	tr, err := tcp.NewTCPTransport(up, resources, nil, tcp.DisableReuseport(), tcp.WithConnectionTimeout(limits.Handshake))
	if err != nil {
		resources.Close()
		return nil, fmt.Errorf("TCP transport: %w", err)
	}
	return &endpoint{transport: tr, resources: resources, limits: limits}, nil
}

func (e *endpoint) close() { e.resources.Close() }

// newMuxer sets yamux up for few, long-lived streams.
func newMuxer(limits Limits) *yamux.Transport {
	c := goyamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.ReadBufSize = 0 // TLS below it buffers a record
	c.InitialStreamWindowSize = uint32(limits.WindowBytes)
	c.MaxStreamWindowSize = uint32(limits.WindowBytesMax)
	c.MaxIncomingStreams = uint32(limits.StreamsPerConn)
	c.EnableKeepAlive = true
	c.KeepAliveInterval = limits.KeepAlive
	c.ConnectionWriteTimeout = limits.KeepAlive
	return (*yamux.Transport)(c)
}

// newResourceManager bounds connections. libp2p's own defaults would let in
// eight connections of one address, one new one in five seconds: fit for the
// open internet, deadly for a mesh behind one NAT or on one machine.
func newResourceManager(l Limits) (network.ResourceManager, error) {
	conns := l.ConnsInbound + l.ConnsOutbound
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(conns), FD: rcmgr.LimitVal(conns),
			ConnsInbound: rcmgr.LimitVal(l.ConnsInbound), ConnsOutbound: rcmgr.LimitVal(l.ConnsOutbound),
			Memory: rcmgr.LimitVal64(l.BufferBytes),
		},
		Transient: rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(2 * l.Handshakes), FD: rcmgr.LimitVal(2 * l.Handshakes),
			ConnsInbound: rcmgr.LimitVal(l.Handshakes), ConnsOutbound: rcmgr.LimitVal(l.Handshakes),
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(l.ConnsPerPeer), FD: rcmgr.LimitVal(l.ConnsPerPeer),
			ConnsInbound: rcmgr.LimitVal(l.ConnsPerPeer), ConnsOutbound: rcmgr.LimitVal(l.ConnsPerPeer),
		},
	}.Build(rcmgr.InfiniteLimits)
	perAddress := func(bits int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: conns}}
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(perAddress(32), perAddress(128)),
		rcmgr.WithConnRateLimiters(&rate.Limiter{}))
}

// parseTCP parses a multiaddr that names a host (address or DNS name) and a TCP
// port, and nothing else.
func parseTCP(s string) (multiaddr.Multiaddr, error) {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", s, errAddr)
	}
	if len(m) != 2 || m[1].Protocol().Code != multiaddr.P_TCP {
		return nil, fmt.Errorf("%q: %w", s, errAddr)
	}
	switch m[0].Protocol().Code {
	case multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
		return m, nil
	}
	return nil, fmt.Errorf("%q: %w", s, errAddr)
}

// ValidateAddr refuses what is not a dialable TCP multiaddr.
func ValidateAddr(s string) error {
	m, err := parseTCP(s)
	if err != nil {
		return err
	}
	if manet.IsIPUnspecified(m) {
		return fmt.Errorf("%q names every address, so nobody can dial it", s)
	}
	return nil
}

// listen opens the port.
func (e *endpoint) listen(addr string) (transport.Listener, error) {
	m, err := parseTCP(addr)
	if err != nil {
		return nil, err
	}
	l, err := e.transport.Listen(m)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for peers on %s: %w", addr, rootCause(err))
	}
	return l, nil
}

// rootCause drops the prefixes net puts before an error that our sentence
// already says.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// dial tries the addresses one beside the other, each begun when the one before
// failed or a stagger passed, and keeps the first connection ("happy
// eyeballs", RFC 8305).
func (e *endpoint) dial(ctx context.Context, pid peer.ID, addrs []string) (transport.CapableConn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.limits.Dial)
	defer cancel()
	targets, err := resolveAll(ctx, addrs)
	if len(targets) == 0 {
		return nil, err
	}
	type outcome struct {
		conn transport.CapableConn
		err  error
	}
	results := make(chan outcome, len(targets))
	begin := func(m multiaddr.Multiaddr) {
		conn, err := e.dialOne(ctx, pid, m)
		results <- outcome{conn, err}
	}
	var won transport.CapableConn
	var next, running int
	stagger := time.NewTimer(0)
	defer stagger.Stop()
	for {
		select {
		case <-stagger.C:
			if next < len(targets) && won == nil {
				go begin(targets[next])
				next, running = next+1, running+1
				stagger.Reset(e.limits.DialStagger)
			}
			continue
		case r := <-results:
			running--
			switch {
			case r.err != nil:
				err = errors.Join(err, r.err)
				stagger.Reset(0)
			case won == nil:
				won = r.conn
				cancel() // the others end at once
			default:
				r.conn.Close()
			}
		}
		switch {
		case running > 0:
		case won != nil:
			return won, nil
		case next == len(targets):
			return nil, err
		}
	}
}

func (e *endpoint) dialOne(ctx context.Context, pid peer.ID, m multiaddr.Multiaddr) (transport.CapableConn, error) {
	begun := time.Now()
	conn, err := e.transport.Dial(ctx, m, pid)
	if err == nil {
		return conn, nil
	}
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		return nil, fmt.Errorf("%s: %w", m, op.Err)
	case errors.Is(err, context.Canceled):
		return nil, fmt.Errorf("%s: %w", m, err)
	case errors.As(err, new(sec.ErrPeerIDMismatch)):
		return nil, fmt.Errorf("%s: another node answers there: %w", m, err)
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return nil, fmt.Errorf("%s: this node's connection limit is reached: %w", m, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no handshake within %v: %w", time.Since(begun).Round(time.Millisecond), err)
	}
	return nil, fmt.Errorf("%s: it has another mesh key or is no AnchorMesh node: %w", m, err)
}

// resolveAll turns DNS names into addresses, and returns what it could.
func resolveAll(ctx context.Context, addrs []string) ([]multiaddr.Multiaddr, error) {
	var out []multiaddr.Multiaddr
	var failed error
	for _, a := range addrs {
		m, err := parseTCP(a)
		if err == nil {
			var ms []multiaddr.Multiaddr
			ms, err = resolve(ctx, m)
			out = append(out, ms...)
		}
		failed = errors.Join(failed, err)
	}
	if len(out) == 0 && failed == nil {
		failed = errors.New("it has no address")
	}
	return multiaddr.Unique(out), failed
}

func resolve(ctx context.Context, m multiaddr.Multiaddr) ([]multiaddr.Multiaddr, error) {
	host, port := m[0].Value(), m[1].Value()
	family := "ip"
	switch m[0].Protocol().Code {
	case multiaddr.P_DNS:
	case multiaddr.P_DNS4:
		family = "ip4"
	case multiaddr.P_DNS6:
		family = "ip6"
	default:
		return []multiaddr.Multiaddr{m}, nil
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, family, host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	var out []multiaddr.Multiaddr
	for _, ip := range ips {
		if a, err := manet.FromNetAddr(&net.TCPAddr{IP: ip, Port: n}); err == nil {
			out = append(out, a)
		}
	}
	return out, nil
}

// dialable returns the addresses under which a listener can be dialled: itself,
// or for an unspecified address those of the interfaces, loopback only if there
// is nothing else.
func dialable(listen multiaddr.Multiaddr, limit int) []string {
	if !manet.IsIPUnspecified(listen) {
		return []string{listen.String()}
	}
	all, err := manet.ResolveUnspecifiedAddresses([]multiaddr.Multiaddr{listen}, nil)
	if err != nil {
		return nil
	}
	var far, near []string
	for _, m := range all {
		switch {
		case manet.IsIPLoopback(m):
			near = append(near, m.String())
		case manet.IsIP6LinkLocal(m):
		default:
			far = append(far, m.String())
		}
	}
	if len(far) == 0 {
		far = near
	}
	return far[:min(len(far), limit)]
}
