package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A node that was away for longer than the others keep their log is brought up
// to date by a snapshot, while writes go on.
func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3, "--snapshot-count", "100")
	leader := l.leader()
	away := l.nodes[0]
	if away == leader {
		away = l.nodes[1]
	}
	away.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := l.dial(leader)
	// The log is cut when the store, which is written every second, has the entries.
	entries := 0
	for begin := time.Now(); entries < 500 || time.Since(begin) < 3*time.Second; entries++ {
		if _, err := c.Put(ctx, fmt.Sprintf("away/%d", entries), strings.Repeat("v", 300)); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	away.start()
	l.eventually(60*time.Second, "the snapshot", func() error {
		if !strings.Contains(away.run.output.String(), "installed from a snapshot") {
			return errors.New("no word of it")
		}
		return nil
	})
	t.Logf("%d entries, then a snapshot within %v", entries, time.Since(began).Round(time.Millisecond))
	put, err := c.Put(ctx, "after", "x")
	if err != nil {
		t.Fatal(err)
	}
	own := l.dial(away)
	l.eventually(30*time.Second, "the newest write", func() error {
		got, err := own.Get(ctx, "away/", clientv3.WithPrefix(), clientv3.WithSerializable(), clientv3.WithCountOnly())
		if err == nil && (got.Header.Revision < put.Header.Revision || got.Count != int64(entries)) {
			err = fmt.Errorf("%d keys at revision %d", got.Count, got.Header.Revision)
		}
		return err
	})
	sameHash(ctx, t, l, put.Header.Revision)
	away.kill()
	away.start() // what was installed is there after a restart
	l.awaitVoters(3)
	sameHash(ctx, t, l, put.Header.Revision)
}

// sameHash compares the anchors' keys.
func sameHash(ctx context.Context, t *testing.T, l *lab, rev int64) {
	t.Helper()
	hashes := map[uint32][]string{}
	for _, n := range l.nodes {
		c := l.dial(n)
		if _, err := c.Get(ctx, "x"); err != nil { // it has applied everything
			t.Fatal(err)
		}
		h, err := c.HashKV(ctx, c.Endpoints()[0], rev)
		if err != nil {
			t.Fatal(err)
		}
		hashes[h.Hash] = append(hashes[h.Hash], n.name)
	}
	if len(hashes) != 1 {
		t.Errorf("hashes at revision %d: %v", rev, hashes)
	}
}

// Nodes are restarted in turn while clients write: nothing that was acknowledged
// is lost, and clients see only errors after which they may try again.
func TestRollingRestart(t *testing.T) {
	l := labMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	w := startWriters(ctx, l)
	for range rounds {
		for _, n := range l.nodes {
			n.stop()
			w.more(l, 100)
			n.start()
			l.awaitVoters(3)
			w.more(l, 100)
		}
	}
	acked, failed := w.finish()
	for text, n := range failed {
		t.Logf("%d of: %s", n, text)
	}
	if longest := w.longest; longest > 2*time.Second {
		t.Errorf("between two acknowledged writes of all clients there were %v", longest)
	} else {
		t.Logf("%d writes acknowledged, longest pause of all clients %v", len(acked), longest.Round(time.Millisecond))
	}
	got, err := l.dial().Get(ctx, "rolling/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	present := map[string]int64{}
	for _, kv := range got.Kvs {
		present[string(kv.Key)] = kv.ModRevision
	}
	for key, rev := range acked {
		if present[key] != rev {
			t.Errorf("%s was acknowledged at revision %d, now %d", key, rev, present[key])
		}
	}
	if n := len(w.bad); n > 0 {
		t.Errorf("%d errors that a client cannot take as a reason to try again: %v", n, w.bad)
	}
}

// writersOf writes distinct keys from several clients until told to stop.
type writersOf struct {
	stop func()
	wg   sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]int64
	failed  map[string]int
	bad     []string
	last    time.Time
	longest time.Duration
}

func startWriters(ctx context.Context, l *lab) *writersOf {
	ctx, cancel := context.WithCancel(ctx)
	w := &writersOf{stop: cancel, acked: map[string]int64{}, failed: map[string]int{}, last: time.Now()}
	for i := range writers {
		c := l.dial()
		w.wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				w.put(ctx, c, fmt.Sprintf("rolling/%d/%06d", i, k))
			}
		})
	}
	return w
}

func (w *writersOf) put(ctx context.Context, c *clientv3.Client, key string) {
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	put, err := c.Put(short, key, key)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.acked[key] = put.Header.Revision
		w.longest = max(w.longest, time.Since(w.last))
		w.last = time.Now()
		return
	}
	w.failed[err.Error()]++
	// What etcd answers while it has no leader, or stops, or a connection breaks.
	if code := status.Code(err); !slices.Contains([]codes.Code{codes.Unavailable, codes.DeadlineExceeded}, code) && !errors.Is(err, context.DeadlineExceeded) {
		w.bad = append(w.bad, err.Error())
	}
}

// more waits for n more acknowledged writes.
func (w *writersOf) more(l *lab, n int) {
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acked)
	}
	want := count() + n
	l.eventually(30*time.Second, "more writes", func() error {
		if have := count(); have < want {
			return fmt.Errorf("%d of %d", have, want)
		}
		return nil
	})
}

func (w *writersOf) finish() (acked map[string]int64, failed map[string]int) {
	w.stop()
	w.wg.Wait()
	return w.acked, w.failed
}
