package node_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// cutAt cuts the segment that holds a key there, unless it begins there already.
func (m *testMesh) cutAt(at string) {
	m.t.Helper()
	m.eventually(30*time.Second, "split at "+at, func() bool {
		for i := range m.nodes {
			if m.nodes[i].stop == nil {
				continue
			}
			for _, s := range m.segments(i) {
				if d, err := meshpb.FromPB(s.GetDescriptor_()); err == nil && string(d.Range.Start) == at {
					return true
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			_, err := meshpb.NewMeshClient(m.dial(i)).Split(ctx, &meshpb.SplitRequest{Boundary: []byte(at), Operator: "test"})
			cancel()
			if err == nil {
				return true
			}
		}
		return false
	})
}

// dial connects to a node without etcd's client.
func (m *testMesh) dial(i int) *grpc.ClientConn {
	m.t.Helper()
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	return conn
}

// history is what writers were acknowledged, by revision and key.
type history struct {
	mu     sync.Mutex
	acked  map[string]string // "revision key" to value, "-" of a deletion
	unsure map[string]bool   // "key value" of writes with an unknown outcome
	last   int64
}

func newHistory() *history {
	return &history{acked: make(map[string]string), unsure: make(map[string]bool)}
}

func (h *history) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acked)
}

const keyspan = 1000

func keyAt(i int) string { return fmt.Sprintf("k/%04d", i) }

// write writes one key, or a few that lie side by side, until it is acknowledged or
// its outcome is unknown.
func (h *history) write(ctx context.Context, c *clientv3.Client, rng *rand.Rand, value string) {
	first := rng.IntN(keyspan)
	ops := []clientv3.Op{clientv3.OpPut(keyAt(first), value)}
	keys := map[string]string{keyAt(first): value}
	switch rng.IntN(8) {
	case 0:
		ops = []clientv3.Op{clientv3.OpDelete(keyAt(first))}
		keys = map[string]string{keyAt(first): "-"}
	case 1:
		for i := first + 1; i < first+3; i++ {
			keys[keyAt(i)] = value
			ops = append(ops, clientv3.OpPut(keyAt(i), value))
		}
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := c.Txn(short).Then(ops...).Commit()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		for k, v := range keys {
			h.unsure[k+" "+v] = true
		}
		return
	}
	if resp.Responses[0].GetResponseDeleteRange() != nil && resp.Responses[0].GetResponseDeleteRange().Deleted == 0 {
		return // no revision
	}
	h.last = max(h.last, resp.Header.Revision)
	for k, v := range keys {
		h.acked[fmt.Sprint(resp.Header.Revision, " ", k)] = v
	}
}

// write starts writers through all nodes; the returned function stops them.
func (m *testMesh) write(ctx context.Context, h *history, writers int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for i := range writers {
		c := m.client()
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for n := 0; ctx.Err() == nil; n++ {
				h.write(ctx, c, rng, fmt.Sprintf("%d-%d", i, n))
			}
		})
	}
	return func() { cancel(); wait.Wait() }
}

// follower reads one watch and checks what can be checked on the way.
type follower struct {
	name   string
	keys   func(string) bool
	from   int64
	prevKV bool

	mu       sync.Mutex
	got      map[string]string
	now      map[string]*mvccpb.KeyValue
	last     int64 // newest event
	response int
	seen     int // responses
	progress int64
	err      error
	done     chan struct{}
}

func follow(name string, from int64, keys func(string) bool, ch clientv3.WatchChan) *follower {
	f := &follower{
		name: name, keys: keys, from: from, prevKV: true,
		got: make(map[string]string), now: make(map[string]*mvccpb.KeyValue), done: make(chan struct{}),
	}
	go func() {
		defer close(f.done)
		for r := range ch {
			f.mu.Lock()
			if err := f.take(&r); err != nil && f.err == nil {
				f.err = err
			}
			f.mu.Unlock()
		}
	}()
	return f
}

func (f *follower) take(r *clientv3.WatchResponse) error {
	f.seen++
	if err := r.Err(); err != nil {
		return err
	}
	if r.IsProgressNotify() {
		if r.Header.Revision < f.progress || r.Header.Revision < f.last {
			return fmt.Errorf("progress at %d behind progress %d and event %d", r.Header.Revision, f.progress, f.last)
		}
		f.progress = r.Header.Revision
	}
	for _, ev := range r.Events {
		if err := f.event(ev); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) event(ev *clientv3.Event) error {
	rev, key := ev.Kv.ModRevision, string(ev.Kv.Key)
	name := fmt.Sprint(rev, " ", key)
	_, twice := f.got[name]
	switch {
	case rev < f.last:
		return fmt.Errorf("ordered: %s behind %d", name, f.last)
	case rev == f.last && f.response != f.seen:
		return fmt.Errorf("atomic: revision %d is in two responses", rev)
	case twice:
		return fmt.Errorf("unique: %s came twice", name)
	case rev <= f.progress:
		return fmt.Errorf("bookmarkable: %s behind progress at %d", name, f.progress)
	case rev < f.from || !f.keys(key):
		return fmt.Errorf("%s was not asked for", name)
	}
	if was := f.now[key]; f.prevKV && f.from <= 1 &&
		(ev.PrevKv.GetModRevision() != was.GetModRevision() || string(ev.PrevKv.GetValue()) != string(was.GetValue())) {
		return fmt.Errorf("prev_kv: %s came with %v, want %v", name, ev.PrevKv, was)
	}
	f.last, f.response = rev, f.seen
	f.got[name], f.now[key] = string(ev.Kv.Value), ev.Kv
	if ev.Type == clientv3.EventTypeDelete {
		f.got[name] = "-"
		delete(f.now, key)
	}
	return nil
}

// await waits until everything up to a revision has come: a write behind it, to every
// part of the keyspace that is watched, shows it.
func (f *follower) reached(rev int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last >= rev || f.err != nil
}

// check compares all that came with all that was acknowledged.
func (f *follower) check(t testing.TB, h *history) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Errorf("%s: %v", f.name, f.err)
		return
	}
	missed := 0
	for name, value := range h.acked {
		var rev int64
		var key string
		fmt.Sscan(name, &rev, &key)
		if rev < f.from || rev > f.last || !f.keys(key) {
			continue
		}
		if got, ok := f.got[name]; !ok || got != value {
			if missed++; missed < 5 {
				t.Errorf("reliable: %s lacks %s = %q (%q)", f.name, name, value, got)
			}
		}
	}
	for name, value := range f.got {
		_, key, _ := strings.Cut(name, " ")
		if _, ok := h.acked[name]; !ok && !h.unsure[key+" "+value] && strings.HasPrefix(key, "k/") {
			t.Errorf("%s got %s = %q, which nobody wrote", f.name, name, value)
		}
	}
}

func everyKey(string) bool { return true }

// finish stops the writers and waits until all followers have come to the end.
func (m *testMesh) finish(ctx context.Context, stop func(), h *history, all []*follower) {
	m.t.Helper()
	stop()
	c := m.client()
	var end int64
	for _, key := range []string{keyAt(0), keyAt(keyspan / 2), keyAt(keyspan + 5)} {
		m.eventually(20*time.Second, "last write of "+key, func() bool {
			resp, err := c.Put(ctx, key, "end")
			if err != nil { // a leader was lost on the way: the write may have happened
				h.unsure[key+" end"] = true
				return false
			}
			end = resp.Header.Revision
			return true
		})
		h.acked[fmt.Sprint(end, " ", key)] = "end"
		h.last = end
	}
	for _, f := range all {
		want := int64(0)
		for name := range h.acked {
			var rev int64
			var key string
			fmt.Sscan(name, &rev, &key)
			if f.keys(key) {
				want = max(want, rev)
			}
		}
		m.eventually(20*time.Second, fmt.Sprintf("the last event (%d) on %s", want, f.name), func() bool { return f.reached(want) })
		f.check(m.t, h)
	}
}

func TestWatchAcrossSplits(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	h := newHistory()
	left := func(key string) bool { return key < keyAt(keyspan/2) }
	var all []*follower
	for i := range m.nodes {
		c := m.client(i)
		all = append(all,
			follow(fmt.Sprintf("all, through node %d", i), 1, everyKey, c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())),
			follow(fmt.Sprintf("the left half, through node %d", i), 1, left,
				c.Watch(ctx, "k/", clientv3.WithRange(keyAt(keyspan/2)), clientv3.WithPrevKV(), clientv3.WithRev(1))))
	}
	stop := m.write(ctx, h, 6)
	rng := rand.New(rand.NewPCG(3, 4))
	splits := 5
	if testing.Short() {
		splits = 4
	}
	for n := range splits {
		want := h.size() + 60
		m.eventually(20*time.Second, "writes", func() bool { return h.size() >= want })
		m.cutAt(keyAt(rng.IntN(keyspan)))
		h.mu.Lock()
		from := h.last / 2
		h.mu.Unlock()
		c := m.client(n % 3)
		all = append(all, follow(fmt.Sprintf("all from %d, through node %d", from, n%3), from, everyKey,
			c.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV())))
	}
	m.finish(ctx, stop, h, all)
	t.Logf("%d writes, %d of unknown outcome, up to revision %d", len(h.acked), len(h.unsure), h.last)
}

// Resume: each round goes on from the last revision + 1, through another node.
func TestWatchResumesThroughAnotherNode(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	h := newHistory()
	f := &follower{name: "one that moves on", keys: everyKey, from: 1, prevKV: true,
		got: make(map[string]string), now: make(map[string]*mvccpb.KeyValue)}
	stop := m.write(ctx, h, 4)
	clients := []*clientv3.Client{m.client(0), m.client(1), m.client(2)}
	for n := range 12 {
		if n%3 == 1 {
			m.cutAt(keyAt(n * 83))
		}
		round, leave := context.WithCancel(ctx)
		before := len(f.got)
		for r := range clients[n%3].Watch(round, "", clientv3.WithPrefix(), clientv3.WithRev(max(1, f.last+1)), clientv3.WithPrevKV()) {
			if err := f.take(&r); err != nil {
				t.Fatal(err)
			}
			if len(f.got) > before+40 {
				break
			}
		}
		leave()
	}
	stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	f.check(t, h)
}

// Progress answers with a revision that is not below any that somebody was shown
// before it was asked for, and behind all events at or below it.
func TestProgressCoversWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	writer, watcher := m.client(0), m.client(1)
	put(ctx, t, writer, keyAt(0), "first")
	ch := watcher.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-ch; !r.Created {
		t.Fatalf("%v", r)
	}
	// What is in the watch's stream while the first split comes is handed over.
	var seen, progress int64
	for n := range 40 {
		switch n {
		case 10, 20, 30:
			m.cutAt(keyAt(n * 25))
			if err := watcher.RequestProgress(ctx); err != nil { // although nothing was written since
				t.Fatal(err)
			}
		default:
			seen = put(ctx, t, writer, keyAt(n*211%keyspan), fmt.Sprint(n))
			if got, err := writer.Get(ctx, "k/", clientv3.WithPrefix()); err != nil || got.Header.Revision < seen {
				t.Fatalf("a range at %v behind %d: %v", got, seen, err)
			} else if n > 10 {
				seen = max(seen, got.Header.Revision)
			}
			if err := watcher.RequestProgress(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for answered := false; !answered; {
			r := <-ch
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			for _, ev := range r.Events {
				if ev.Kv.ModRevision <= progress {
					t.Fatalf("event at %d behind progress at %d", ev.Kv.ModRevision, progress)
				}
			}
			if !r.IsProgressNotify() {
				continue
			}
			if r.Header.Revision < progress {
				t.Fatalf("progress at %d behind %d", r.Header.Revision, progress)
			}
			progress = r.Header.Revision
			// A follower's progress in a scope that was never split is its own: as
			// in etcd, it is asked again.
			if answered = progress >= seen; !answered {
				if n > 10 {
					t.Fatalf("progress at %d, but %d was shown before it was asked for", progress, seen)
				}
				if err := watcher.RequestProgress(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestWatchSurvivesTheEndOfANode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	h := newHistory()
	all := []*follower{
		follow("all, through any node", 1, everyKey, m.client().Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())),
	}
	leader := m.leader()
	all = append(all, follow("all, through one that stays", 1, everyKey,
		m.client((leader+1)%3).Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())))
	stop := m.write(ctx, h, 4)
	more := func() {
		t.Helper()
		want := h.size() + 50
		m.eventually(30*time.Second, "writes", func() bool { return h.size() >= want })
	}
	more()
	m.cutAt(keyAt(300))
	m.cutAt(keyAt(700))
	more()
	m.stop(leader)
	more()
	m.cutAt(keyAt(500))
	m.start(leader)
	more()
	m.finish(ctx, stop, h, all)
}

// A node without replicas serves watches from other nodes'.
func TestWatchThroughANodeWithoutReplicas(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	bare := -1
	m.eventually(20*time.Second, "node without a replica", func() bool {
		held := map[string]bool{}
		for i := range m.nodes {
			list := m.segments(i)
			if len(list) == 0 {
				return false
			}
			d, err := meshpb.FromPB(list[0].GetDescriptor_())
			if err != nil || len(d.Voters()) != 3 {
				return false
			}
			for _, v := range d.Voters() {
				held[string(v.Node)] = true
			}
		}
		for i := range m.nodes {
			reply, err := meshpb.NewMeshClient(m.dial(i)).Status(ctx, &meshpb.StatusRequest{})
			if err == nil && !held[reply.GetNode().GetId()] {
				bare = i
			}
		}
		return bare >= 0
	})
	h := newHistory()
	c := m.client(bare)
	all := []*follower{follow("relayed, then split", 1, everyKey, c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV()))}
	stop := m.write(ctx, h, 4)
	more := func() {
		t.Helper()
		want := h.size() + 50
		m.eventually(30*time.Second, "writes", func() bool { return h.size() >= want })
	}
	more()
	m.cutAt(keyAt(300))
	m.cutAt(keyAt(700))
	m.eventually(10*time.Second, "news of the split", func() bool { return len(m.segments(bare)) == 3 })
	fresh := m.client(bare)
	all = append(all,
		follow("woven from elsewhere", 1, everyKey, fresh.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())))
	more()
	m.cutAt(keyAt(500))
	more()
	stopped := (bare + 1) % 4
	m.stop(stopped)
	more()
	m.start(stopped)
	more()
	m.finish(ctx, stop, h, all)
	if t.Failed() {
		return
	}
	ch := fresh.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-ch; !r.Created || r.Header.Revision < h.last {
		t.Errorf("created at %d, but %d was acknowledged", r.Header.Revision, h.last)
	}
	if err := fresh.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	if r := <-ch; !r.IsProgressNotify() || r.Header.Revision < h.last {
		t.Errorf("progress %v, but %d was acknowledged", r, h.last)
	}
}

// rawWatch is a Watch stream without etcd's client, which would hide that it ended.
func (m *testMesh) rawWatch(ctx context.Context, i int, creates ...*pb.WatchCreateRequest) pb.Watch_WatchClient {
	m.t.Helper()
	stream, err := pb.NewWatchClient(m.dial(i)).Watch(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range creates {
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}); err != nil {
			m.t.Fatal(err)
		}
	}
	for n := range creates {
		if r, err := stream.Recv(); err != nil || !r.Created || r.WatchId != int64(n) {
			m.t.Fatalf("creation %d: %v, %v", n, r, err)
		}
	}
	return stream
}

// A client stream does not end at splits, the first one included, and none of its
// watches does; the events of the left half need nothing from the right.
func TestSplitsDoNotDisturbAStream(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client(0)
	put(ctx, t, c, keyAt(0), "before")
	get(ctx, t, m.client(1), keyAt(0)) // "from now" is where the node stands
	stream := m.rawWatch(ctx, 1,
		&pb.WatchCreateRequest{Key: []byte(keyAt(0)), RangeEnd: []byte(keyAt(500)), PrevKv: true},
		&pb.WatchCreateRequest{Key: []byte(keyAt(500)), RangeEnd: []byte(keyAt(1000))},
		&pb.WatchCreateRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}},
		&pb.WatchCreateRequest{Key: []byte(keyAt(7)), StartRevision: 1 << 40},
	)
	// next waits for the events of one write on the watches that want it.
	next := func(rev int64, want ...int64) {
		t.Helper()
		got := map[int64]bool{}
		for len(got) < len(want) {
			r, err := stream.Recv()
			if err != nil {
				t.Fatalf("the stream ended: %v", err)
			}
			if r.Canceled || r.Created || len(r.Events) != 1 || r.Events[0].Kv.ModRevision != rev || got[r.WatchId] || !slices.Contains(want, r.WatchId) {
				t.Fatalf("got %v, want revision %d on %v", r, rev, want)
			}
			got[r.WatchId] = true
		}
	}
	next(put(ctx, t, c, keyAt(1), "a"), 0, 2)
	for n, at := range []int{500, 750, 250, 600, 900} {
		m.cutAt(keyAt(at))
		next(put(ctx, t, c, keyAt(1), fmt.Sprint(n)), 0, 2)
		next(put(ctx, t, c, keyAt(999), fmt.Sprint(n)), 1, 2)
		next(put(ctx, t, c, keyAt(700), fmt.Sprint(n)), 1, 2)
	}
	if resp, err := c.Delete(ctx, keyAt(700)); err != nil {
		t.Fatal(err)
	} else {
		next(resp.Header.Revision, 1)
	}
	// IDs go on where the stream was; what is there already is refused.
	for _, id := range []int64{0, 2, 9} {
		stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("z"), WatchId: id}}})
		r, err := stream.Recv()
		want := map[int64]int64{0: 4, 2: -1, 9: 9}[id]
		if err != nil || !r.Created || r.WatchId != want || r.Canceled != (want < 0) {
			t.Errorf("watch %d: %v, %v", id, r, err)
		}
	}
	stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 1}}})
	if r, err := stream.Recv(); err != nil || !r.Canceled || r.WatchId != 1 {
		t.Errorf("cancel: %v, %v", r, err)
	}
}

// What a watch can ask for, over several segments.
func TestWatchOptionsOverSegments(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client(2)
	first := put(ctx, t, c, keyAt(100), "1")
	m.cutAt(keyAt(300))
	m.cutAt(keyAt(600))
	put(ctx, t, c, keyAt(100), "2")
	put(ctx, t, c, keyAt(400), "1")
	last := put(ctx, t, c, keyAt(800), strings.Repeat("x", 900<<10))
	if _, err := c.Txn(ctx).Then(clientv3.OpPut(keyAt(801), strings.Repeat("y", 700<<10)), clientv3.OpPut(keyAt(802), strings.Repeat("z", 700<<10))).Commit(); err != nil {
		t.Fatal(err)
	}
	// Fragments: clientv3 puts them together again.
	got := 0
	for r := range c.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFragment(), clientv3.WithPrevKV()) {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		if got += len(r.Events); got == 6 {
			break
		}
	}
	// Filters.
	deleted, err := c.Delete(ctx, keyAt(400))
	if err != nil {
		t.Fatal(err)
	}
	r := <-c.Watch(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFilterPut(), clientv3.WithPrevKV())
	if len(r.Events) != 1 || r.Events[0].Kv.ModRevision != deleted.Header.Revision || string(r.Events[0].PrevKv.GetValue()) != "1" {
		t.Errorf("deletions: %v", r)
	}
	// Many watches of one stream, created in order, with headers that cover what was
	// acknowledged.
	creates := make([]*pb.WatchCreateRequest, 100)
	for i := range creates {
		creates[i] = &pb.WatchCreateRequest{Key: []byte(keyAt(i * 10))}
	}
	many := m.rawWatch(ctx, 0, creates...)
	want := map[int64]int64{}
	for _, i := range []int{3, 33, 66, 99} {
		want[int64(i)] = put(ctx, t, c, keyAt(i*10), "many")
	}
	for range 4 {
		r, err := many.Recv()
		if err != nil || len(r.Events) != 1 || want[r.WatchId] != r.Events[0].Kv.ModRevision {
			t.Fatalf("got %v, %v, want one of %v", r, err, slices.Sorted(maps.Keys(want)))
		}
		delete(want, r.WatchId)
	}
	// Compacted.
	if _, err := c.Compact(ctx, last); err != nil {
		t.Fatal(err)
	}
	for i := range m.nodes {
		// As in etcd, a replica that has not applied the compaction yet shows the history.
		var r clientv3.WatchResponse
		m.eventually(30*time.Second, "compaction is known everywhere", func() bool {
			one, cancel := context.WithCancel(ctx)
			defer cancel()
			r = <-m.client(i).Watch(one, "k/", clientv3.WithPrefix(), clientv3.WithRev(first))
			return r.Err() != nil
		})
		if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != last {
			t.Errorf("a watch of what was compacted, through node %d: %v, %v", i, r, r.Err())
		}
	}
}
