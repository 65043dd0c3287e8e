package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// says waits for a line in the node's log.
func (n *labNode) says(limit time.Duration, words ...string) {
	n.lab.t.Helper()
	n.lab.eventually(limit, n.name+" to say so", func() error {
		for line := range strings.Lines(n.run.output.String()) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return nil
			}
		}
		return fmt.Errorf("no line has all of %q", words)
	})
}

// serves does a write and a read through the node.
func (n *labNode) serves(key string) {
	n.lab.t.Helper()
	ctx, cancel := context.WithTimeout(n.lab.t.Context(), 10*time.Second)
	defer cancel()
	c := n.lab.dial(n)
	if _, err := c.Put(ctx, key, n.name); err != nil {
		n.lab.t.Errorf("put through %s: %v", n.name, err)
	}
	if got, err := c.Get(ctx, key); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != n.name {
		n.lab.t.Errorf("get through %s: %v, %v", n.name, got, err)
	}
}

// A node with another mesh key gets nowhere, says so, and harms nobody.
func TestWrongMeshKey(t *testing.T) {
	l := labMesh(t, 1)
	good := l.keyFile
	l.keyFile = l.newKey("other.key")
	stranger := l.add().start()
	l.keyFile = good
	stranger.says(20*time.Second, "cannot join yet", "it has another mesh key")
	if code, body := stranger.get("readyz"); code != 503 || !strings.Contains(body, "belongs to no mesh") {
		t.Errorf("readiness of a node without a mesh: %d %s", code, body)
	}
	if code, _ := stranger.get("healthz"); code != 200 {
		t.Errorf("health of a node without a mesh: %d", code)
	}
	l.nodes[0].serves("k")
	if m := l.nodes[0].members(); len(m) != 1 {
		t.Errorf("the mesh took it in: %+v", m)
	}
	stranger.stop()  // ends in time though it never joined
	stranger.start() // with the right key now: what it met before does not matter
	stranger.says(20*time.Second, "joined a mesh")
}

// Two nodes that were both told to create the mesh meet: both say so, neither
// takes the other in, both serve on.
func TestSecondGenesis(t *testing.T) {
	l := labMesh(t, 1)
	second := l.add("--genesis").start()
	l.nodes[0].says(20*time.Second, "level=ERROR", "another mesh", "key")
	second.says(20*time.Second, "level=ERROR", "another mesh", "key")
	for _, n := range l.nodes {
		n.serves("k")
		if s, err := n.segment(); err != nil || len(s.Anchors) != 1 {
			t.Errorf("%s: anchors %+v, %v", n.name, s.Anchors, err)
		}
	}
	// A newcomer belongs to the one it meets first, or waits until one is left.
	newcomer := l.add().start()
	second.kill()
	newcomer.says(60*time.Second, "joined a mesh")
	l.nodes[0].serves("k")
}

// --genesis may stay on the command line for good; on a node that joined a mesh
// it does nothing.
func TestGenesisAgain(t *testing.T) {
	l := labMesh(t, 2)
	fill(t, l, 10)
	before, err := l.nodes[0].segment()
	must(t, err)
	l.nodes[1].args = []string{"--genesis"}
	for _, n := range l.nodes {
		n.stop()
		n.start() // the first one has --genesis every time
	}
	l.awaitVoters(1)
	checkFilled(t, l, 10)
	if after, err := l.nodes[1].segment(); err != nil || after.ID != before.ID {
		t.Errorf("segment %s before, %s after, %v", before.ID, after.ID, err)
	}
}

// A data directory was copied and runs twice: one of the processes notices, stops
// and says why; the original can go on.
func TestCopiedDataDirectory(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3)
	fill(t, l, 10)
	original := l.nodes[1]
	original.kill()
	twin := l.add()
	copyDir(t, original.dir, twin.dir)
	twin.name = "twin"
	original.start()
	l.awaitVoters(3)
	twin.start()
	l.eventually(60*time.Second, "the end of one of them", func() error {
		if original.running() && twin.running() {
			return errors.New("both run")
		}
		return nil
	})
	for _, n := range []*labNode{original, twin} {
		if !n.running() && (n.exit(time.Second) != 1 || !strings.Contains(n.complaint(), "its data directory was copied")) {
			t.Errorf("%s: status %d, it says %q", n.name, n.exit(time.Second), n.complaint())
		}
		n.kill()
	}
	l.nodes[0].serves("k")
	original.start()
	l.awaitVoters(3)
	original.serves("k")
}

// Bytes that mean nothing, on every port a node listens on.
func TestJunkOnEveryPort(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 1)
	n := l.nodes[0]
	rng := rand.New(rand.NewPCG(1, 2))
	junk := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, addr := range []string{n.client, n.peer, n.gossip, n.http} {
		for _, text := range [][]byte{
			nil, []byte("GET / HTTP/1.1\r\n\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), []byte("/multistream/1.0.0\n"), junk(10), junk(100_000),
		} {
			conn, err := net.Dial("tcp", addr)
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(200*time.Millisecond)))
			_, _ = conn.Write(text)          // the node may hang up
			_, _ = io.Copy(io.Discard, conn) // or wait
			conn.Close()
		}
		conn, err := net.Dial("udp", addr)
		must(t, err)
		for size := range 60 {
			_, _ = conn.Write(junk(size * 20)) // nobody may listen
		}
		conn.Close()
	}
	n.serves("k")
	if !n.running() || strings.Contains(n.run.output.String(), "panic") {
		t.Errorf("the node after junk:\n%s", n.run.output.String())
	}
	if lines := strings.Count(n.run.output.String(), "\n"); lines > 40 {
		t.Errorf("%d lines of log, junk must not fill the disk:\n%s", lines, n.run.output.String())
	}
}

// Half-open connections without a word must not keep others out or the node from
// stopping.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 1)
	n := l.nodes[0]
	for _, addr := range []string{n.client, n.peer, n.gossip, n.http} {
		for range 50 {
			conn, err := net.Dial("tcp", addr)
			must(t, err)
			defer conn.Close()
		}
	}
	n.serves("k")
	if _, errs, status := l.cli("status", "--endpoint", n.self().PeerAddrs[0]+"/p2p/"+n.id(), "--mesh-key-file", l.keyFile); status != 0 {
		t.Errorf("over libp2p: %s", errs)
	}
	begin := time.Now()
	n.stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "node.json")); err != nil {
		t.Error(err)
	}
}
