package node_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/ordering"
)

// clientv3's own recipes over a prefix that segments share: locks exclude each other,
// an election has one winner at a time, software transactions lose nothing.
func TestRecipesOverSegments(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	// Lock and election keys end with the lease in hex; "8" cuts between them.
	for _, at := range []string{"lock/8", "elect/8", "account/3", "account/6"} {
		m.split(at)
	}
	t.Run("mutex", func(t *testing.T) { m.mutex(ctx, t) })
	t.Run("election", func(t *testing.T) { m.election(ctx, t) })
	t.Run("stm", func(t *testing.T) { m.transfers(ctx, t) })
}

func (m *testMesh) session(ctx context.Context, t *testing.T, node int) *concurrency.Session {
	t.Helper()
	c := m.client(node)
	s, err := concurrency.NewSession(c, concurrency.WithContext(ctx), concurrency.WithTTL(30))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (m *testMesh) mutex(ctx context.Context, t *testing.T) {
	inside, sum := 0, 0 // guarded by the lock alone: the race detector looks on
	var wg sync.WaitGroup
	for i := range 6 {
		s := m.session(ctx, t, i%3)
		wg.Go(func() {
			for range 4 {
				mu := concurrency.NewMutex(s, "lock/")
				if err := mu.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				if inside++; inside != 1 {
					t.Errorf("%d hold the lock", inside)
				}
				sum++
				inside--
				if err := mu.Unlock(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if sum != 24 {
		t.Errorf("%d of 24 turns", sum)
	}
}

func (m *testMesh) election(ctx context.Context, t *testing.T) {
	var mu sync.Mutex
	won, leads := 0, false
	var wg sync.WaitGroup
	for i := range 4 {
		s := m.session(ctx, t, i%3)
		wg.Go(func() {
			e := concurrency.NewElection(s, "elect/")
			if err := e.Campaign(ctx, strconv.Itoa(i)); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if leads {
				t.Error("two lead")
			}
			leads = true
			won++
			leads = false
			mu.Unlock()
			if err := e.Resign(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 4 {
		t.Errorf("%d of 4 were elected", won)
	}
}

func (m *testMesh) transfers(ctx context.Context, t *testing.T) {
	account := func(i int) string { return fmt.Sprintf("account/%d", i) }
	c := m.client()
	for i := range 9 {
		put(ctx, t, c, account(i), "100")
	}
	var wg sync.WaitGroup
	for w := range 4 {
		c := m.client(w % 3)
		wg.Go(func() {
			for k := range 12 {
				from, to := account((w*5+k)%9), account((w*5+k*4+4)%9)
				if from == to {
					continue
				}
				_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
					a, _ := strconv.Atoi(s.Get(from))
					b, _ := strconv.Atoi(s.Get(to))
					s.Put(from, strconv.Itoa(a-1))
					s.Put(to, strconv.Itoa(b+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				m.sum(ctx, t, c)
			}
		}
	})
	wg.Wait()
	close(stop)
	reading.Wait()
	m.sum(ctx, t, c)
}

// sum reads all accounts at once: no transfer is half done.
func (m *testMesh) sum(ctx context.Context, t *testing.T, c *clientv3.Client) {
	t.Helper()
	resp, err := c.Get(ctx, "account/", clientv3.WithPrefix())
	if err != nil {
		t.Error(err)
		return
	}
	sum := 0
	for _, kv := range resp.Kvs {
		n, _ := strconv.Atoi(string(kv.Value))
		sum += n
	}
	if sum != 900 || len(resp.Kvs) != 9 {
		t.Errorf("at revision %d the %d accounts hold %d", resp.Header.Revision, len(resp.Kvs), sum)
	}
}

// clientv3/ordering refuses an answer whose revision is below one that it has seen,
// from whichever node: over all endpoints of a split scope it never has to.
func TestHeadersNeverFallFromNodeToNode(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	m.split("m")
	writer := m.client()
	var all []clientv3.KV
	shared := newRevision(t)
	for i := range m.nodes {
		c := m.client(i)
		all = append(all, ordering.NewKV(c.KV, shared.violation))
	}
	for k := range 60 {
		key := []string{"a", "z"}[k%2]
		rev := put(ctx, t, writer, key, strconv.Itoa(k))
		for i := range all {
			resp, err := all[i].Get(ctx, []string{"z", "a", "q"}[i])
			if err != nil {
				t.Fatal(err)
			}
			shared.seen(rev, resp.Header.Revision)
		}
	}
}

// revision is the newest that any answer has shown.
type revision struct {
	t  *testing.T
	mu sync.Mutex
	at int64
}

func newRevision(t *testing.T) *revision { return &revision{t: t} }

func (r *revision) violation(_ clientv3.Op, _ clientv3.OpResponse, prev int64) error {
	r.t.Errorf("an answer fell below revision %d", prev)
	return ordering.ErrNoGreaterRev
}

func (r *revision) seen(acked, shown int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at = max(r.at, acked); shown < r.at {
		r.t.Errorf("an answer shows revision %d, %d was shown before", shown, r.at)
	}
	r.at = max(r.at, shown)
}
