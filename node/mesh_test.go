package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node"
	"github.com/anchormesh/anchormesh/node/config"
)

// testMesh is a mesh of nodes in this process, on loopback.
type testMesh struct {
	t     testing.TB
	key   meshkey.Key
	dir   string
	nodes []*testNode
	tune  func(*node.Node) // before a node runs; may be nil
}

type testNode struct {
	cfg  config.Config
	stop context.CancelFunc
	done chan error
	node *node.Node
}

// newMesh starts n nodes and waits until the group has the anchors it wants.
func newMesh(t testing.TB, n int) *testMesh {
	t.Helper()
	return newTunedMesh(t, n, nil)
}

// newTunedMesh is newMesh of nodes that are not as they are by default.
func newTunedMesh(t testing.TB, n int, tune func(*node.Node)) *testMesh {
	t.Helper()
	m := &testMesh{t: t, key: meshkey.Generate(), dir: t.TempDir(), tune: tune}
	for range n {
		m.add(nil)
	}
	t.Cleanup(func() {
		for i := range m.nodes {
			m.stop(i)
		}
	})
	m.awaitVoters(min(n|1, 3))
	return m
}

// add starts one more node.
func (m *testMesh) add(with func(*config.Config)) int {
	m.t.Helper()
	i := len(m.nodes)
	cfg := config.Default()
	cfg.Identity.Name = fmt.Sprintf("n%d", i+1)
	cfg.Identity.DataDir = filepath.Join(m.dir, cfg.Identity.Name)
	cfg.Listen = config.Listen{Client: freeAddr(m.t), Peer: "/ip4/127.0.0.1/tcp/" + freePort(m.t), Gossip: freeAddr(m.t)}
	cfg.Mesh.Genesis = i == 0
	if i > 0 {
		cfg.Mesh.Join = []string{m.nodes[0].cfg.Listen.Gossip}
		// A node that was told of nobody waits after a restart until somebody looks for it.
		m.nodes[0].cfg.Mesh.Join = append(m.nodes[0].cfg.Mesh.Join, cfg.Listen.Gossip)
	}
	if with != nil {
		with(&cfg)
	}
	m.nodes = append(m.nodes, &testNode{cfg: cfg})
	m.start(i)
	return i
}

func freeAddr(t testing.TB) string { return "127.0.0.1:" + freePort(t) }

// freePort returns a port below those that the system gives to outgoing connections:
// one of these could be taken before the node listens.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(12000 + rand.IntN(20000))
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

var givenPorts sync.Map

func (m *testMesh) start(i int) {
	m.t.Helper()
	level := slog.LevelWarn
	if os.Getenv("ANCHORMESH_TEST_VERBOSE") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(m.t.Output(), &slog.HandlerOptions{Level: level})).With("node", m.nodes[i].cfg.Identity.Name)
	n, err := node.New(m.nodes[i].cfg, m.key, "test", log)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.tune != nil {
		m.tune(n)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	m.nodes[i].stop, m.nodes[i].done, m.nodes[i].node = stop, done, n
	go func() { done <- n.Run(ctx) }()
}

func (m *testMesh) stop(i int) {
	m.t.Helper()
	if m.nodes[i].stop == nil {
		return
	}
	m.nodes[i].stop()
	m.nodes[i].stop = nil
	if err := <-m.nodes[i].done; err != nil {
		m.t.Errorf("node %d: %v", i+1, err)
	}
}

// client connects to one node, or to all.
func (m *testMesh) client(nodes ...int) *clientv3.Client {
	m.t.Helper()
	var endpoints []string
	for i := range m.nodes {
		if len(nodes) == 0 {
			endpoints = append(endpoints, m.nodes[i].cfg.Listen.Client)
		}
	}
	for _, i := range nodes {
		endpoints = append(endpoints, m.nodes[i].cfg.Listen.Client)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

// segments asks a node what it knows.
func (m *testMesh) segments(i int) []*meshpb.SegmentInfo {
	m.t.Helper()
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	reply, err := meshpb.NewMeshClient(conn).Segments(ctx, &meshpb.SegmentsRequest{})
	if err != nil {
		return nil // not up yet
	}
	return reply.GetSegments()
}

// awaitVoters waits until every running node knows the group with n voters and
// a leader.
func (m *testMesh) awaitVoters(n int) {
	m.t.Helper()
	m.eventually(30*time.Second, fmt.Sprintf("%d voters", n), func() bool {
		for i := range m.nodes {
			if m.nodes[i].stop == nil {
				continue
			}
			list := m.segments(i)
			if len(list) == 0 {
				return false
			}
			d, err := meshpb.FromPB(list[0].GetDescriptor_())
			if err != nil || len(d.Voters()) != n || d.Joint {
				return false
			}
		}
		return true
	})
}

// leader returns the node that leads the first segment.
func (m *testMesh) leader() int {
	m.t.Helper()
	found := -1
	m.eventually(10*time.Second, "leader", func() bool {
		for i := range m.nodes {
			if m.nodes[i].stop == nil {
				continue
			}
			for _, s := range m.segments(i) {
				if len(s.GetLags()) > 0 { // only the leader knows them
					found = i
					return true
				}
			}
		}
		return false
	})
	return found
}

func (m *testMesh) eventually(limit time.Duration, what string, f func() bool) {
	m.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			m.t.Fatalf("no %s within %v", what, limit)
		case <-tick.C:
		}
	}
}
