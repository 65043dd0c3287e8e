package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

var (
	// ErrKeyNeeded: a libp2p endpoint was given without the mesh key.
	ErrKeyNeeded = errors.New("client: the mesh key is needed to dial a node by its peer ID")
	// ErrNoAddress: a peer ID was given and Config.Peers does not say where it is.
	ErrNoAddress = errors.New("client: no address is known for this peer ID; give it in Peers or as /ip4/.../tcp/.../p2p/ID")
	// ErrEndpoint: an endpoint has none of the forms this package knows.
	ErrEndpoint = errors.New("client: want host:port, /ip4/.../tcp/.../p2p/ID or a peer ID")
)

// Dialer opens connections to the etcd API of nodes, over TCP or libp2p, for
// gRPC: DialContext is what grpc.WithContextDialer wants. It is safe for
// concurrent use.
type Dialer struct {
	key   meshkey.Key
	peers map[string][]string

	mu     sync.Mutex
	closed bool
	host   *wire.ClientHost // made with the first libp2p endpoint
}

// NewDialer returns a dialer. The zero key allows TCP endpoints only. peers
// gives the multiaddrs, without /p2p/ID, of nodes that are named by peer ID.
func NewDialer(key meshkey.Key, peers map[string][]string) *Dialer {
	return &Dialer{key: key, peers: peers}
}

// Validate reports whether the endpoint can be dialled as far as can be said
// without dialling.
func (d *Dialer) Validate(endpoint string) error {
	if !overLibp2p(endpoint) {
		if endpoint == "" || strings.HasPrefix(endpoint, ":") {
			return fmt.Errorf("%w, not %q", ErrEndpoint, endpoint)
		}
		return nil
	}
	if d.key.Validate() != nil {
		return fmt.Errorf("%w: %s", ErrKeyNeeded, endpoint)
	}
	_, err := d.addrs(endpoint)
	return err
}

// DialContext connects to an endpoint.
func (d *Dialer) DialContext(ctx context.Context, endpoint string) (net.Conn, error) {
	if err := d.Validate(endpoint); err != nil {
		return nil, err
	}
	if !overLibp2p(endpoint) {
		network, address := "tcp", endpoint
		if path, ok := strings.CutPrefix(endpoint, "unix:"); ok {
			network, address = "unix", strings.TrimPrefix(path, "//")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	host, err := d.libp2p()
	if err != nil {
		return nil, err
	}
	addrs, err := d.addrs(endpoint)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, addr := range addrs {
		conn, err := host.Dial(ctx, addr)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// Close ends all libp2p connections.
func (d *Dialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.host == nil {
		return nil
	}
	return d.host.Close()
}

func (d *Dialer) libp2p() (*wire.ClientHost, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if d.host == nil {
		host, err := wire.NewClientHost(d.key, wire.DefaultLimits())
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		d.host = host
	}
	return d.host, nil
}

// overLibp2p tells a multiaddr and a peer ID from everything clientv3 knows.
func overLibp2p(endpoint string) bool {
	return strings.HasPrefix(endpoint, "/") || isPeerID(endpoint)
}

func isPeerID(s string) bool {
	_, err := peer.Decode(s)
	return err == nil
}

// addrs returns the multiaddrs, with peer ID, under which to try an endpoint.
func (d *Dialer) addrs(endpoint string) ([]string, error) {
	if strings.HasPrefix(endpoint, "/") {
		info, err := peer.AddrInfoFromString(endpoint)
		if err != nil || len(info.Addrs) == 0 {
			return nil, fmt.Errorf("%w, not %q", ErrEndpoint, endpoint)
		}
		return []string{endpoint}, nil
	}
	var out []string
	for _, at := range d.peers[endpoint] {
		if err := wire.ValidateAddr(at); err != nil {
			return nil, fmt.Errorf("client: address of %s: %w", endpoint, err)
		}
		out = append(out, at+"/p2p/"+endpoint)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoAddress, endpoint)
	}
	return out, nil
}
