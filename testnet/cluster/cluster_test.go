package cluster

import (
	"context"
	"testing"
	"time"
)

func TestParseStatSkipsTheProgramsName(t *testing.T) {
	stat := "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20"
	if got, err := parseStat([]byte(stat)); err != nil || got != 3*time.Second {
		t.Fatalf("got %v, %v, want 3s", got, err)
	}
	if _, err := parseStat([]byte("42 (x) S 1")); err == nil {
		t.Fatal("a truncated line was accepted")
	}
}

func TestPortsAreDistinctAndLocked(t *testing.T) {
	a, err := reservePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	defer releasePorts(a)
	seen := map[int]bool{}
	for _, lock := range a {
		if seen[lock.port] {
			t.Fatalf("port %d was given twice", lock.port)
		}
		seen[lock.port] = true
		if _, ok := tryPort(t.TempDir(), lock.port); !ok {
			t.Errorf("port %d is not free", lock.port)
		}
	}
}

// One node is killed, stopped, resumed and ended; the cluster goes on, the node
// returns, and the CPU time of its incarnations is kept.
func TestEtcdClusterLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := Start(ctx, Config{Kind: Etcd, Size: 3, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client, err := c.Client(c.Nodes[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	put := func(value string) {
		t.Helper()
		// The node that is away may have led: etcd fails what it had accepted.
		_, err := client.Put(ctx, "k", value)
		for err != nil && ctx.Err() == nil {
			_, err = client.Put(ctx, "k", value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := c.Nodes[0]
	n.Kill()
	if n.Running() {
		t.Fatal("killed node runs")
	}
	killed, err := n.Usage()
	must(err)
	if killed.CPU == 0 || killed.RSS != 0 {
		t.Fatalf("usage of a killed node: %+v", killed)
	}
	put("while one is dead")
	must(n.Start())
	must(c.Ready(ctx))
	running, err := n.Usage()
	must(err)
	if running.CPU <= killed.CPU || running.RSS == 0 || running.PeakRSS < running.RSS || running.Anon <= 0 || running.File <= 0 || running.Anon+running.File > running.PeakRSS {
		t.Fatalf("usage went from %+v to %+v over a restart", killed, running)
	}
	must(n.Pause())
	put("while one is stopped")
	must(n.Resume())
	must(c.Ready(ctx))
	must(n.Stop(ctx))
	if err := n.Pause(); err == nil {
		t.Fatal("an ended node was paused")
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Kind: Etcd, Size: 1, Dir: "."}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Config{{Kind: "zookeeper", Size: 1, Dir: "."}, {Kind: Etcd, Dir: "."}, {Kind: Mesh, Size: 3}, {Kind: Etcd, Size: 1, Dir: ".", Failpoints: "a=panic"}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
