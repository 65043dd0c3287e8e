package mesh_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/gossip"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

var testKey = meshkey.Key{4, 5, 6}

// loopbackConfig is a node on this machine in a hurry.
func loopbackConfig(t *testing.T, join ...string) mesh.Config {
	cfg := mesh.DefaultConfig()
	cfg.Key, cfg.DataDir, cfg.Join = testKey, t.TempDir(), join
	cfg.PeerAddr, cfg.GossipAddr = "/ip4/127.0.0.1/tcp/0", "127.0.0.1:0"
	p := &cfg.Gossip
	p.Probe, p.ProbeTimeout, p.Suspicion = 200*time.Millisecond, 150*time.Millisecond, 2
	p.Gossip, p.PushPull, p.Rejoin = 10*time.Millisecond, time.Second, 300*time.Millisecond
	p.JoinMin, p.JoinMax = 20*time.Millisecond, 100*time.Millisecond
	p.Quantum, p.Quiescence = 50*time.Millisecond, 5*time.Millisecond
	return cfg
}

func start(t *testing.T, cfg mesh.Config) *mesh.Mesh {
	t.Helper()
	m, err := mesh.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestConformance(t *testing.T) {
	meshtest.Conformance(t, func(t *testing.T, n int) []meshtest.Mesh {
		var nodes []meshtest.Mesh
		var join []string
		for range n {
			m := start(t, loopbackConfig(t, join...))
			join = []string{m.GossipAddr()}
			nodes = append(nodes, m)
		}
		return nodes
	})
}

func TestRestartKeepsTheIdentityAndFindsNewAddresses(t *testing.T) {
	up := make(chan anchormesh.NodeID, 10)
	down := make(chan anchormesh.NodeID, 10)
	cfg := loopbackConfig(t)
	cfg.Events = mesh.Events{
		PeerUp:   func(id anchormesh.NodeID) { up <- id },
		PeerDown: func(id anchormesh.NodeID) { down <- id },
	}
	a := start(t, cfg)
	cfg = loopbackConfig(t, a.GossipAddr())
	echo := func(_ anchormesh.NodeID, p []byte, r mesh.Responder) { r.Reply(p) }
	b := start(t, cfg)
	b.HandleCalls(1, echo)
	id, epoch, boot := b.ID(), b.Self().Epoch, b.Self().Boot
	testkit.Eventually(t, "a sees b", func() bool { return len(a.View().Alive()) == 2 })
	if _, err := a.Call(testkit.Within(t), id, 1); err != nil {
		t.Fatal(err)
	}
	if <-up != id {
		t.Fatal("another peer is up")
	}
	b.Close()
	if <-down != id {
		t.Fatal("another peer is down")
	}
	b = start(t, cfg) // other ports
	b.HandleCalls(1, echo)
	if self := b.Self(); self.ID != id || self.Epoch <= epoch || self.Boot == boot {
		t.Fatalf("%+v", self)
	}
	testkit.Eventually(t, "a calls b at its new address", func() bool {
		_, err := a.Call(testkit.Within(t), id, 1)
		return err == nil
	})
	if <-up != id || !a.Connected(id) {
		t.Fatal("not up")
	}
}

func TestTwoMeshesUnderOneKeyStayApart(t *testing.T) {
	met := make(chan anchormesh.MeshID, 10)
	cfg := loopbackConfig(t)
	cfg.Mesh = 1
	cfg.Events.ForeignMesh = func(other anchormesh.MeshID, _ anchormesh.NodeID) { met <- other }
	a := start(t, cfg)
	cfg = loopbackConfig(t, a.GossipAddr())
	cfg.Mesh = 2
	b := start(t, cfg)
	if other := <-met; other != 2 {
		t.Fatalf("met %v", other)
	}
	testkit.Eventually(t, "both know both", func() bool { return len(a.MeshIDs()) == 2 && len(b.MeshIDs()) == 2 })
	if a.View().Len() != 1 || b.View().Len() != 1 {
		t.Fatal("one is in the other's view")
	}
	if _, err := a.Call(testkit.Within(t), b.ID(), 1); !errors.Is(err, mesh.ErrUnreachable) {
		t.Fatalf("%v", err)
	}
}

func TestCopiedDataDirectoryIsLoud(t *testing.T) {
	a := start(t, loopbackConfig(t))
	loud := make(chan string, 10)
	logs := new(testkit.Log)
	cfg := loopbackConfig(t, a.GossipAddr())
	cfg.Logger = slog.New(slog.NewTextHandler(logs, nil))
	cfg.Events.IdentityInUse = func(detail string) { loud <- detail }
	b := start(t, cfg)
	testkit.Eventually(t, "a sees b", func() bool { return len(a.View().Alive()) == 2 })
	cfg.DataDir = copyDir(t, cfg.DataDir)
	start(t, cfg)
	<-loud
	if !strings.Contains(logs.String(), "data directory was copied") || !strings.Contains(logs.String(), string(b.ID())) {
		t.Fatal(logs)
	}
}

func copyDir(t *testing.T, from string) string {
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestBadStartsAreOneSentence(t *testing.T) {
	a := start(t, loopbackConfig(t))
	for name, x := range map[string]struct {
		spoil func(*mesh.Config)
		want  []string
	}{
		"key":       {func(c *mesh.Config) { c.Key = mesh.Key{} }, []string{"mesh key is not set"}},
		"data":      {func(c *mesh.Config) { c.DataDir = filepath.Join(c.DataDir, "absent") }, []string{"identity key", "no such file"}},
		"peer port": {func(c *mesh.Config) { c.PeerAddr = a.PeerListenAddr() }, []string{a.PeerListenAddr(), "in use"}},
		"gossip":    {func(c *mesh.Config) { c.GossipAddr = a.GossipAddr() }, []string{a.GossipAddr(), "in use"}},
		"peer addr": {func(c *mesh.Config) { c.PeerAddr = "127.0.0.1:1" }, []string{"127.0.0.1:1", "multiaddr"}},
		"advertise": {func(c *mesh.Config) { c.AdvertisePeer = []string{"/ip4/0.0.0.0/tcp/1"} }, []string{"nobody can dial"}},
		"record":    {func(c *mesh.Config) { c.Zone = strings.Repeat("z", 400) }, []string{"too large"}},
		"identity": {func(c *mesh.Config) {
			os.WriteFile(filepath.Join(c.DataDir, wire.IdentityFile), []byte("garbage"), 0o600)
		}, []string{wire.IdentityFile, "not a usable identity"}},
	} {
		before := runtime.NumGoroutine()
		cfg := loopbackConfig(t)
		x.spoil(&cfg)
		m, err := mesh.Start(context.Background(), cfg)
		if err == nil {
			m.Close()
			t.Errorf("%s: started", name)
			continue
		}
		for _, w := range x.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not mention %q", name, err, w)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", name, err)
		}
		testkit.Eventually(t, name+" leaves nothing behind", func() bool { return runtime.NumGoroutine() <= before })
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	a := start(t, loopbackConfig(t))
	b := start(t, loopbackConfig(t, a.GossipAddr()))
	b.HandleCalls(1, func(_ anchormesh.NodeID, p []byte, r mesh.Responder) { r.Reply(p) })
	testkit.Eventually(t, "a sees b", func() bool { return len(a.View().Alive()) == 2 })
	if _, err := a.Call(testkit.Within(t), b.ID(), 1); err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	testkit.Eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestGossipPaceOfDefaults(t *testing.T) {
	if err := gossip.DefaultPace().Validate(); err != nil {
		t.Fatal(err)
	}
	cfg := mesh.DefaultConfig()
	cfg.Key, cfg.DataDir = testKey, "x"
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
}

// All nodes of a mesh stop, and start again without a word about each other: they were
// met before, and find one another within the pauses of joining. One of them was
// killed, one has a damaged file.
func TestAMeshComesTogetherAfterARestartOfAll(t *testing.T) {
	var cfgs []mesh.Config
	var nodes []*mesh.Mesh
	for range 3 {
		var join []string
		if len(nodes) > 0 {
			join = []string{nodes[0].GossipAddr()}
		}
		cfg := loopbackConfig(t, join...)
		m := start(t, cfg)
		cfg.GossipAddr, cfg.Join = m.GossipAddr(), nil
		cfgs, nodes = append(cfgs, cfg), append(nodes, m)
	}
	together := func() bool {
		return !slices.ContainsFunc(nodes, func(m *mesh.Mesh) bool { return len(m.View().Alive()) != len(nodes) })
	}
	testkit.Eventually(t, "all meet", together)
	for _, m := range nodes {
		m.Close()
	}
	if err := os.WriteFile(filepath.Join(cfgs[1].DataDir, mesh.KnownFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfgs[2].DataDir, mesh.KnownFile)); err != nil { // as if killed at once
		t.Fatal(err)
	}
	for i, cfg := range cfgs {
		nodes[i] = start(t, cfg)
	}
	testkit.Eventually(t, "all meet again", together)
}
