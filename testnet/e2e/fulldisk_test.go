package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// smallDisk puts the node's data directory on a file system of its own. Only
// root may.
func smallDisk(t *testing.T, n *labNode, mib int) {
	t.Helper()
	must(t, os.MkdirAll(n.dir, 0o700))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "tmpfs", n.dir).CombinedOutput(); err != nil {
		t.Skipf("a file system of a limited size cannot be mounted here: %s", out)
	}
	t.Cleanup(func() {
		n.kill()
		if out, err := exec.Command("umount", n.dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
}

func growDisk(t *testing.T, n *labNode, mib int) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", fmt.Sprintf("remount,size=%dm", mib), n.dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %s", out)
	}
}

// fillDisk writes until one write fails, and returns how many were acknowledged.
func fillDisk(ctx context.Context, t *testing.T, c *clientv3.Client) int {
	t.Helper()
	value := strings.Repeat("v", 1<<20)
	for i := range 1000 {
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		_, err := c.Put(short, fmt.Sprintf("big/%04d", i), fmt.Sprintf("%04d%s", i, value))
		cancel()
		if err != nil {
			t.Logf("write %d: %v", i, err)
			return i
		}
	}
	t.Fatal("1000 MiB fitted on the small disk")
	return 0
}

func checkBig(ctx context.Context, t *testing.T, c *clientv3.Client, keys int) {
	t.Helper()
	for i := range keys {
		got, err := c.Get(ctx, fmt.Sprintf("big/%04d", i))
		if err != nil || len(got.Kvs) != 1 || !strings.HasPrefix(string(got.Kvs[0].Value), fmt.Sprintf("%04d", i)) {
			t.Fatalf("write %d was acknowledged; now %d keys, %v", i, len(got.Kvs), err)
		}
	}
}

// The disk of a node that is alone fills up: it stops with one sentence, stays
// down while there is no room, and has everything when there is.
func TestFullDisk(t *testing.T) {
	l := newLab(t)
	n := l.add()
	smallDisk(t, n, 220)
	n.start()
	l.awaitVoters(1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	acked := fillDisk(ctx, t, l.dial())
	status := n.exit(30 * time.Second)
	t.Logf("after %d MiB: status %d, %s", acked, status, n.complaint())
	if text := n.complaint(); status != 1 || !strings.Contains(text, "no space left on device") || strings.Contains(text, "goroutine ") {
		t.Errorf("status %d, it says:\n%s", status, text)
	}
	// Without room it ends as it did, or serves what it has, by how much it wrote.
	n.start()
	probe := l.dial()
	l.eventually(60*time.Second, "an end or an answer", func() error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := probe.Get(short, "k"); err != nil && n.running() {
			return err
		}
		return nil
	})
	if !n.running() && (n.exit(time.Second) != 1 || !strings.Contains(n.complaint(), "no space left on device")) {
		t.Errorf("without room: status %d, it says:\n%s", n.exit(time.Second), n.complaint())
	}
	n.kill()
	growDisk(t, n, 1000)
	n.start()
	l.awaitVoters(1)
	checkBig(ctx, t, l.dial(), acked)
	n.serves("after")
}

// The disk of one anchor of three fills up: the others go on, and it catches up
// when there is room again.
func TestFullDiskOfOneAnchor(t *testing.T) {
	if testing.Short() {
		t.Skip("writes hundreds of MiB")
	}
	l := newLab(t)
	for range 3 {
		l.add()
	}
	small := l.nodes[2]
	smallDisk(t, small, 520) // an anchor is not taken without 256 MiB of room
	for _, n := range l.nodes {
		n.start()
	}
	l.awaitVoters(3)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := l.dial(l.nodes[0], l.nodes[1])
	value := strings.Repeat("v", 1<<20)
	acked := 0
	for ; small.running() && acked < 1000; acked++ {
		if _, err := c.Put(ctx, fmt.Sprintf("big/%04d", acked), fmt.Sprintf("%04d%s", acked, value)); err != nil {
			t.Fatalf("write %d with a majority that has room: %v", acked, err)
		}
	}
	t.Logf("after %d MiB: %s", acked, small.complaint())
	if status := small.exit(time.Second); status == 0 || !strings.Contains(small.complaint(), "no space left on device") {
		t.Errorf("status %d, it says:\n%s", status, small.complaint())
	}
	growDisk(t, small, 3000)
	small.start()
	put, err := c.Put(ctx, "after", "x")
	must(t, err)
	own := l.dial(small)
	l.eventually(90*time.Second, "it to catch up", func() error {
		got, err := own.Get(ctx, "after", clientv3.WithSerializable())
		if err == nil && (len(got.Kvs) != 1 || got.Header.Revision < put.Header.Revision) {
			err = errors.New("not there yet")
		}
		return err
	})
	checkBig(ctx, t, c, acked)
}
