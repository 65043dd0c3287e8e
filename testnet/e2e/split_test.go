package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A scope is split again and again, now and then with a node killed, while clients
// write and read over all of it. Each writer counts in a pair of keys that lie far
// apart: first the low one, then, acknowledged, the high one. So
//
//   - every range over both sees low = high or low = high + 1 (a snapshot, in real
//     time's order);
//   - revisions grow from a writer's one put to the next, over all segments;
//   - a range shows what was acknowledged before it began, and its header does not
//     fall from one to the next, whichever node answers.
func TestSplitsUnderClients(t *testing.T) {
	l := labMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := startCounters(ctx, l, 6)
	r := startSnapshots(ctx, l, w)
	rng := rand.New(rand.NewPCG(7, 9))
	splits := 8
	if testing.Short() {
		splits = 4
	}
	for i := range splits {
		w.more(l, 30)
		l.split(fmt.Sprintf("count/%05d", rng.IntN(100_000)))
		if i%5 == 4 { // and one of three is gone for a while
			n := l.nodes[rng.IntN(len(l.nodes))]
			n.kill()
			w.more(l, 30)
			n.start()
			w.more(l, 30)
		}
	}
	w.more(l, 60)
	cancel()
	w.wait.Wait()
	r.wait.Wait()
	if r.count < 20 {
		t.Errorf("only %d ranges were answered", r.count)
	}
	t.Logf("%d increments, %d ranges, %d retries", w.total(), r.count, w.retries)
	// At rest all segments are there, and all of their keys.
	c := l.dial()
	got, err := c.Get(t.Context(), "count/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.counters {
		if err := w.counters[i].check(got, int64(w.counters[i].acked)); err != nil {
			t.Error(err)
		}
	}
}

// split cuts at a key; one that is a boundary already is no fault.
func (l *lab) split(at string) {
	l.t.Helper()
	l.eventually(30*time.Second, "a split at "+at, func() error {
		for _, n := range l.nodes {
			if !n.running() {
				continue
			}
			_, errs, code := l.cli("split", at, "--endpoint", n.client, "--timeout", "5s")
			if code == 0 {
				return nil
			}
			return errors.New(errs)
		}
		return errors.New("no node runs")
	})
}

type counters struct {
	lab  *lab
	wait sync.WaitGroup

	mu       sync.Mutex
	counters []counter
	retries  int
}

// counter is one writer's pair. acked is the newest number that the high key was
// acknowledged with; unsure says that a number above it may be there.
type counter struct {
	low, high string
	acked     int
	revision  int64
}

func startCounters(ctx context.Context, l *lab, n int) *counters {
	w := &counters{lab: l, counters: make([]counter, n)}
	for i := range n {
		w.counters[i] = counter{low: fmt.Sprintf("count/%05d", i*7001), high: fmt.Sprintf("count/%05d", 99_999-i*6007)}
		c := l.dial()
		w.wait.Go(func() { w.run(ctx, c, i) })
	}
	return w
}

func (w *counters) run(ctx context.Context, c *clientv3.Client, i int) {
	for n := 1; ctx.Err() == nil; n++ {
		for _, key := range []string{w.counters[i].low, w.counters[i].high} {
			rev, ok := w.put(ctx, c, key, n)
			if !ok {
				return
			}
			w.mu.Lock()
			if rev <= w.counters[i].revision {
				w.lab.t.Errorf("%s=%d got revision %d, the put before it %d", key, n, rev, w.counters[i].revision)
			}
			w.counters[i].revision = rev
			if key == w.counters[i].high {
				w.counters[i].acked = n
			}
			w.mu.Unlock()
		}
	}
}

// put puts until it is acknowledged: the same number twice does no harm.
func (w *counters) put(ctx context.Context, c *clientv3.Client, key string, n int) (int64, bool) {
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		put, err := c.Put(short, key, strconv.Itoa(n))
		cancel()
		if err == nil {
			return put.Header.Revision, true
		}
		if ctx.Err() == nil && !retryable(err) {
			w.lab.t.Errorf("put %s: %v", key, err)
		}
		w.mu.Lock()
		w.retries++
		w.mu.Unlock()
	}
	return 0, false
}

// retryable reports whether etcd, too, answers so while a leader is lost.
func retryable(err error) bool {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code() == codes.Unavailable
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

func (w *counters) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.counters {
		n += w.counters[i].acked
	}
	return n
}

// more waits for n more increments.
func (w *counters) more(l *lab, n int) {
	l.t.Helper()
	want := w.total() + n
	l.eventually(40*time.Second, "more increments", func() error {
		if have := w.total(); have < want {
			return fmt.Errorf("%d of %d", have, want)
		}
		return nil
	})
}

// check judges what a range shows of the pair.
func (c *counter) check(got *clientv3.GetResponse, atLeast int64) error {
	value := map[string]int64{}
	for _, kv := range got.Kvs {
		n, err := strconv.ParseInt(string(kv.Value), 10, 64)
		if err != nil {
			return err
		}
		value[string(kv.Key)] = n
	}
	low, high := value[c.low], value[c.high]
	if low != high && low != high+1 {
		return fmt.Errorf("a range at %d shows %s=%d and %s=%d: no snapshot", got.Header.Revision, c.low, low, c.high, high)
	}
	if high < atLeast {
		return fmt.Errorf("a range at %d shows %s=%d, %d was acknowledged before", got.Header.Revision, c.high, high, atLeast)
	}
	return nil
}

type snapshots struct {
	wait  sync.WaitGroup
	mu    sync.Mutex
	count int
}

// startSnapshots reads all counters over and over, through every node.
func startSnapshots(ctx context.Context, l *lab, w *counters) *snapshots {
	r := &snapshots{}
	for _, n := range l.nodes {
		c := l.dial(n)
		r.wait.Go(func() {
			for ctx.Err() == nil {
				r.read(ctx, l, c, w)
			}
		})
	}
	return r
}

func (r *snapshots) read(ctx context.Context, l *lab, c *clientv3.Client, w *counters) {
	w.mu.Lock()
	before := append([]counter(nil), w.counters...)
	w.mu.Unlock()
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	got, err := c.Get(short, "count/", clientv3.WithPrefix())
	if err != nil {
		if ctx.Err() == nil && !retryable(err) {
			l.t.Errorf("range: %v", err)
		}
		return
	}
	r.mu.Lock()
	r.count++
	r.mu.Unlock()
	for i := range before {
		if err := before[i].check(got, int64(before[i].acked)); err != nil {
			l.t.Error(err)
		}
		if got.Header.Revision < before[i].revision {
			l.t.Errorf("a range shows revision %d, %d was acknowledged before", got.Header.Revision, before[i].revision)
		}
	}
}
