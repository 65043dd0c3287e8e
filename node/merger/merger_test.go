package merger_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/merger"
	"github.com/anchormesh/anchormesh/node/steward"
)

const left, right anchormesh.SegmentID = 9, 11

// Kinds of questions, in the order of an attempt.
const (
	ready   = 1
	freeze  = 2
	confirm = 3
)

// member is a node with a merger.
type member struct {
	*hosttest.Node
	world  *world
	disk   *hosttest.Disk
	merger *merger.Merger
	stop   context.CancelFunc
	ended  chan struct{}
	dead   bool
}

// world is a mesh of three, in which something happens when a question of a kind is
// asked for the nth time.
type world struct {
	t   *testing.T
	net *meshtest.Network

	mu    sync.Mutex
	nodes []*member
	asked map[byte]int
	on    func(from *member, to anchormesh.NodeID, kind byte, nth int) error
}

// asking is the mesh as one merger sees it.
type asking struct {
	*meshtest.Node
	m *member
}

func (a asking) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	w := a.m.world
	w.mu.Lock()
	kind := parts[0][0]
	w.asked[kind]++
	nth, on := w.asked[kind], w.on
	w.mu.Unlock()
	if on != nil {
		if err := on(a.m, to, kind, nth); err != nil {
			return nil, err
		}
	}
	return a.Node.Call(ctx, to, method, parts...)
}

// newWorld is a mesh of three with two neighbouring segments, each on all nodes.
func newWorld(t *testing.T) *world {
	w := &world{t: t, net: meshtest.NewNetwork(1), asked: make(map[byte]int)}
	var stops []context.CancelFunc
	for i := range 3 {
		m := w.start(hosttest.NewDisk(t), anchormesh.NodeID(rune('a'+i)))
		if i == 0 {
			must(t, m.Host.Genesis(7, left, "", 3))
		} else {
			must(t, m.Host.JoinMesh(7))
		}
		w.nodes = append(w.nodes, m)
		stops = append(stops, w.recruits(m))
	}
	hosttest.Eventually(t, time.Minute, "three voters", func() bool {
		m := w.leader(left)
		return m != nil && len(m.state(left).Descriptor.Voters()) == 3 && !m.state(left).Joint()
	})
	for _, stop := range stops {
		stop() // nothing else changes from now on
	}
	w.leader(left).Put(left, "a", "v")
	must(t, w.order(left, (&machine.Split{At: []byte("m"), Right: right}).Command()))
	hosttest.Eventually(t, time.Minute, "the right half", func() bool { return w.leader(right) != nil && w.here(right) == 3 })
	return w
}

func (w *world) start(d *hosttest.Disk, id anchormesh.NodeID) *member {
	m := &member{Node: hosttest.Start(w.t, d, w.net, id), world: w, disk: d, ended: make(chan struct{})}
	m.merger = merger.New(merger.Config{Self: id, Logger: slog.New(slog.DiscardHandler)}, m.Host, m.Engine, m.Table, asking{m.Mesh, m})
	m.Mesh.HandleCalls(merger.Method, m.merger.Serve)
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() { _ = m.merger.Run(ctx); close(m.ended) }()
	w.t.Cleanup(func() { stop(); <-m.ended })
	return m
}

// recruits runs a steward until the group has three voters.
func (w *world) recruits(m *member) context.CancelFunc {
	s := steward.New(steward.Config{
		Self: m.ID, ReplaceAfter: time.Hour, Recruit: recruit.DefaultConfig(), Logger: slog.New(slog.DiscardHandler),
		Place: place.DefaultConfig(), PlanEvery: 2 * time.Second,
		Load: func() recruit.Load {
			return recruit.Load{Mesh: m.Host.Mesh(), FreeBytes: 1 << 40, ReserveBytes: 1 << 20, InstallingMax: 2}
		},
		Own: func() place.Node { return place.Node{Member: recruit.Member{Room: 100}} },
		Heard: func(now time.Time) map[anchormesh.NodeID]place.Node {
			out := make(map[anchormesh.NodeID]place.Node)
			for _, id := range []anchormesh.NodeID{"a", "b", "c"} {
				out[id] = place.Node{Member: recruit.Member{Room: 100}, Heard: now}
			}
			return out
		},
		Measured: func(anchormesh.SegmentID) (uint64, int64) { return 0, 1000 },
	}, m.Host, m.Engine, m.Mesh)
	m.Mesh.HandleCalls(steward.Method, s.Serve)
	ctx, stop := context.WithCancel(context.Background())
	go s.Run(ctx)
	w.t.Cleanup(stop)
	return stop
}

func (w *world) living() (out []*member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.nodes {
		if !m.dead {
			out = append(out, m)
		}
	}
	return out
}

// leader is who leads a segment in the highest term; nil: nobody.
func (w *world) leader(id anchormesh.SegmentID) (best *member) {
	var term uint64
	for _, m := range w.living() {
		if st, ok := m.Engine.Status(id); ok && st.Leads() && st.Term >= term {
			best, term = m, st.Term
		}
	}
	return best
}

func (w *world) here(id anchormesh.SegmentID) (n int) {
	for _, m := range w.living() {
		if _, ok := m.Host.Get(id); ok {
			n++
		}
	}
	return n
}

func (m *member) state(id anchormesh.SegmentID) *machine.State {
	if r, ok := m.Host.Get(id); ok {
		return r.Machine.State()
	}
	return &machine.State{Descriptor: &anchormesh.Descriptor{}}
}

// order puts a command into a segment's log by its leader.
func (w *world) order(id anchormesh.SegmentID, command []byte) error {
	m := w.leader(id)
	if m == nil {
		return consensus.ErrNotLeader
	}
	done := make(chan error, 1)
	m.Engine.Submit(id, consensus.Proposal{
		Generation: m.state(id).Descriptor.Generation, Alone: true, Payload: command,
		Done: func(res consensus.Result) { done <- res.Err },
	})
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
		return context.DeadlineExceeded
	}
}

// crash ends a node as a power cut does; what it had not synced stays in memory here,
// the log holds what counts.
func (w *world) crash(m *member) {
	w.mu.Lock()
	m.dead = true
	w.mu.Unlock()
	w.net.Crash(m.ID)
	m.stop()
	for _, o := range w.living() {
		w.net.Observe(o.ID, m.ID, mesh.Dead)
	}
}

// merge has the left's leader try, whoever it is.
func (w *world) merge() error {
	m := w.leader(left)
	if m == nil {
		return consensus.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := m.merger.Merge(ctx, left, lineage.Evidence{Reason: lineage.Operator}, false)
	return err
}

// merged: all living nodes have one segment. whole: they have two, both serving.
func (w *world) merged() bool {
	for _, m := range w.living() {
		if len(m.state(left).Descriptor.Range.End) != 0 || len(m.Host.Segments()) != 1 {
			return false
		}
	}
	return w.leader(left) != nil
}

func (w *world) whole() bool {
	for _, m := range w.living() {
		if s, r := m.state(left), m.state(right); s.Merging() || r.Merging() || len(r.Descriptor.Anchors) == 0 {
			return false
		}
	}
	return w.leader(left) != nil && w.leader(right) != nil
}

// rev is far above what was given out; the tests' writes are alone.
var rev anchormesh.Revision = 1000

// serves reports whether a key on the right can be written now.
func (w *world) serves() bool {
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte("z"), Value: fmt.Append(nil, rev)})
	must(w.t, err)
	rev++
	command := keyspace.AppendCommand(keyspace.AppendStamp(nil, rev), keyspace.OpPut, raw)
	return w.order(right, slices.Clone(command)) == nil || w.mergedAt() && w.order(left, command) == nil
}

func (w *world) mergedAt() bool {
	m := w.leader(left)
	return m != nil && len(m.state(left).Descriptor.Range.End) == 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.leader(left)
		d, err := m.merger.Merge(t.Context(), left, lineage.Evidence{}, true)
		if err != nil || d.Segment != right || !w.whole() {
			t.Fatalf("dry: %v, %v", d, err)
		}
		for _, o := range w.nodes {
			if o == m {
				continue
			}
			if _, err := o.merger.Merge(t.Context(), left, lineage.Evidence{}, false); !errors.Is(err, merger.ErrNotLeader) {
				t.Errorf("asked of one that does not lead: %v", err)
			}
		}
		must(t, w.merge())
		hosttest.Eventually(t, time.Minute, "one segment everywhere", w.merged)
		if !w.serves() {
			t.Error("the merged segment does not serve")
		}
		if err := w.merge(); !errors.Is(err, machine.ErrRefused) {
			t.Errorf("the last segment: %v", err)
		}
	})
}

// Whatever goes wrong at whichever step of an attempt: it ends by itself in merged or
// not merged, the right serves again within three seconds, elections included, and once all
// is well the two can be merged.
func TestBadDays(t *testing.T) {
	faults := map[string]func(w *world, from *member, to anchormesh.NodeID) error{
		"the left's leader dies": func(w *world, from *member, _ anchormesh.NodeID) error {
			go w.crash(from)
			return errors.New("dead")
		},
		"the left's leader changes": func(w *world, from *member, _ anchormesh.NodeID) error {
			for _, a := range from.state(left).Descriptor.Anchors {
				if a.Node != from.ID {
					from.Engine.TransferLeader(left, a.Replica)
					break
				}
			}
			return nil
		},
		"the right's leader changes": func(w *world, _ *member, _ anchormesh.NodeID) error {
			if m := w.leader(right); m != nil {
				for _, a := range m.state(right).Descriptor.Anchors {
					if a.Node != m.ID {
						m.Engine.TransferLeader(right, a.Replica)
						break
					}
				}
			}
			return nil
		},
		"the right's leader dies": func(w *world, from *member, _ anchormesh.NodeID) error {
			if m := w.leader(right); m != nil && m != from {
				w.crash(m)
			}
			return nil
		},
		"a node is cut off": func(w *world, from *member, to anchormesh.NodeID) error {
			if to == from.ID {
				return nil
			}
			for _, o := range []anchormesh.NodeID{"a", "b", "c"} {
				if o != to {
					w.net.Cut(o, to)
					w.net.Cut(to, o)
				}
			}
			return errors.New("cut off")
		},
		"an answer is lost": func(*world, *member, anchormesh.NodeID) error { return errors.New("lost") },
	}
	for name, fault := range faults {
		for kind, step := range map[byte]string{ready: "ready", freeze: "freeze", confirm: "confirm"} {
			t.Run(name+" at "+step, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { badDay(t, kind, fault) })
			})
		}
	}
}

func badDay(t *testing.T, kind byte, fault func(*world, *member, anchormesh.NodeID) error) {
	w := newWorld(t)
	if kind == freeze { // so that the question crosses the network
		l, r := w.leader(left), w.leader(right)
		if l == r {
			for _, a := range r.state(right).Descriptor.Anchors {
				if a.Node != r.ID {
					r.Engine.TransferLeader(right, a.Replica)
					break
				}
			}
			hosttest.Eventually(t, 20*time.Second, "another leader of the right", func() bool { n := w.leader(right); return n != nil && n != l })
		}
	}
	struck := false
	w.on = func(from *member, to anchormesh.NodeID, k byte, _ int) error {
		w.mu.Lock()
		first := k == kind && !struck
		struck = struck || first
		w.mu.Unlock()
		if !first {
			return nil
		}
		return fault(w, from, to)
	}
	err := w.merge()
	begin := time.Now()
	hosttest.Eventually(t, 10*time.Second, "an end, and a right that serves", func() bool {
		return w.leader(left) != nil && (w.leader(right) != nil || w.mergedAt()) && w.serves()
	})
	t.Logf("%v; served %v after its end", err, time.Since(begin))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the right stood still for %v after the attempt ended", took)
	}
	w.mu.Lock()
	hit := struck
	w.on = nil
	w.mu.Unlock()
	if !hit {
		t.Skip("the question went to the node itself")
	}
	for _, x := range []anchormesh.NodeID{"a", "b", "c"} {
		for _, y := range []anchormesh.NodeID{"a", "b", "c"} {
			if x != y {
				w.net.Heal(x, y)
			}
		}
	}
	if len(w.living()) < 3 {
		hosttest.Eventually(t, time.Minute, "merged, or whole", func() bool { return w.merged() || w.whole() })
		return
	}
	hosttest.Eventually(t, 2*time.Minute, "a merge at last", func() bool {
		if !w.mergedAt() {
			_ = w.merge()
		}
		return w.merged()
	})
}
