package traffic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// ErrBehind is returned when a watch did not get to the end of what happened, though
// the mesh was whole again.
var ErrBehind = errors.New("traffic: a watch does not catch up")

// roamers are workers whose client knows all nodes.
const roamers = 2

// Traffic is running traffic.
type Traffic struct {
	cfg     Config
	rec     *recorder
	clients []*clientv3.Client // one per node, the last one of all

	stopWork  context.CancelFunc
	stopWatch context.CancelFunc
	work      sync.WaitGroup
	watch     sync.WaitGroup
	finals    []chan int64
	watchers  []*watcher
	behind    []string // guarded by rec.mu
}

// Start starts traffic on a mesh that answers. Stop ends it.
func Start(ctx context.Context, cfg Config) (*Traffic, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t := &Traffic{cfg: cfg, rec: newRecorder(time.Now())}
	for _, e := range append([][]string{}, split(cfg.Endpoints)...) {
		c, err := dial(e...)
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.clients = append(t.clients, c)
	}
	got, err := t.all().Get(ctx, cfg.Prefix)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("traffic: the mesh does not answer: %w", err), t.close())
	}
	var workCtx, watchCtx context.Context
	workCtx, t.stopWork = context.WithCancel(ctx)
	watchCtx, t.stopWatch = context.WithCancel(ctx)
	t.startWatchers(watchCtx, got.Header.Revision+1)
	t.startWorkers(workCtx)
	return t, nil
}

// split gives each client its endpoints: one for each node, all for the last.
func split(endpoints []string) [][]string {
	var out [][]string
	for _, e := range endpoints {
		out = append(out, []string{e})
	}
	return append(out, endpoints)
}

func (t *Traffic) all() *clientv3.Client { return t.clients[len(t.clients)-1] }

// Now is the time of the history.
func (t *Traffic) Now() time.Duration { return t.rec.now() }

func (t *Traffic) worker(id, node int) *worker {
	client := t.all()
	if node >= 0 {
		client = t.clients[node]
	}
	return &worker{id: id, node: node, client: client, rec: t.rec, cfg: t.cfg, rng: rand.New(rand.NewPCG(t.cfg.Seed, uint64(id)))}
}

// startWorkers starts for each node a worker, a holder of leases and a trickle of
// probes, and the roamers.
func (t *Traffic) startWorkers(ctx context.Context) {
	id := 0
	start := func(node int, run func(*worker, context.Context)) {
		id++
		w := t.worker(id, node)
		t.work.Go(func() { run(w, ctx) })
	}
	for range roamers {
		start(-1, (*worker).run)
	}
	if t.cfg.Lean {
		start(-1, (*worker).runLeases)
		return
	}
	for node := range t.cfg.Endpoints {
		start(node, (*worker).run)
		start(node, (*worker).runLeases)
		start(node, (*worker).runProbes)
	}
	if t.cfg.Surge > 0 {
		start(-1, (*worker).runSurges)
	}
	start(-1, func(w *worker, ctx context.Context) { w.runCompactions(ctx, t.needless) })
}

// needless is the revision up to which nobody needs history any more.
func (t *Traffic) needless() int64 {
	if t.cfg.Hold == nil {
		return t.Seen()
	}
	return min(t.Seen(), t.cfg.Hold())
}

// Seen returns the revision up to which every watch has shown everything.
func (t *Traffic) Seen() int64 {
	rev := int64(math.MaxInt64)
	for _, w := range t.watchers {
		rev = min(rev, w.next.Load()-1)
	}
	return rev
}

// startWatchers starts the archive, which asks whoever answers, and one watcher per
// node: of everything at the first node, of one family at each other.
func (t *Traffic) startWatchers(ctx context.Context, from int64) {
	families := []string{"", "reg/", "list/", "bank/", "lease/"}
	start := func(name string, client *clientv3.Client, family string, archive bool) {
		key := t.cfg.Prefix + family
		w := &watcher{
			client: client, rec: t.rec, key: key, end: clientv3.GetPrefixRangeEnd(key), archive: archive,
			rng: rand.New(rand.NewPCG(t.cfg.Seed, uint64(1000+len(t.finals)))),
		}
		w.next.Store(from)
		t.watchers = append(t.watchers, w)
		final := make(chan int64, 1)
		t.finals = append(t.finals, final)
		t.watch.Go(func() {
			if !w.run(ctx, final) {
				t.rec.mu.Lock()
				t.behind = append(t.behind, fmt.Sprintf("%s of %s is before revision %d", name, key, w.next.Load()))
				t.rec.mu.Unlock()
			}
		})
	}
	start("the archive", t.all(), "", true)
	if t.cfg.Lean {
		start("the watch", t.all(), "", false)
		return
	}
	for i, name := range t.cfg.Names {
		start("the watch at "+name, t.clients[i], families[i%len(families)], false)
	}
}

// StopWork ends everything but the watches.
func (t *Traffic) StopWork() {
	t.stopWork()
	t.work.Wait()
}

// Stop ends the traffic of a mesh that is whole again: it reads every key once more
// and waits until every watch has shown everything up to then, or ctx ends, which is
// ErrBehind. The log is valid in any case.
func (t *Traffic) Stop(ctx context.Context) (*Log, error) {
	t.StopWork()
	err := t.finish(ctx)
	t.stopWatch()
	t.watch.Wait()
	t.rec.mu.Lock()
	defer t.rec.mu.Unlock()
	if len(t.behind) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %v", ErrBehind, t.behind))
	}
	return &t.rec.log, errors.Join(err, t.close())
}

// finish reads all groups, writes one last key, and lets the watches come to it: what
// was read is then among the events.
func (t *Traffic) finish(ctx context.Context) error {
	w := t.worker(0, -1)
	for _, group := range w.groups() {
		if _, err := w.insist(ctx, check.Request{Kind: check.Range, Key: group, End: clientv3.GetPrefixRangeEnd(group)}); err != nil {
			return err
		}
	}
	last, err := w.insist(ctx, check.Request{Kind: check.Put, Key: t.cfg.Prefix + "last/0", Value: w.value()})
	if err != nil {
		return err
	}
	for _, final := range t.finals {
		final <- last.Rev
	}
	done := make(chan struct{})
	go func() { t.watch.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return nil // run says which watch is behind
	}
}

func (t *Traffic) close() error {
	var problems []error
	for _, c := range t.clients {
		problems = append(problems, c.Close())
	}
	return errors.Join(problems...)
}
