package mirror

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

const (
	manyKeys  = 50_000
	shortKeys = 3_000
	fillTxn   = 100             // keys per transaction when filling the source
	changes   = 1_500           // of the source while it is being followed
	deadline  = 8 * time.Minute // of the whole test
	poll      = 100 * time.Millisecond
	page      = 5_000 // keys per range when comparing
)

// TestMirrorOfEtcd goes through both phases of make-mirror: the copy of what is
// there, then the following of changes. In each a node is killed and restarted.
func TestMirrorOfEtcd(t *testing.T) {
	n := manyKeys
	if testing.Short() {
		n = shortKeys
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	source := target.StartKind(t, cluster.Etcd, 1, "--unsafe-no-fsync")
	dest := target.Start(t, 3)
	from, to := client(t, source), client(t, dest)
	fill(ctx, t, from, n)

	m := startMirror(ctx, t, source, dest.Nodes[0])
	waitForKeys(ctx, t, to, n/5)
	dest.Nodes[2].Kill()
	waitForKeys(ctx, t, to, n/2)
	restart(ctx, t, dest, dest.Nodes[2])
	waitForKeys(ctx, t, to, n)

	// From here a new make-mirror must not copy anew: it would miss deletions.
	m.follow.Store(revision(ctx, t, from) + 1)
	half := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { change(ctx, t, from, n, half) })
	<-half
	dest.Nodes[1].Kill()
	wg.Wait()
	restart(ctx, t, dest, dest.Nodes[1])
	mark(ctx, t, from, to)

	compare(ctx, t, from, to)
	t.Logf("make-mirror was started %d times", m.starts.Load())
}

func client(t *testing.T, c *cluster.Cluster) *clientv3.Client {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func key(i int) string { return fmt.Sprintf("mirrored/%08d", i) }

func fill(ctx context.Context, t *testing.T, c *clientv3.Client, n int) {
	t.Helper()
	for i := 0; i < n; i += fillTxn {
		var ops []clientv3.Op
		for k := i; k < min(i+fillTxn, n); k++ {
			ops = append(ops, clientv3.OpPut(key(k), fmt.Sprintf("value %d", k)))
		}
		if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// mirror keeps "etcdctl make-mirror" running: it ends with an error whenever a
// write fails, as it may when a leader dies, and a user starts it again.
type mirror struct {
	follow atomic.Int64 // 0: copy all, then follow; else follow from this revision
	starts atomic.Int64
}

func startMirror(ctx context.Context, t *testing.T, source *cluster.Cluster, to *cluster.Node) *mirror {
	t.Helper()
	paths, err := binaries.Etcd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &mirror{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			args := []string{"--endpoints", source.Nodes[0].Endpoint(), "make-mirror", to.Client}
			if rev := m.follow.Load(); rev > 0 {
				args = append(args, "--rev", fmt.Sprint(rev))
			}
			m.starts.Add(1)
			out, err := exec.CommandContext(ctx, paths.Etcdctl, args...).CombinedOutput()
			if ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "make-mirror ended and is started again: %v\n%s", err, out)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// until polls cond until it is true; it fails the test when ctx ends.
func until(ctx context.Context, t *testing.T, what string, cond func() (bool, error)) {
	t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := cond()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v, last error: %v", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func waitForKeys(ctx context.Context, t *testing.T, c *clientv3.Client, n int) {
	t.Helper()
	until(ctx, t, fmt.Sprintf("waiting for %d keys", n), func() (bool, error) {
		got, err := c.Get(ctx, "mirrored/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && got.Count >= int64(n), err
	})
}

func restart(ctx context.Context, t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func revision(ctx context.Context, t *testing.T, c *clientv3.Client) int64 {
	t.Helper()
	got, err := c.Get(ctx, key(0))
	if err != nil {
		t.Fatal(err)
	}
	return got.Header.Revision
}

// change puts, deletes and adds keys in turn, and closes half in the middle.
func change(ctx context.Context, t *testing.T, c *clientv3.Client, n int, half chan<- struct{}) {
	for i := range changes {
		var err error
		switch i % 3 {
		case 0:
			_, err = c.Put(ctx, key(i), fmt.Sprintf("changed %d", i))
		case 1:
			_, err = c.Delete(ctx, key(i))
		default:
			_, err = c.Txn(ctx).Then(clientv3.OpPut(key(n+i), "added"), clientv3.OpDelete(key(i))).Commit()
		}
		if err != nil {
			t.Errorf("change of the source: %v", err)
		}
		if i == changes/2 {
			close(half)
		}
	}
}

// mark puts a last key and waits until it has arrived: changes are followed in
// order, so all before it have.
func mark(ctx context.Context, t *testing.T, from, to *clientv3.Client) {
	t.Helper()
	const last = "mirrored/last"
	if _, err := from.Put(ctx, last, ""); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "waiting for the last change", func() (bool, error) {
		got, err := to.Get(ctx, last)
		return err == nil && got.Count == 1, err
	})
}

// compare walks through both whole key spaces.
func compare(ctx context.Context, t *testing.T, from, to *clientv3.Client) {
	t.Helper()
	next, total := "\x00", 0
	for {
		a, b := read(ctx, t, from, next), read(ctx, t, to, next)
		for i := range min(len(a), len(b)) {
			if !bytes.Equal(a[i].Key, b[i].Key) || !bytes.Equal(a[i].Value, b[i].Value) {
				t.Fatalf("after %d equal keys etcd has %q=%q, the target %q=%q", total+i, a[i].Key, a[i].Value, b[i].Key, b[i].Value)
			}
		}
		if len(a) != len(b) {
			t.Fatalf("behind %q etcd has %d keys, the target %d", next, len(a), len(b))
		}
		total += len(a)
		if len(a) < page {
			t.Logf("%d keys are equal", total)
			return
		}
		next = string(a[len(a)-1].Key) + "\x00"
	}
}

func read(ctx context.Context, t *testing.T, c *clientv3.Client, first string) []*mvccpb.KeyValue {
	t.Helper()
	got, err := c.Get(ctx, first, clientv3.WithFromKey(), clientv3.WithLimit(page))
	if err != nil {
		t.Fatal(err)
	}
	return got.Kvs
}
