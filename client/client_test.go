package client

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

var testKey = meshkey.Key{1}

// node is a libp2p host that serves a little of etcd's API.
type node struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedWatchServer
	id   string
	addr string // without the ID
}

func (n *node) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: int64(len(r.Value))}}, nil
}

func (n *node) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Version: "3.7.3", StorageVersion: n.id}, nil
}

func (n *node) Watch(stream pb.Watch_WatchServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 9}, Created: true}); err != nil {
		return err
	}
	<-stream.Context().Done() // the end of the stream must not overtake the answer
	return nil
}

func (n *node) multiaddr() string { return n.addr + "/p2p/" + n.id }

func (n *node) serve(t *testing.T, l net.Listener) {
	s := grpc.NewServer()
	pb.RegisterKVServer(s, n)
	pb.RegisterMaintenanceServer(s, n)
	pb.RegisterWatchServer(s, n)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

type nobody struct{}

func (nobody) PeerAddrs(anchormesh.NodeID) ([]string, bool) { return nil, false }
func (nobody) MeshID() anchormesh.MeshID                    { return 0 }

func startNode(t *testing.T) *node {
	t.Helper()
	id, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	limits := wire.DefaultLimits()
	limits.Handshake = 2 * time.Second
	h, err := wire.NewHost(wire.Config{
		Identity: id, Key: testKey, Boot: 1, Listen: "/ip4/127.0.0.1/tcp/0", Directory: nobody{},
		Logger: slog.New(slog.DiscardHandler), Limits: limits,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	n := &node{id: string(id.NodeID()), addr: h.ListenAddr()}
	n.serve(t, h.Clients())
	return n
}

func startTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	(&node{id: "tcp"}).serve(t, l)
	return l.Addr().String()
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Etcd.Logger = zap.NewNop()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryKindOfEndpoint(t *testing.T) {
	n, m := startNode(t), startNode(t)
	tcp := startTCP(t)
	peers := map[string][]string{n.id: {"/ip4/127.0.0.1/tcp/1", n.addr}}
	for name, endpoints := range map[string][]string{
		"multiaddr":                     {n.multiaddr()},
		"peer ID, first address dead":   {n.id},
		"two nodes":                     {n.multiaddr(), m.multiaddr()},
		"TCP":                           {tcp},
		"TCP with scheme":               {"http://" + tcp},
		"both":                          {tcp, n.multiaddr()},
		"both, the other way round":     {n.id, tcp},
		"one is dead, one is not there": {"/ip4/127.0.0.1/tcp/1/p2p/" + n.id, m.multiaddr()},
	} {
		c := newClient(t, Config{Endpoints: endpoints, MeshKey: testKey, Peers: peers})
		ctx := within(t)
		if err := c.Reach(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r, err := c.Put(ctx, "k", strings.Repeat("v", 1<<20)); err != nil || r.Header.Revision != 1<<20 {
			t.Errorf("%s: put %v, %v", name, r, err)
		}
		if r, ok := <-c.Watch(ctx, "k", clientv3.WithCreatedNotify()); !ok || !r.Created {
			t.Errorf("%s: watch %v, %v", name, r, r.Err())
		}
	}
}

// Maintenance calls go to the endpoint that is named, not to any.
func TestStatusOfOneNode(t *testing.T) {
	n, m := startNode(t), startNode(t)
	c := newClient(t, Config{Endpoints: []string{n.multiaddr(), m.multiaddr()}, MeshKey: testKey})
	for _, want := range []*node{n, m, n} {
		r, err := c.Status(within(t), want.multiaddr())
		if err != nil {
			t.Fatal(err)
		}
		if r.StorageVersion != want.id {
			t.Errorf("status of %s came from %s", want.id, r.StorageVersion)
		}
	}
}

func TestReachSaysWhyNot(t *testing.T) {
	n, m := startNode(t), startNode(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"another key":  {Config{Endpoints: []string{n.multiaddr()}, MeshKey: meshkey.Key{2}}, "mesh key"},
		"another node": {Config{Endpoints: []string{n.addr + "/p2p/" + m.id}, MeshKey: testKey}, "another node answers there"},
		"nobody":       {Config{Endpoints: []string{gone.Addr().String()}}, "connection refused"},
		"nobody, libp2p": {Config{Endpoints: []string{"/ip4/127.0.0.1/tcp/" + port(gone) + "/p2p/" + n.id}, MeshKey: testKey},
			"connection refused"},
	} {
		err := newClient(t, c.cfg).Reach(within(t))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.cfg.Endpoints[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func TestConfigIsRefused(t *testing.T) {
	id := startNode(t).id
	addr := "/ip4/192.0.2.1/tcp/2390/p2p/" + id
	for name, c := range map[string]struct {
		cfg  Config
		want error
		text string
	}{
		"nothing":         {Config{}, nil, "no endpoint"},
		"empty":           {Config{Endpoints: []string{""}}, ErrEndpoint, ""},
		"no key":          {Config{Endpoints: []string{addr}}, ErrKeyNeeded, ""},
		"no ID":           {Config{Endpoints: []string{"/ip4/192.0.2.1/tcp/2390"}, MeshKey: testKey}, ErrEndpoint, ""},
		"no address":      {Config{Endpoints: []string{"/p2p/" + id}, MeshKey: testKey}, ErrEndpoint, ""},
		"no multiaddr":    {Config{Endpoints: []string{"/here"}, MeshKey: testKey}, ErrEndpoint, ""},
		"unknown peer":    {Config{Endpoints: []string{id}, MeshKey: testKey}, ErrNoAddress, ""},
		"bad address":     {Config{Endpoints: []string{id}, MeshKey: testKey, Peers: map[string][]string{id: {"192.0.2.1:1"}}}, nil, "TCP multiaddr"},
		"TLS and libp2p":  {Config{Endpoints: []string{addr}, MeshKey: testKey, Etcd: clientv3.Config{TLS: &tls.Config{}}}, nil, "encrypted already"},
		"wrong endpoints": {Config{Endpoints: []string{addr}, Etcd: clientv3.Config{Endpoints: []string{addr}}}, nil, "Config.Endpoints"},
	} {
		_, err := New(c.cfg)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClosedDialer(t *testing.T) {
	n := startNode(t)
	d := NewDialer(testKey, nil)
	conn, err := d.DialContext(within(t), n.multiaddr())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived its dialer")
	}
	if _, err := d.DialContext(within(t), n.multiaddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialling after Close: %v", err)
	}
}
