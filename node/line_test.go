package node_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/verify"
)

// line makes a scope, or amends it, so that its revisions are on the line asked for, and
// waits until they are.
func (m *testMesh) line(ctx context.Context, prefix string, line policy.Line) {
	m.t.Helper()
	c := governor.Change{Kind: scope.Create, Prefix: []byte(prefix), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Line: line}}
	if _, err := m.scopes(0).Show(ctx, c.Prefix); err == nil {
		c.Kind, c.AnyVersion = scope.Amend, true
	}
	m.mustGovern(ctx, 0, c)
	m.onLine(ctx, prefix, map[policy.Line]string{policy.Own: prefix}[line])
}

// cut is split, when nothing else changes there.
func (m *testMesh) cut(at string) {
	m.t.Helper()
	m.eventually(20*time.Second, "split at "+at, func() bool {
		err := m.trySplit(0, at, false)
		if err != nil && status.Code(err) == codes.FailedPrecondition && !strings.Contains(err.Error(), "changing") && !strings.Contains(err.Error(), "changes") {
			m.t.Fatal(err)
		}
		return err == nil
	})
}

// onLine waits until all segments of a scope are on a line.
func (m *testMesh) onLine(ctx context.Context, prefix, line string) {
	m.t.Helper()
	keys := anchormesh.PrefixRange([]byte(prefix))
	m.eventually(20*time.Second, fmt.Sprintf("line %q of %q", line, prefix), func() bool {
		all := m.look(ctx).Owners
		return len(all) > 0 && !slices.ContainsFunc(all, func(o verify.Owner) bool {
			return keys.Covers(o.Descriptor.Range) && string(o.Descriptor.Line) != line
		})
	})
}

// A scope of one segment takes a line of its own, counts by one there without asking
// anybody, is cut, takes stamps from its own home, and goes back; revisions never go
// back in it, and reads over all see everything.
func TestScopeTakesItsOwnLineAndGoesBack(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	m.line(ctx, "/b/", policy.Shared)
	put(ctx, t, c, "/a/x", "1")
	last := put(ctx, t, c, "/b/x", "1")
	grown := func(what string, rev int64) {
		t.Helper()
		if rev <= last {
			t.Errorf("%s: revision %d behind %d", what, rev, last)
		}
		last = rev
	}
	m.line(ctx, "/b/", policy.Own)
	grown("first on the own line", put(ctx, t, c, "/b/x", "2"))
	for k := range 50 {
		put(ctx, t, c, "/a/x", fmt.Sprint(k))
	}
	if rev := put(ctx, t, c, "/b/y", "1"); rev != last+1 {
		t.Errorf("on its own line the scope counts from %d to %d", last, rev)
	} else {
		last = rev
	}
	all, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil || all.Count != 3 {
		t.Fatalf("a read over both lines: %v, %v", all, err)
	}
	grown("behind a read over both", put(ctx, t, c, "/b/y", "2"))
	if last <= all.Header.Revision {
		t.Errorf("a write got %d behind a snapshot at %d", last, all.Header.Revision)
	}
	m.cut("/b/m")
	grown("cut", put(ctx, t, c, "/b/z", "1"))
	m.line(ctx, "/b/", policy.Shared)
	grown("back", put(ctx, t, c, "/b/z", "2"))
	grown("back", put(ctx, t, c, "/b/a", "2"))
	m.line(ctx, "/b/", policy.Own)
	grown("again", put(ctx, t, c, "/b/z", "3"))
	grown("again", put(ctx, t, c, "/b/a", "3"))
	all, err = c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || all.Count != 5 {
		t.Fatalf("a read over both lines: %v, %v", all, err)
	}
	m.mustGovern(ctx, 1, governor.Change{Kind: scope.Delete, Prefix: []byte("/b/")})
	grown("deleted", put(ctx, t, c, "/b/z", "4"))
	m.onLine(ctx, "/b/", "")
	m.sound(ctx)
}

// Transactions over a line that counts, one with stamps and the root's: all of it or
// nothing, at one revision above everything on each line.
func TestTransactionsOverLines(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	m.cut("/c/m")
	m.line(ctx, "/b/", policy.Own)
	m.line(ctx, "/c/", policy.Own)
	keys := []string{"/a", "/b/x", "/c/a", "/c/z"}
	last := map[string]int64{}
	for k := range 20 {
		for range k % 3 {
			for _, key := range keys[k%4:] {
				last[key] = put(ctx, t, c, key, "between")
			}
		}
		value := fmt.Sprint(k)
		var ops []clientv3.Op
		for _, key := range keys {
			ops = append(ops, clientv3.OpPut(key, value))
		}
		resp, err := c.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		for key, rev := range last {
			if resp.Header.Revision <= rev {
				t.Fatalf("a transaction was committed at %d, %s had been written at %d", resp.Header.Revision, key, rev)
			}
		}
		for _, key := range keys { // one line alone, and all
			got, err := c.Get(ctx, key)
			if err != nil || string(got.Kvs[0].Value) != value || got.Kvs[0].ModRevision != resp.Header.Revision {
				t.Fatalf("%s behind transaction %d at %d: %v, %v", key, k, resp.Header.Revision, got, err)
			}
			last[key] = resp.Header.Revision
		}
		all, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil || all.Count != 4 {
			t.Fatal(all, err)
		}
	}
	del, err := c.Delete(ctx, "/", clientv3.WithPrefix())
	if err != nil || del.Deleted != 4 {
		t.Fatalf("deleted over all lines: %v, %v", del, err)
	}
	if _, err := c.Compact(ctx, del.Header.Revision); err != nil {
		t.Fatal(err)
	}
	hash := int64(-1)
	for i := range m.nodes {
		h, err := c.HashKV(ctx, m.nodes[i].cfg.Listen.Client, 0)
		if err != nil || hash >= 0 && hash != int64(h.Hash) {
			t.Errorf("node %d: hash %v, before %d, %v", i, h, hash, err)
			continue
		}
		hash = int64(h.Hash)
	}
	m.sound(ctx)
}

// A scope goes to its own line and back, and is cut, while both sides are written, read
// over both, and watched over both. Inside the scope revisions never go back, no snapshot
// is torn, and the watch has no gap, nothing twice, and everything in order.
func TestHandOverUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("many hand-overs; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	m.line(ctx, "/b/", policy.Shared)
	l := &lineLoad{t: t, stop: make(chan struct{}), last: map[string]int64{}}
	l.begin(ctx, m)
	for i, to := range []policy.Line{policy.Own, policy.Shared, policy.Own, policy.Own, policy.Shared} {
		if i == 3 {
			m.cut("/b/m")
			continue
		}
		l.settle(ctx, 30)
		m.line(ctx, "/b/", to)
	}
	l.settle(ctx, 30)
	close(l.stop)
	l.writers.Wait()
	l.watched(ctx)
	m.sound(ctx)
	t.Logf("%d writes in the scope, the longest took %v; %d snapshots", l.writes.Load(), time.Duration(l.longest.Load()), l.snapshots.Load())
}

// lineLoad writes /a/ and /b/ and checks what it sees.
type lineLoad struct {
	t         *testing.T
	stop      chan struct{}
	writers   sync.WaitGroup
	watching  sync.WaitGroup
	writes    atomic.Int64
	snapshots atomic.Int64
	longest   atomic.Int64
	mu        sync.Mutex
	last      map[string]int64 // what was written last, by key
}

func (l *lineLoad) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return l.t.Failed()
	}
}

// settle waits until so many more writes were made in the scope.
func (l *lineLoad) settle(ctx context.Context, writes int64) {
	for until := l.writes.Load() + writes; l.writes.Load() < until && ctx.Err() == nil && !l.t.Failed(); {
		<-time.After(5 * time.Millisecond)
	}
}

func (l *lineLoad) begin(ctx context.Context, m *testMesh) {
	watching := make(chan struct{})
	l.watching.Go(func() { l.watch(ctx, m.client(1), watching) })
	<-watching
	for i, keys := range [][]string{{"/a/x"}, {"/b/z"}, {"/b/a1", "/b/z2"}} {
		l.writers.Go(func() { l.write(ctx, m.client(i), keys) })
	}
	l.writers.Go(func() { l.transact(ctx, m.client(1)) })
	l.writers.Go(func() { l.read(ctx, m.client(2)) })
}

// write puts one number after the other, to each key in turn.
func (l *lineLoad) write(ctx context.Context, c *clientv3.Client, keys []string) {
	shown := int64(0)
	for n := int64(1); !l.stopped(); n++ {
		for _, key := range keys {
			began := time.Now()
			resp, err := c.Put(ctx, key, fmt.Sprint(n))
			if err != nil {
				l.t.Errorf("put %s: %v", key, err)
				return
			}
			l.mu.Lock()
			l.last[key] = n
			l.mu.Unlock()
			if !strings.HasPrefix(key, "/b/") {
				continue
			}
			l.writes.Add(1)
			if took := int64(time.Since(began)); took > l.longest.Load() {
				l.longest.Store(took)
			}
			if resp.Header.Revision <= shown {
				l.t.Errorf("put %s got revision %d behind %d", key, resp.Header.Revision, shown)
			}
			shown = resp.Header.Revision
		}
	}
}

// transact writes one number on both sides at once.
func (l *lineLoad) transact(ctx context.Context, c *clientv3.Client) {
	for n := int64(1); !l.stopped(); n++ {
		_, err := c.Txn(ctx).Then(clientv3.OpPut("/a/pair", fmt.Sprint(n)), clientv3.OpPut("/b/pair", fmt.Sprint(n))).Commit()
		if err != nil {
			l.t.Errorf("transaction: %v", err)
			return
		}
		l.mu.Lock()
		l.last["/a/pair"], l.last["/b/pair"] = n, n
		l.mu.Unlock()
		<-time.After(20 * time.Millisecond) // a hand-over waits for what is prepared
	}
}

// read takes snapshots over both.
func (l *lineLoad) read(ctx context.Context, c *clientv3.Client) {
	for !l.stopped() {
		l.mu.Lock()
		before := maps.Clone(l.last)
		l.mu.Unlock()
		resp, err := c.Get(ctx, "/", clientv3.WithPrefix())
		if err != nil {
			l.t.Errorf("snapshot: %v", err)
			return
		}
		got := map[string]int64{}
		for _, kv := range resp.Kvs {
			got[string(kv.Key)], _ = strconv.ParseInt(string(kv.Value), 10, 64)
			if kv.ModRevision > resp.Header.Revision {
				l.t.Errorf("a snapshot at %d shows %s of %d", resp.Header.Revision, kv.Key, kv.ModRevision)
			}
		}
		if got["/a/pair"] != got["/b/pair"] {
			l.t.Errorf("torn transaction: %v", got)
		}
		if a, b := got["/b/a1"], got["/b/z2"]; b > a || b < a-1 {
			l.t.Errorf("a snapshot shows %d of the first and %d of the second, which the same client writes behind it", a, b)
		}
		for key, n := range before {
			if got[key] < n {
				l.t.Errorf("a snapshot shows %d of %s, %d was acknowledged before", got[key], key, n)
			}
		}
		l.snapshots.Add(1)
	}
}

// watch follows both sides.
func (l *lineLoad) watch(ctx context.Context, c *clientv3.Client, began chan struct{}) {
	seen, top := map[string]int64{}, int64(0)
	for resp := range c.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			l.t.Errorf("watch: %v", err)
			return
		}
		if resp.Created {
			close(began)
		}
		for _, ev := range resp.Events {
			n, _ := strconv.ParseInt(string(ev.Kv.Value), 10, 64)
			if key := string(ev.Kv.Key); n != seen[key]+1 {
				l.t.Errorf("the watch shows %d of %s behind %d", n, key, seen[key])
				return
			} else {
				seen[key] = n
			}
			if ev.Kv.ModRevision < top {
				l.t.Errorf("the watch shows revision %d behind %d", ev.Kv.ModRevision, top)
			}
			top = ev.Kv.ModRevision
		}
		if l.all(seen) {
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Errorf("the watch ended at %v of %v", seen, l.last)
}

// all reports whether the writers have ended and everything was seen.
func (l *lineLoad) all(seen map[string]int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped() && maps.Equal(seen, l.last)
}

func (l *lineLoad) watched(ctx context.Context) {
	done := make(chan struct{})
	go func() { l.watching.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		l.t.Error("the watch did not see everything")
	}
}

// BenchmarkPutOnLines is one client's put: before the first split, on the shared line of
// a scope of one segment, and on its own.
func BenchmarkPutOnLines(b *testing.B) {
	m := newMesh(b, 3)
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	c := m.client()
	run := func(name string) {
		b.Run(name, func(b *testing.B) {
			took := make([]time.Duration, 0, b.N)
			for range b.N {
				began := time.Now()
				if _, err := c.Put(ctx, "/b/x", "v"); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
	run("dense")
	m.line(ctx, "/b/", policy.Shared)
	run("shared")
	m.line(ctx, "/b/", policy.Own)
	run("own")
}

// Nodes stop just when a scope is about to change its line, its home's leader among
// them: whoever leads next goes on, or turns back and begins anew.
func TestHandOverOutlivesItsDriver(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	m.line(ctx, "/b/", policy.Shared)
	m.cut("/b/m")
	last := put(ctx, t, m.client(), "/b/x", "v")
	for i, to := range []policy.Line{policy.Own, policy.Shared, policy.Own} {
		m.mustGovern(ctx, (i+1)%3, governor.Change{Kind: scope.Amend, Prefix: []byte("/b/"), AnyVersion: true,
			Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Line: to}})
		m.stop(i)
		m.start(i)
		m.scopes(i)
		m.onLine(ctx, "/b/", map[policy.Line]string{policy.Own: "/b/"}[to])
		for _, key := range []string{"/b/x", "/b/y"} {
			rev := put(ctx, t, m.client(), key, "v")
			if rev <= last {
				t.Errorf("on line %s %s got %d behind %d", to, key, rev, last)
			}
			last = rev
		}
	}
	m.sound(ctx)
}
