package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/anchormesh/anchormesh/client"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node"
	"github.com/anchormesh/anchormesh/node/config"
)

// freePort is a port nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startRealNode runs a mesh of one and returns the node's peer ID and address.
func startRealNode(t *testing.T, key meshkey.Key) (id, addr string) {
	t.Helper()
	addr = "/ip4/127.0.0.1/tcp/" + freePort(t)
	cfg := config.Default()
	cfg.Identity.DataDir = t.TempDir()
	cfg.Mesh.Genesis = true
	cfg.Listen = config.Listen{Client: "127.0.0.1:0", Peer: addr, Gossip: "127.0.0.1:" + freePort(t)}
	ids := make(chan string, 1)
	n, err := node.New(cfg, key, "test", slog.New(idCatcher{slog.DiscardHandler, ids}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case id = <-ids:
		return id, addr
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return "", ""
}

// idCatcher reads the node's ID off its log.
type idCatcher struct {
	slog.Handler
	ids chan string
}

func (c idCatcher) Enabled(context.Context, slog.Level) bool { return true }
func (c idCatcher) WithAttrs([]slog.Attr) slog.Handler       { return c }

func (c idCatcher) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "node serves" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "id" {
				c.ids <- a.Value.String()
			}
			return true
		})
	}
	return nil
}

// What a user does with a clientv3, over libp2p, by multiaddr and by peer ID.
func TestRealNodeOverLibp2p(t *testing.T) {
	key := meshkey.Generate()
	id, addr := startRealNode(t, key)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for name, endpoint := range map[string]string{"multiaddr": addr + "/p2p/" + id, "peer ID": id} {
		c, err := client.New(client.Config{
			Endpoints: []string{endpoint}, MeshKey: key, Peers: map[string][]string{id: {addr}},
			Etcd: clientv3.Config{DialTimeout: 5 * time.Second, Logger: zap.NewNop()},
		})
		if err != nil {
			t.Fatal(err)
		}
		use(ctx, t, name, c)
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger, err := client.New(client.Config{Endpoints: []string{addr + "/p2p/" + id}, MeshKey: meshkey.Generate(), Etcd: clientv3.Config{Logger: zap.NewNop()}})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Reach(ctx); err == nil || !strings.Contains(err.Error(), "mesh key") {
		t.Errorf("with another mesh key: %v", err)
	}
}

func use(ctx context.Context, t *testing.T, name string, c *client.Client) {
	t.Helper()
	if err := c.Reach(ctx); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	watch := c.Watch(ctx, name, clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
	if r := <-watch; !r.Created {
		t.Fatalf("%s: watch: %+v", name, r)
	}
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	alive, err := c.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if r := <-alive; r == nil || r.TTL != 60 {
		t.Errorf("%s: keep-alive %v", name, r)
	}
	large := strings.Repeat("v", 1<<20)
	for i := range 3 {
		if _, err := c.Put(ctx, name, fmt.Sprint(i, large), clientv3.WithLease(lease.ID)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r := <-watch; len(r.Events) != 1 || string(r.Events[0].Kv.Value) != fmt.Sprint(i, large) {
			t.Errorf("%s: watch response %d: %d events, %v", name, i, len(r.Events), r.Err())
		}
	}
	if got, err := c.Get(ctx, name); err != nil || len(got.Kvs) != 1 || got.Kvs[0].Version != 3 {
		t.Errorf("%s: get %v", name, err)
	}
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if r := <-watch; len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete {
		t.Errorf("%s: after the lease: %v", name, r.Events)
	}
	if s, err := c.Status(ctx, c.Endpoints()[0]); err != nil || s.Leader == 0 {
		t.Errorf("%s: status %v, %v", name, s, err)
	}
}
