package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func put(ctx context.Context, t testing.TB, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	resp, err := c.Put(ctx, key, value)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return resp.Header.Revision
}

func get(ctx context.Context, t *testing.T, c *clientv3.Client, key string, opts ...clientv3.OpOption) string {
	t.Helper()
	resp, err := c.Get(ctx, key, opts...)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func TestEveryNodeServesEtcdClients(t *testing.T) {
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for i := range m.nodes {
		c := m.client(i)
		key := fmt.Sprintf("key/%d", i)
		rev := put(ctx, t, c, key, "one")
		if rev != int64(2+2*i) {
			t.Errorf("first put through node %d took revision %d, want %d", i, rev, 2+2*i)
		}
		if got := get(ctx, t, c, key, clientv3.WithSerializable()); got != "one" {
			t.Errorf("a serializable read through the node that answered the put gives %q", got)
		}
		put(ctx, t, c, key, "two")
		for j := range m.nodes {
			if got := get(ctx, t, m.client(j), key); got != "two" {
				t.Errorf("node %d reads %q, want what was acknowledged through node %d", j, got, i)
			}
		}
	}
}

func TestWatchThroughEveryNode(t *testing.T) {
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client()
	first := put(ctx, t, c, "w/0", "x")
	for k := 1; k < 20; k++ {
		put(ctx, t, c, fmt.Sprintf("w/%d", k), "x")
	}
	for i := range m.nodes {
		seen := 0
		for resp := range m.client(i).Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(first)) {
			if err := resp.Err(); err != nil {
				t.Fatal(err)
			}
			for _, ev := range resp.Events {
				if want := first + int64(seen); ev.Kv.ModRevision != want {
					t.Fatalf("node %d: event of revision %d, want %d", i, ev.Kv.ModRevision, want)
				}
				seen++
			}
			if seen == 20 {
				break
			}
		}
	}
}

func TestLeasesEndAndKeepAlivesHold(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client(2)
	short, err := c.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	long, err := c.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := c.KeepAlive(ctx, long.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive {
		}
	}()
	for key, id := range map[string]clientv3.LeaseID{"ends": short.ID, "stays": long.ID} {
		if _, err := c.Put(ctx, key, "v", clientv3.WithLease(id)); err != nil {
			t.Fatal(err)
		}
	}
	m.eventually(15*time.Second, "end of the lease", func() bool { return get(ctx, t, c, "ends") == "" })
	if got := get(ctx, t, c, "stays"); got != "v" {
		t.Errorf("the key of a lease that is kept alive is %q", got)
	}
}

func TestLeasesEndAfterTheirLeaderIsGone(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	grant := func(key string) {
		t.Helper()
		l, err := c.Grant(ctx, 4)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, key, "v", clientv3.WithLease(l.ID)); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(key string) func() bool {
		return func() bool {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			resp, err := c.Get(short, key)
			return err == nil && len(resp.Kvs) == 0
		}
	}
	grant("by a leader that stops")
	leader := m.leader()
	m.stop(leader)
	m.eventually(20*time.Second, "end of a lease under the next leader", gone("by a leader that stops"))
	m.start(leader)
	m.awaitVoters(3)

	grant("before a restart of all")
	for i := range m.nodes {
		m.stop(i)
	}
	for i := range m.nodes {
		m.start(i)
	}
	m.eventually(30*time.Second, "end of a lease after a restart of all", gone("before a restart of all"))
}

func TestRestartOfAllKeepsEverything(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	var last int64
	for k := range 200 {
		last = put(ctx, t, c, fmt.Sprintf("r/%03d", k), fmt.Sprint(k))
	}
	for i := range m.nodes {
		m.stop(i)
	}
	for i := range m.nodes {
		m.start(i)
	}
	resp, err := m.client().Get(ctx, "r/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != 200 || resp.Header.Revision != last {
		t.Errorf("after the restart: %d keys at revision %d, want 200 at %d", resp.Count, resp.Header.Revision, last)
	}
}

func TestWritesGoOnWithoutAnyOneNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.client()
	for i := range m.nodes {
		put(ctx, t, c, "before", fmt.Sprint(i))
		m.stop(i)
		m.eventually(10*time.Second, "write without a node", func() bool {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := c.Put(short, "during", fmt.Sprint(i))
			return err == nil
		})
		m.start(i)
		m.awaitVoters(3)
		m.eventually(20*time.Second, "return of the node", func() bool {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			resp, err := m.client(i).Get(short, "during", clientv3.WithSerializable())
			return err == nil && len(resp.Kvs) == 1 && string(resp.Kvs[0].Value) == fmt.Sprint(i)
		})
	}
}
