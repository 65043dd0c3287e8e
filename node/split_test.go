package node_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// trySplit asks node i to cut at a key.
func (m *testMesh) trySplit(i int, at string, dry bool) error {
	m.t.Helper()
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = meshpb.NewMeshClient(conn).Split(ctx, &meshpb.SplitRequest{Boundary: []byte(at), Operator: "test", DryRun: dry})
	return err
}

// split cuts at a key, as soon as the segment there has a leader.
func (m *testMesh) split(at string) {
	m.t.Helper()
	m.eventually(20*time.Second, "split at "+at, func() bool {
		err := m.trySplit(0, at, false)
		if code := status.Code(err); err != nil && code != codes.Unavailable && code != codes.DeadlineExceeded {
			m.t.Fatal(err)
		}
		return err == nil
	})
}

// Splits survive a restart of all nodes: the keys are where they were, revisions go
// on above all that were given, and every segment is led.
func TestSplitsSurviveARestartOfAll(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	for k := range 60 {
		put(ctx, t, c, fmt.Sprintf("s/%02d", k), "v")
	}
	for _, at := range []string{"s/30", "s/10", "s/50", "s/40"} {
		m.split(at)
	}
	var last int64
	for k := range 60 {
		last = put(ctx, t, c, fmt.Sprintf("s/%02d", k), fmt.Sprint(k))
	}
	for i := range m.nodes {
		m.stop(i)
	}
	for i := range m.nodes {
		m.start(i)
	}
	resp, err := m.client().Get(ctx, "s/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != 60 || resp.Header.Revision < last {
		t.Errorf("after the restart: %d keys at revision %d, want 60 at %d or above", resp.Count, resp.Header.Revision, last)
	}
	for k, kv := range resp.Kvs {
		if string(kv.Value) != fmt.Sprint(k) {
			t.Errorf("%s is %q", kv.Key, kv.Value)
		}
	}
	if rev := put(ctx, t, c, "s/35", "after"); rev <= resp.Header.Revision {
		t.Errorf("a write after the restart got revision %d, a read before it showed %d", rev, resp.Header.Revision)
	}
	if n := len(m.segments(1)); n != 5 {
		t.Errorf("node 2 knows %d segments", n)
	}
}

// A lease holds keys in many segments, opened before and after splits: it tells of
// all of them, a revoke takes all of them, and so does its end by time, with a home
// that changed its leader in between.
func TestLeasesOverSegments(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.client()
	keys := []string{"a", "h", "n", "t", "z"}
	hang := func(ttl int64) clientv3.LeaseID {
		t.Helper()
		l, err := c.Grant(ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if _, err := c.Put(ctx, k, "v", clientv3.WithLease(l.ID)); err != nil {
				t.Fatalf("%s: %v", k, err)
			}
		}
		return l.ID
	}
	held := func() (out []string) {
		t.Helper()
		resp, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			out = append(out, string(kv.Key))
		}
		return out
	}
	first := hang(300) // while there is one segment
	m.split("m")
	m.split("s")
	second := hang(300)
	m.split("e")
	told, err := c.TimeToLive(ctx, second, clientv3.WithAttachedKeys())
	if err != nil {
		t.Fatal(err)
	}
	var attached []string
	for _, k := range told.Keys {
		attached = append(attached, string(k))
	}
	slices.Sort(attached)
	if !slices.Equal(attached, keys) {
		t.Errorf("the lease tells of keys %v", attached)
	}
	if _, err := c.Revoke(ctx, first); err != nil { // its keys hang on the second now
		t.Fatal(err)
	}
	if got := held(); !slices.Equal(got, keys) {
		t.Errorf("after the end of a lease that holds nothing: %v", got)
	}
	if _, err := c.Revoke(ctx, second); err != nil {
		t.Fatal(err)
	}
	if got := held(); len(got) != 0 {
		t.Errorf("after the revoke: %v", got)
	}
	for _, k := range []string{"a", "z"} {
		if _, err := c.Put(ctx, k, "v", clientv3.WithLease(second)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Errorf("a put of %s with a revoked lease: %v", k, err)
		}
	}
	hang(4)
	m.stop(m.leader())
	m.eventually(30*time.Second, "end of the lease everywhere", func() bool {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		resp, err := m.client().Get(short, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && resp.Count == 0
	})
}

// Compaction is one act over all segments: below it history is gone in all of them,
// at it and above it is there in all of them, also where nothing was ever written.
func TestCompactionOverSegments(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "a", "1")
	put(ctx, t, c, "x", "1")
	m.split("m")
	m.split("p")
	put(ctx, t, c, "a", "2")
	at := put(ctx, t, c, "x", "2")
	last := put(ctx, t, c, "x", "3")
	if _, err := c.Compact(ctx, last+1000); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("compacting the future: %v", err)
	}
	if _, err := c.Compact(ctx, at); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, at); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("compacting again: %v", err)
	}
	for _, key := range []string{"a", "n", "x"} {
		if _, err := c.Get(ctx, key, clientv3.WithRev(at-1)); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("%s below the compaction: %v", key, err)
		}
		if _, err := c.Get(ctx, key, clientv3.WithRev(at)); err != nil {
			t.Errorf("%s at the compaction: %v", key, err)
		}
	}
	if got := get(ctx, t, c, "x", clientv3.WithRev(at)); got != "2" {
		t.Errorf("x was %q at the compaction", got)
	}
	resp, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(at))
	if err != nil || resp.Count != 2 {
		t.Errorf("all keys at the compaction: %v, %v", resp, err)
	}
}

// An operator's wrong split is refused with a reason, and dry runs change nothing.
func TestWrongSplitsAreRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	if err := m.trySplit(1, "m", true); err != nil {
		t.Fatal(err)
	}
	if n := len(m.segments(0)); n != 1 {
		t.Fatalf("a dry run left %d segments", n)
	}
	m.split("m")
	for at, want := range map[string]codes.Code{"": codes.InvalidArgument, "m": codes.FailedPrecondition} {
		var err error
		m.eventually(10*time.Second, "answer", func() bool {
			err = m.trySplit(2, at, false)
			return status.Code(err) != codes.Unavailable
		})
		if status.Code(err) != want {
			t.Errorf("a split at %q: %v", at, err)
		}
	}
}
