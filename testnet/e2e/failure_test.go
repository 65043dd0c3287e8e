package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// resumeWithin is how soon writes must go on after a node died. etcd's election
// alone may take 2 s and more; it only validates the test.
var resumeWithin = map[cluster.Kind]time.Duration{cluster.Mesh: 2 * time.Second, cluster.Etcd: 15 * time.Second}

const (
	writers = 8
	// A request is given up so soon because one that reached a node without a
	// leader may be lost in it: it would hide that writes go on again.
	writeTimeout = 250 * time.Millisecond
	recovery     = time.Minute // for a node or cluster to be ready again
)

// ack is an acknowledged write. A write that failed is not recorded: it may or
// may not have happened, and its key is not used again.
type ack struct {
	key      string
	revision int64
	began    time.Time
	answered time.Time
}

// journal writes from several clients and records what was acknowledged.
type journal struct {
	mu   sync.Mutex
	acks []ack
	news chan struct{} // closed and replaced at every ack

	stop func()
	wg   sync.WaitGroup
}

// startJournal starts writers of distinct keys under prefix; key is its own
// value.
func startJournal(t *testing.T, c *cluster.Cluster, prefix string) *journal {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	j := &journal{news: make(chan struct{}), stop: cancel}
	for w := range writers {
		client := newClient(t, c)
		j.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				j.write(ctx, client, fmt.Sprintf("%s/%d/%d", prefix, w, i))
			}
		})
	}
	t.Cleanup(j.finish)
	return j
}

func (j *journal) write(ctx context.Context, client *clientv3.Client, key string) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	put, err := client.Put(ctx, key, key)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acks = append(j.acks, ack{key, put.Header.Revision, began, time.Now()})
	close(j.news)
	j.news = make(chan struct{})
}

// finish stops the writers.
func (j *journal) finish() {
	j.stop()
	j.wg.Wait()
}

// resumed waits until n writes that began after t0 were acknowledged, and
// returns how long after t0 the first of them was.
func (j *journal) resumed(ctx context.Context, t0 time.Time, n int) (time.Duration, error) {
	for {
		j.mu.Lock()
		var later []ack
		for i := len(j.acks) - 1; i >= 0 && j.acks[i].answered.After(t0); i-- {
			if j.acks[i].began.After(t0) {
				later = append(later, j.acks[i])
			}
		}
		news := j.news
		j.mu.Unlock()
		if len(later) >= n {
			return later[len(later)-1].answered.Sub(t0), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d writes since the fault, want %d: %w", len(later), n, ctx.Err())
		case <-news:
		}
	}
}

// check fails the test if an acknowledged write is missing, other than written,
// or shares its revision.
func (j *journal) check(t *testing.T, client *clientv3.Client, prefix string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recovery)
	defer cancel()
	got, err := client.Get(ctx, prefix+"/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	type version struct {
		value    string
		revision int64
	}
	present := map[string]version{}
	for _, kv := range got.Kvs {
		present[string(kv.Key)] = version{string(kv.Value), kv.ModRevision}
	}
	revisions := map[int64]string{}
	lost := 0
	for _, a := range j.acks {
		if present[a.key] != (version{a.key, a.revision}) {
			if lost++; lost <= 5 {
				t.Errorf("%s was acknowledged at revision %d; now there is %+v", a.key, a.revision, present[a.key])
			}
		}
		if other, ok := revisions[a.revision]; ok {
			t.Errorf("%s and %s were both acknowledged at revision %d", a.key, other, a.revision)
		}
		revisions[a.revision] = a.key
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged writes are lost", lost, len(j.acks))
	}
	t.Logf("%d writes acknowledged, %d keys present", len(j.acks), len(present))
}

// someWrites is enough to say that writes go on.
const someWrites = 50

// Any one node is killed with kill -9, or stopped: writes go on, and when it is
// back it catches up, and nothing acknowledged is lost.
func TestLossOfAnyOneNode(t *testing.T) {
	c := target.Start(t, 3)
	client := newClient(t, c)
	for i, n := range c.Nodes {
		t.Run("kill "+n.Name, func(t *testing.T) {
			loseOne(t, c, client, fmt.Sprintf("kill%d", i), n, func() error { n.Kill(); return nil }, n.Start)
		})
	}
	if testing.Short() {
		return
	}
	for i, n := range c.Nodes {
		t.Run("stop "+n.Name, func(t *testing.T) {
			loseOne(t, c, client, fmt.Sprintf("stop%d", i), n, n.Pause, n.Resume)
		})
	}
}

func loseOne(t *testing.T, c *cluster.Cluster, client *clientv3.Client, prefix string, n *cluster.Node, lose, bringBack func() error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*recovery)
	defer cancel()
	j := startJournal(t, c, prefix)
	if _, err := j.resumed(ctx, time.Now(), someWrites); err != nil {
		t.Fatal(err)
	}
	if err := lose(); err != nil {
		t.Fatal(err)
	}
	took, err := j.resumed(ctx, time.Now(), someWrites)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("without %s the first write was acknowledged after %v", n.Name, took)
	if took > resumeWithin[c.Kind] {
		t.Errorf("writes went on after %v, want at most %v", took, resumeWithin[c.Kind])
	}
	if err := bringBack(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	j.finish()
	caughtUp(ctx, t, c, client, n)
	j.check(t, client, prefix)
}

// caughtUpPoll is how often a node is asked for its own state.
const caughtUpPoll = 50 * time.Millisecond

// caughtUp returns when the node's own state, read without asking the others,
// has the newest write.
func caughtUp(ctx context.Context, t *testing.T, c *cluster.Cluster, client *clientv3.Client, n *cluster.Node) {
	t.Helper()
	put, err := client.Put(ctx, "caught-up", n.Name)
	if err != nil {
		t.Fatal(err)
	}
	own := newClient(t, c, n)
	tick := time.NewTicker(caughtUpPoll)
	defer tick.Stop()
	for {
		got, err := own.Get(ctx, "caught-up", clientv3.WithSerializable())
		if err == nil && len(got.Kvs) == 1 && got.Kvs[0].ModRevision == put.Header.Revision {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not catch up to revision %d: %v, %v", n.Name, put.Header.Revision, got, err)
		case <-tick.C:
		}
	}
}

// All nodes are killed with kill -9 at once, under load: after a restart every
// acknowledged write is there, and writes go on.
func TestKillOfAllNodes(t *testing.T) {
	c := target.Start(t, 3)
	client := newClient(t, c)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), 2*recovery)
		prefix := fmt.Sprintf("all%d", round)
		j := startJournal(t, c, prefix)
		if _, err := j.resumed(ctx, time.Now(), 20*someWrites); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, n := range c.Nodes {
			wg.Go(n.Kill)
		}
		wg.Wait()
		for _, n := range c.Nodes {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := j.resumed(ctx, time.Now(), someWrites); err != nil {
			t.Fatal(err)
		}
		j.finish()
		j.check(t, client, prefix)
		cancel()
	}
}
