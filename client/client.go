package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

// Config says whom to talk to, and how.
type Config struct {
	// Endpoints are nodes, in any of the forms of the package's documentation.
	Endpoints []string
	// MeshKey is needed for libp2p endpoints only.
	MeshKey meshkey.Key
	// Peers gives the multiaddrs (without /p2p/ID) of endpoints that are peer
	// IDs.
	Peers map[string][]string
	// Etcd is everything else that clientv3 can be told: timeouts, users, TLS for
	// TCP endpoints, a logger. Its Endpoints stay empty.
	Etcd clientv3.Config
}

// Validate reports what cannot work.
func (c Config) Validate() error {
	switch {
	case len(c.Etcd.Endpoints) > 0:
		return errors.New("client: endpoints belong into Config.Endpoints")
	case len(c.Endpoints) == 0:
		return errors.New("client: no endpoint is given")
	}
	d := NewDialer(c.MeshKey, c.Peers)
	for _, e := range c.Endpoints {
		if err := d.Validate(e); err != nil {
			return err
		}
		if overLibp2p(e) && c.Etcd.TLS != nil {
			return fmt.Errorf("client: %s is a libp2p endpoint, which is encrypted already, and cannot be used together with TLS", e)
		}
	}
	return nil
}

// Client is a clientv3.Client that also closes the connections under it.
type Client struct {
	*clientv3.Client
	dialer *Dialer
}

// New returns a client. As with clientv3 it connects when it is first used;
// Reach tells at once whether it can.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := NewDialer(cfg.MeshKey, cfg.Peers)
	etcd := cfg.Etcd
	etcd.Endpoints = cfg.Endpoints
	etcd.DialOptions = append([]grpc.DialOption{grpc.WithContextDialer(d.DialContext)}, etcd.DialOptions...)
	c, err := clientv3.New(etcd)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Client{Client: c, dialer: d}, nil
}

// Close closes the client and its connections.
func (c *Client) Close() error {
	return errors.Join(c.Client.Close(), c.dialer.Close())
}

// Reach connects to each endpoint in turn until one answers. Its error says for
// each why not, in words that gRPC's own time-out would hide: another mesh key,
// another node under that address, nobody there.
func (c *Client) Reach(ctx context.Context) error {
	var failed error
	for _, e := range c.Endpoints() {
		conn, err := c.dialer.DialContext(ctx, hostPort(e))
		if err == nil {
			return conn.Close()
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", e, err))
	}
	return fmt.Errorf("client: no endpoint can be reached: %w", failed)
}

// hostPort strips the scheme that clientv3 allows before a TCP address.
func hostPort(endpoint string) string {
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := strings.CutPrefix(endpoint, scheme); ok {
			return rest
		}
	}
	return endpoint
}
