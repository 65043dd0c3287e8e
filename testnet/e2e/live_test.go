package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	liveSteps = flag.Int("live-steps", 2, "changes of a scope under load while nodes are killed")
	liveSeed  = flag.Uint64("live-seed", 0, "who is asked and who is killed when; 0: another one each time")
)

// liveStages are what a scope becomes, one behind the other, and again: three anchors and
// five, memory of a majority and disks of four, with approvals and without.
var liveStages = []struct{ name, class, document string }{
	{"critical", "strong", "preset: critical\nbinding: []\n"},
	{"light", "light", "class: light\nanchors: {count: 3}\n"},
	{"standard", "normal", "preset: standard\n"},
}

// A scope on five processes goes from standard to critical, to light and back while
// clients write, transact and watch, and with each change a node is killed and started
// again: no acknowledged write is lost or shown twice, none out of order, and nobody is
// stuck.
func TestAScopeChangesWhileNodesAreKilled(t *testing.T) {
	seed := *liveSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	l := labMesh(t, 5)
	l.mustScope(l.nodes[0], "create", livePrefix, "--preset", "standard")
	u := l.use(t)
	for step := range *liveSteps {
		stage := liveStages[step%len(liveStages)]
		order := rng.Perm(len(l.nodes))
		begun := time.Now()
		u.change(stage.class, l.document(stage.name+".yaml", stage.document), l.nodes[order[0]], l.nodes[order[1]], rng.IntN(40))
		u.moves("the change to " + stage.name)
		t.Logf("%s: in force and used after %v, %s was killed meanwhile", stage.name, time.Since(begun).Round(time.Millisecond), l.nodes[order[1]].name)
	}
	u.end()
	l.eventually(60*time.Second, "a whole mesh", l.proved)
}

const livePrefix = "live/"

// liveUse is the use of one scope: writers that count, one of them into two keys at once,
// and a watch from before their first writes.
type liveUse struct {
	*lab
	ctx     context.Context
	stop    context.CancelFunc
	c       *clientv3.Client
	writers sync.WaitGroup
	watch   sync.WaitGroup

	mu    sync.Mutex
	acked map[string]map[int]int64 // by key and count: the revision
	shown map[string][]liveShown
}

type liveShown struct {
	count int
	rev   int64
}

// use begins to use the scope.
func (l *lab) use(t *testing.T) *liveUse {
	ctx, stop := context.WithCancel(t.Context())
	u := &liveUse{lab: l, ctx: ctx, stop: stop, c: l.dial(), acked: make(map[string]map[int]int64), shown: make(map[string][]liveShown)}
	first, err := u.c.Put(ctx, livePrefix, "0")
	must(t, err)
	u.watch.Go(func() { u.follow(first.Header.Revision + 1) })
	u.count("p0")
	u.count("p1")
	u.count("t0", "t1")
	u.moves("the beginning")
	return u
}

// count writes ever higher numbers into keys, all of them at once. A number whose outcome
// is not known is not written again.
func (u *liveUse) count(names ...string) {
	var keys []string
	for _, name := range names {
		keys = append(keys, livePrefix+name)
		u.acked[livePrefix+name] = make(map[int]int64)
	}
	u.writers.Go(func() {
		for k := 1; u.ctx.Err() == nil; k++ {
			ctx, cancel := context.WithTimeout(u.ctx, 5*time.Second)
			var puts []clientv3.Op
			for _, key := range keys {
				puts = append(puts, clientv3.OpPut(key, strconv.Itoa(k)))
			}
			reply, err := u.c.Txn(ctx).Then(puts...).Commit()
			cancel()
			if err != nil {
				continue // who is never answered is noticed by moves
			}
			u.mu.Lock()
			for _, key := range keys {
				u.acked[key][k] = reply.Header.Revision
			}
			u.mu.Unlock()
		}
	})
}

// follow notes what the watch shows, until the last write.
func (u *liveUse) follow(from int64) {
	for r := range u.c.Watch(u.t.Context(), livePrefix, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		if err := r.Err(); err != nil {
			u.t.Errorf("the watch ended: %v", err)
			return
		}
		for _, e := range r.Events {
			if string(e.Kv.Value) == "end" {
				return
			}
			k, err := strconv.Atoi(string(e.Kv.Value))
			if err != nil {
				u.t.Errorf("%s is %q, which nobody wrote", e.Kv.Key, e.Kv.Value)
			}
			u.mu.Lock()
			u.shown[string(e.Kv.Key)] = append(u.shown[string(e.Kv.Key)], liveShown{k, e.Kv.ModRevision})
			u.mu.Unlock()
		}
	}
}

// answered is how often each key was written.
func (u *liveUse) answered() map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[string]int)
	for key, all := range u.acked {
		out[key] = len(all)
	}
	return out
}

// moves waits until each writer has been answered so often again, or twice.
func (u *liveUse) moves(behind string) {
	u.t.Helper()
	before := u.answered()
	u.eventually(60*time.Second, "answers for everybody behind "+behind, func() error {
		for key, n := range u.answered() {
			if n < before[key]+2 {
				return fmt.Errorf("who writes %s is stuck at %d", key, n)
			}
		}
		return nil
	})
}

// change gives the scope another policy through one node and kills another one when so
// many writes have been answered meanwhile. A command that does not know what became of
// the change is given again.
func (u *liveUse) change(class, document string, by, victim *labNode, writes int) {
	u.t.Helper()
	told := make(chan error, 1)
	set := func() {
		_, err := u.scope(by, "set", livePrefix, "-f", document, "--wait", "40s")
		told <- err
	}
	go set()
	from := u.answered()[livePrefix+"p0"]
	u.eventually(30*time.Second, "some writes", func() error {
		if n := u.answered()[livePrefix+"p0"]; n < from+writes {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	victim.kill()
	if class != "strong" { // which asks for four disks: there may be three anchors still, and the fourth just died
		u.moves("the death of " + victim.name)
	}
	victim.start()
	for err := range told {
		is := u.eventuallySettled(by)
		if is == class {
			return
		}
		if err == nil {
			u.t.Fatalf("told as done, and the scope is %s, not %s", is, class)
		}
		u.t.Logf("once more: %v", err)
		go set()
	}
}

// eventuallySettled waits until nothing is under way with the scope and returns its class.
func (u *liveUse) eventuallySettled(by *labNode) (class string) {
	u.t.Helper()
	u.eventually(60*time.Second, "an end of what is under way", func() error {
		out, err := u.scope(by, "show", livePrefix, "-o", "json")
		if err != nil {
			return err
		}
		var shown struct {
			Version uint64
			InForce uint64 `json:"in_force"`
			Doing   any
			Open    []any
			Policy  struct{ Class string }
		}
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			return err
		}
		if shown.Doing != nil || len(shown.Open) > 0 || shown.Version != shown.InForce {
			return errors.New(out)
		}
		class = shown.Policy.Class
		return nil
	})
	return class
}

// end stops the writers and looks at what the watch showed: everything acknowledged, once,
// in its order, and what stands in the store is the last of it.
func (u *liveUse) end() {
	u.t.Helper()
	u.stop()
	u.writers.Wait()
	var last int64
	u.eventually(30*time.Second, "a last write", func() error {
		ctx, cancel := context.WithTimeout(u.t.Context(), 5*time.Second)
		defer cancel()
		resp, err := u.c.Put(ctx, livePrefix+"~", "end")
		if err == nil {
			last = resp.Header.Revision
		}
		return err
	})
	u.watch.Wait()
	total := 0
	for key, all := range u.acked {
		shown, times := u.shown[key], make(map[liveShown]int)
		if !slices.IsSortedFunc(shown, func(a, b liveShown) int { return a.count - b.count }) ||
			!slices.IsSortedFunc(shown, func(a, b liveShown) int { return int(a.rev - b.rev) }) {
			u.t.Errorf("%s was shown out of order", key)
		}
		for _, s := range shown {
			if times[s]++; times[s] > 1 {
				u.t.Errorf("%s: %+v was shown twice", key, s)
			}
		}
		for k, rev := range all {
			if times[liveShown{k, rev}] == 0 {
				u.t.Errorf("%s: %d was acknowledged at revision %d, and is not shown", key, k, rev)
			}
		}
		// As of the last write: one that its writer gave up may take effect behind it.
		got, err := u.c.Get(u.t.Context(), key, clientv3.WithRev(last))
		if err != nil || len(got.Kvs) != 1 || len(shown) == 0 || got.Kvs[0].ModRevision != shown[len(shown)-1].rev {
			u.t.Errorf("%s is %v, %v; shown last was %v", key, got, err, shown[max(0, len(shown)-1):])
		}
		total += len(all)
	}
	u.t.Logf("%d writes were acknowledged", total)
}
