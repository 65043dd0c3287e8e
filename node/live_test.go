package node_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
)

// liveUsers use one scope while its policy changes: two put, one writes two keys in a
// transaction, one reads all, one watches all from a revision on. Each writer counts.
type liveUsers struct {
	t      *testing.T
	prefix string
	c      *clientv3.Client
	stop   chan struct{}
	busy   sync.WaitGroup  // writers and the reader
	shown  sync.WaitGroup  // the watch
	rounds [4]atomic.Int64 // what each was answered: three writers, and the reader

	mu    sync.Mutex
	acked map[string]map[int64]int64 // by key and count: the revision
	seen  map[string][]liveEvent     // what the watch showed
}

type liveEvent struct{ count, rev int64 }

// begin starts them; each key is there before.
func (u *liveUsers) begin(ctx context.Context) {
	u.stop, u.acked, u.seen = make(chan struct{}), map[string]map[int64]int64{}, map[string][]liveEvent{}
	var from int64
	for _, name := range []string{"p0", "p1", "t0", "t1"} {
		from = put(ctx, u.t, u.c, u.prefix+name, "0")
		u.acked[u.prefix+name] = map[int64]int64{}
	}
	u.shown.Go(func() { u.watch(ctx, from+1) })
	for w := range 2 {
		u.write(ctx, w, func(k int64) (int64, []string, error) {
			key := fmt.Sprintf("%sp%d", u.prefix, w)
			resp, err := u.c.Put(ctx, key, fmt.Sprint(k))
			if err != nil {
				return 0, nil, err
			}
			return resp.Header.Revision, []string{key}, nil
		})
	}
	u.write(ctx, 2, func(k int64) (int64, []string, error) {
		keys := []string{u.prefix + "t0", u.prefix + "t1"}
		resp, err := u.c.Txn(ctx).Then(clientv3.OpPut(keys[0], fmt.Sprint(k)), clientv3.OpPut(keys[1], fmt.Sprint(k))).Commit()
		if err != nil {
			return 0, nil, err
		}
		return resp.Header.Revision, keys, nil
	})
	u.busy.Go(func() { u.read(ctx) })
}

// retryable reports whether etcd's clients try again after an error.
func retryable(err error) bool {
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return etcd.Code() == codes.Unavailable
	}
	return status.Code(err) == codes.Unavailable
}

func (u *liveUsers) write(ctx context.Context, w int, one func(k int64) (rev int64, keys []string, err error)) {
	u.busy.Go(func() {
		for k := int64(1); ; k++ {
			select {
			case <-u.stop:
				return
			default:
			}
			rev, keys, err := one(k)
			if err != nil {
				if !retryable(err) {
					u.t.Errorf("writer %d: %v", w, err)
				}
				if ctx.Err() != nil {
					return
				}
				continue
			}
			u.mu.Lock()
			for _, key := range keys {
				u.acked[key][k] = rev
			}
			u.mu.Unlock()
			u.rounds[w].Add(1)
		}
	})
}

// newest returns the highest count that was acknowledged, by key.
func (u *liveUsers) newest() map[string]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]int64)
	for key, all := range u.acked {
		for k := range all {
			out[key] = max(out[key], k)
		}
	}
	return out
}

// read reads everything: nothing that was acknowledged before is missing, what one
// transaction wrote is together, and revisions do not go back.
func (u *liveUsers) read(ctx context.Context) {
	for last := int64(0); ; {
		select {
		case <-u.stop:
			return
		default:
		}
		before := u.newest()
		resp, err := u.c.Get(ctx, u.prefix, clientv3.WithPrefix())
		if err != nil {
			if !retryable(err) {
				u.t.Errorf("reader: %v", err)
			}
			if ctx.Err() != nil {
				return
			}
			continue
		}
		got := map[string]int64{}
		for _, kv := range resp.Kvs {
			got[string(kv.Key)], _ = strconv.ParseInt(string(kv.Value), 10, 64)
		}
		for key, k := range before {
			if got[key] < k {
				u.t.Errorf("%s is %d at revision %d, and %d was acknowledged before", key, got[key], resp.Header.Revision, k)
			}
		}
		if got[u.prefix+"t0"] != got[u.prefix+"t1"] || resp.Header.Revision < last {
			u.t.Errorf("revision %d behind %d: %v", resp.Header.Revision, last, got)
		}
		last = resp.Header.Revision
		u.rounds[3].Add(1)
	}
}

func (u *liveUsers) watch(ctx context.Context, from int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := u.c.Watch(ctx, u.prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	for resp := range events {
		if err := resp.Err(); err != nil {
			u.t.Errorf("the watch ended: %v", err)
			return
		}
		for _, e := range resp.Events {
			if string(e.Kv.Value) == "end" {
				return
			}
			k, _ := strconv.ParseInt(string(e.Kv.Value), 10, 64)
			u.mu.Lock()
			u.seen[string(e.Kv.Key)] = append(u.seen[string(e.Kv.Key)], liveEvent{k, e.Kv.ModRevision})
			u.mu.Unlock()
		}
	}
}

// moves waits until each has been answered some times more.
func (u *liveUsers) moves(m *testMesh, behind string) {
	u.t.Helper()
	var from [4]int64
	for i := range u.rounds {
		from[i] = u.rounds[i].Load()
	}
	m.eventually(time.Minute, "answer for each client behind "+behind, func() bool {
		for i := range u.rounds {
			if u.rounds[i].Load() < from[i]+3 {
				return false
			}
		}
		return true
	})
}

// end stops them, and looks at what the watch showed: every write that was acknowledged,
// at its revision, once and in order.
func (u *liveUsers) end(ctx context.Context, m *testMesh) {
	u.t.Helper()
	close(u.stop)
	u.busy.Wait()
	m.eventually(30*time.Second, "last write", func() bool { _, err := u.c.Put(ctx, u.prefix+"~", "end"); return err == nil })
	u.shown.Wait()
	for key, all := range u.acked {
		if !slices.IsSortedFunc(u.seen[key], func(a, b liveEvent) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.count, b.count)) }) {
			u.t.Errorf("%s was shown out of order", key)
		}
		shown := make(map[liveEvent]int)
		for _, e := range u.seen[key] {
			if shown[e]++; shown[e] > 1 {
				u.t.Errorf("%s: %+v was shown twice", key, e)
			}
		}
		for k, rev := range all {
			if shown[liveEvent{k, rev}] == 0 {
				u.t.Errorf("%s: %d was acknowledged at %d, and not shown", key, k, rev)
			}
		}
	}
	u.t.Logf("answered: %d, %d puts, %d transactions, %d ranges", u.rounds[0].Load(), u.rounds[1].Load(), u.rounds[2].Load(), u.rounds[3].Load())
}

// A scope goes from standard to critical, to light and back, three to five anchors and
// back, majority to all disks and back, under clients: no acknowledged write is lost or
// shown twice, nobody is stuck, and no error is told but those that etcd's clients retry.
func TestAScopeChangesUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("recruits; the whole run has it")
	}
	m := newMesh(t, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	u := &liveUsers{t: t, prefix: "/live/", c: m.client()}
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte(u.prefix), Policy: policy.Standard()})
	u.begin(ctx)
	u.moves(m, "the beginning")
	all := policy.Standard()
	all.Class, all.Acks.All = anchormesh.Strong, true
	for i, step := range []struct {
		name string
		p    *policy.Policy
	}{
		{"critical, five anchors", policy.Critical()}, {"light, three anchors", classed(anchormesh.Light)}, {"critical again", policy.Critical()},
		{"standard", policy.Standard()}, {"light", classed(anchormesh.Light)}, {"all disks", all}, {"standard again", policy.Standard()},
	} {
		begun := time.Now()
		m.mustGovern(ctx, i%5, governor.Change{Kind: scope.Amend, Prefix: []byte(u.prefix), Policy: step.p, AnyVersion: true})
		u.moves(m, step.name)
		t.Logf("%s: in force and used after %v", step.name, time.Since(begun).Round(time.Millisecond))
	}
	u.end(ctx, m)
	m.sound(ctx)
}
