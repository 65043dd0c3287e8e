package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

func newClient(t *testing.T, c *cluster.Cluster, nodes ...*cluster.Node) *clientv3.Client {
	t.Helper()
	client, err := c.Client(nodes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestClient(t *testing.T) {
	c := target.Start(t, 3)
	t.Run("what one node wrote every node reads", func(t *testing.T) { testReadYourWrites(t, c) })
	t.Run("compare and swap", func(t *testing.T) { testCounter(t, c) })
	t.Run("watch", func(t *testing.T) { testWatchHistory(t, c) })
	t.Run("lease ends", func(t *testing.T) { testLeaseEnds(t, c) })
}

func testReadYourWrites(t *testing.T, c *cluster.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 30 {
		writer, reader := newClient(t, c, c.Nodes[i%3]), newClient(t, c, c.Nodes[(i+1)%3])
		value := fmt.Sprint(i)
		put, err := writer.Put(ctx, "ryw", value)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reader.Get(ctx, "ryw")
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Kvs[0].Value) != value || got.Kvs[0].ModRevision != put.Header.Revision || got.Header.Revision < put.Header.Revision {
			t.Fatalf("put %s at revision %d, then read %v", value, put.Header.Revision, got)
		}
	}
}

// testCounter lets clients of all nodes increase one number; none may be lost.
func testCounter(t *testing.T, c *cluster.Cluster) {
	const each = 30
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	for _, n := range c.Nodes {
		client := newClient(t, c, n)
		go func() { done <- increase(ctx, client, each) }()
	}
	for range c.Nodes {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	got, err := newClient(t, c).Get(ctx, "counter")
	if err != nil {
		t.Fatal(err)
	}
	if n := each * len(c.Nodes); string(got.Kvs[0].Value) != fmt.Sprint(n) || got.Kvs[0].Version != int64(n) {
		t.Fatalf("%d increases gave %v", n, got.Kvs[0])
	}
}

func increase(ctx context.Context, client *clientv3.Client, times int) error {
	for range times {
		for {
			var n int
			var rev int64
			got, err := client.Get(ctx, "counter")
			if err != nil {
				return err
			}
			if len(got.Kvs) == 1 {
				rev = got.Kvs[0].ModRevision
				if _, err := fmt.Sscan(string(got.Kvs[0].Value), &n); err != nil {
					return err
				}
			}
			txn, err := client.Txn(ctx).
				If(clientv3.Compare(clientv3.ModRevision("counter"), "=", rev)).
				Then(clientv3.OpPut("counter", fmt.Sprint(n+1))).
				Commit()
			if err != nil {
				return err
			}
			if txn.Succeeded {
				break
			}
		}
	}
	return nil
}

// testWatchHistory watches from the first of many revisions, through another
// node than wrote them: every event, once, in order, then a progress notice.
func testWatchHistory(t *testing.T, c *cluster.Cluster) {
	const events = 200
	writer, watcher := newClient(t, c, c.Nodes[0]), newClient(t, c, c.Nodes[1])
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var first, last int64
	var watch clientv3.WatchChan
	for i := range events {
		put, err := writer.Put(ctx, fmt.Sprintf("watched/%d", i%7), fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		if last = put.Header.Revision; i == 0 {
			first = last
		}
		if i == events/2 {
			watch = watcher.Watch(ctx, "watched/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV())
		}
	}
	rev, next := first-1, 0
	for next < events {
		resp, ok := <-watch
		if !ok || resp.Err() != nil {
			t.Fatalf("watch ended after %d events: %v", next, resp.Err())
		}
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision <= rev || string(ev.Kv.Value) != fmt.Sprint(next) {
				t.Fatalf("event %d after revision %d is %v", next, rev, ev)
			}
			if hasPrev := ev.PrevKv != nil; hasPrev != (next >= 7) {
				t.Fatalf("event %d: previous value %v", next, ev.PrevKv)
			}
			rev, next = ev.Kv.ModRevision, next+1
		}
	}
	for {
		if err := watcher.RequestProgress(ctx); err != nil {
			t.Fatal(err)
		}
		if resp, ok := <-watch; !ok || len(resp.Events) > 0 {
			t.Fatalf("expected progress, got %v", resp)
		} else if resp.IsProgressNotify() && resp.Header.Revision >= last {
			return
		}
	}
}

// testLeaseEnds lets a lease run out: its key goes, with an event, not before its
// time; another, kept alive, stays.
func testLeaseEnds(t *testing.T, c *cluster.Cluster) {
	const ttlSeconds = 2
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := newClient(t, c)
	watch := client.Watch(ctx, "leased/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	begin := time.Now()
	for _, key := range []string{"leased/gone", "leased/kept"} {
		lease, err := client.Grant(ctx, ttlSeconds)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Put(ctx, key, "v", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		if key == "leased/kept" {
			if _, err := client.KeepAlive(ctx, lease.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	resp := <-watch
	if resp.Err() != nil || len(resp.Events) != 1 || string(resp.Events[0].Kv.Key) != "leased/gone" {
		t.Fatalf("%v, %v", resp.Events, resp.Err())
	}
	if took := time.Since(begin); took < ttlSeconds*time.Second {
		t.Errorf("a lease of %d s ended after %v", ttlSeconds, took)
	}
	if got, err := client.Get(ctx, "leased/kept"); err != nil || got.Count != 1 {
		t.Errorf("the key of a lease that is kept alive: %v, %v", got, err)
	}
	if _, err := client.Put(ctx, "leased/x", "v", clientv3.WithLease(12345)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("put with a lease that does not exist: %v", err)
	}
}
