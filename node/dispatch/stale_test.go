package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// mapped is a mesh in which every node knows what the logs of its own replicas told
// it, and nothing else. Nobody holds a replica, so whoever is asked says where to go.
type mapped struct {
	rng     *rand.Rand
	nodes   map[anchormesh.NodeID]*Dispatcher
	truth   []*anchormesh.Descriptor
	changes int
	asked   []anchormesh.NodeID
}

func newMapped(seed uint64, nodes int) *mapped {
	m := &mapped{rng: rand.New(rand.NewPCG(seed, 1)), nodes: map[anchormesh.NodeID]*Dispatcher{}}
	for i := range nodes {
		m.add(nodeName(i))
	}
	first := &anchormesh.Descriptor{Mesh: 1, Segment: 1, Generation: 1, Changed: 5, NextReplica: 4}
	for i := range 3 {
		first.Anchors = append(first.Anchors, anchormesh.Anchor{Node: nodeName(i), Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	m.truth = []*anchormesh.Descriptor{first}
	m.tell(first, first)
	return m
}

func nodeName(i int) anchormesh.NodeID { return anchormesh.NodeID(fmt.Sprintf("n%02d", i)) }

func (m *mapped) add(id anchormesh.NodeID) *Dispatcher {
	t := route.NewTable()
	d := &Dispatcher{self: id, table: t, caller: m, host: host.New(host.Config{Self: id}, nil, nil, nil, nil, t)}
	m.nodes[id] = d
	return d
}

// tell lets the anchors of one descriptor know another.
func (m *mapped) tell(to, what *anchormesh.Descriptor) {
	for _, a := range to.Anchors {
		m.nodes[a.Node].table.Learn(what)
	}
}

// split cuts a segment in two; its anchors know both parts.
func (m *mapped) split() {
	i := m.rng.IntN(len(m.truth))
	old := m.truth[i]
	at := []byte(fmt.Sprintf("k%03d", m.rng.IntN(1000)))
	if !old.Range.Contains(at) || string(at) == string(old.Range.Start) {
		return
	}
	m.changes++
	left, right := old.Clone(), old.Clone()
	left.Generation, left.Changed, left.Range.End = old.Generation+1, old.Changed+1, at
	right.Segment, right.Generation, right.Changed, right.Range.Start = anchormesh.SegmentID(m.changes+1), old.Generation+1, 5, at
	m.tell(old, left)
	m.tell(old, right)
	m.truth = slices.Concat(m.truth[:i], []*anchormesh.Descriptor{left, right}, m.truth[i+1:])
}

// move replaces an anchor by another node. It was asked before the last split, as it
// may be, and came as a snapshot from behind it: of the rest it knows nothing.
func (m *mapped) move() {
	i := m.rng.IntN(len(m.truth))
	old := m.truth[i]
	to := nodeName(m.rng.IntN(len(m.nodes)))
	if _, there := old.AnchorOn(to); there {
		return
	}
	m.changes++
	next := old.Clone()
	next.Changed++
	next.NextReplica++
	next.Anchors = append(slices.Delete(next.Anchors, 0, 1), anchormesh.Anchor{Node: to, Replica: old.NextReplica, Role: anchormesh.Voter})
	m.tell(old, next)
	m.tell(next, next)
	m.truth[i] = next
}

// Call implements Caller.
func (m *mapped) Call(_ context.Context, to anchormesh.NodeID, _ uint8, parts ...[]byte) ([]byte, error) {
	m.asked = append(m.asked, to)
	var got answer
	m.nodes[to].Serve("asker", slices.Concat(parts...), wire.NewResponder(&got, 1, time.Time{}))
	return nil, &mesh.RemoteError{Code: got.code, Text: got.text}
}

func (m *mapped) Connected(anchormesh.NodeID) bool                 { return true }
func (m *mapped) Connect(context.Context, anchormesh.NodeID) error { return nil }
func (m *mapped) owner(key []byte) (owner *anchormesh.Descriptor, err error) {
	for _, d := range m.truth {
		if d.Range.Contains(key) {
			return d, nil
		}
	}
	return nil, fmt.Errorf("nobody has %q", key)
}

func putOf(t *testing.T, key string) *etcdapi.Call {
	t.Helper()
	call, err := etcdapi.ForwardedCall(etcdapi.MethodRange, codec.AppendRange(make([]byte, 1, 64), &codec.RangeRequest{Key: []byte(key)}))
	if err != nil {
		t.Fatal(err)
	}
	return call
}

// A node with a week-old map, in which the first segment is all there is, gets to
// every key's anchors in a bounded number of hops, whichever wrong anchor it asks
// first and takes for the leader.
func TestAnOldMapLeadsThere(t *testing.T) {
	for seed := range uint64(60) {
		m := newMapped(seed, 8)
		old := m.truth[0]
		for range 30 {
			if m.rng.IntN(2) == 0 {
				m.split()
			} else {
				m.move()
			}
		}
		for k := range 40 {
			key := fmt.Sprintf("k%03d", k*25)
			want, err := m.owner([]byte(key))
			if err != nil {
				t.Fatal(err)
			}
			for _, first := range old.Anchors {
				asker := m.add("asker")
				delete(m.nodes, "asker")
				asker.table.Learn(old)
				asker.table.SetLeader(old.Segment, first.Node)
				m.asked = nil
				call := putOf(t, key)
				for try := 0; ; try++ {
					desc, _ := asker.table.Lookup([]byte(key))
					if desc.Segment == want.Segment && desc.Generation == want.Generation && desc.Changed == want.Changed {
						break
					}
					if try > 3*m.changes {
						t.Fatalf("seed %d: %q from %s: still asks %s at generation %d after %d hops over %v; it is in %s at generation %d",
							seed, key, first.Node, desc.Segment, desc.Generation, try, m.asked, want.Segment, want.Generation)
					}
					if _, err := asker.run(t.Context(), desc, call, try); err == nil {
						t.Fatal("somebody answered")
					}
				}
			}
		}
	}
}

// A segment that was absorbed is known by its tombstone: who asks for it is told who
// governs its range now.
func TestABuriedSegmentsSuccessorsAreTold(t *testing.T) {
	m := newMapped(1, 3)
	d := m.nodes["n00"]
	gone := m.truth[0].Clone()
	gone.Segment, gone.Range = 2, anchormesh.KeyRange{Start: []byte("m")}
	heir := m.truth[0].Clone()
	heir.Generation = 3
	d.table.Learn(heir)
	d.table.Bury(anchormesh.Tombstone{Segment: 2, Generation: 2, Range: gone.Range, Successors: []anchormesh.SegmentID{1}})
	asker := m.add("asker")
	asker.table.Learn(gone)
	if _, err := asker.forward(t.Context(), gone, putOf(t, "x"), "n00"); err == nil {
		t.Fatal("somebody answered")
	}
	if now, _ := asker.table.Lookup([]byte("x")); now.Segment != 1 || now.Generation != 3 {
		t.Errorf("the asker goes to %s at generation %d", now.Segment, now.Generation)
	}
	var got answer
	d.failStale(wire.NewResponder(&got, 1, time.Time{}), 2)
	if fresh := (&Dispatcher{table: route.NewTable()}); !fresh.learn([]byte(got.text)) {
		t.Error("a command for a buried segment is told nothing")
	}
}

// Where this node's replica came from behind a split, it asks another anchor for the
// half that it never heard of.
func TestAHoleBehindAReplicaIsAskedFor(t *testing.T) {
	m := newMapped(1, 3)
	old := m.truth[0]
	now := old.Clone()
	now.Generation, now.Changed, now.Range.End = 2, 9, []byte("m")
	right := old.Clone()
	right.Segment, right.Generation, right.Range.Start = 7, 2, []byte("m")
	here, other := m.nodes["n00"], m.nodes["n01"]
	here.table.Learn(now)
	other.table.Learn(now)
	other.table.Learn(right)
	for try := range 3 {
		routed, _ := here.table.Lookup([]byte("x"))
		if routed.Segment == 7 {
			return
		}
		if err := here.elsewhere(t.Context(), routed, now, []byte("x"), try); err == nil {
			t.Fatal("it was answered")
		}
	}
	t.Error("the hole is still there after asking everybody")
}

// FuzzLearn: what a peer sends for descriptors is taken or passed over.
func FuzzLearn(f *testing.F) {
	f.Add([]byte(encodeFresh([]*anchormesh.Descriptor{newMapped(1, 3).truth[0]})))
	f.Add([]byte{200, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &Dispatcher{table: route.NewTable()}
		d.learn(data)
		d.learn(data)
	})
}
