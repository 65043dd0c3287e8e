package exchange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/node/route"
)

// world is a mesh of cores and tables, without a network: what one says the
// other hears at once, or it is lost.
type world struct {
	rng   *rand.Rand
	ids   []anchormesh.NodeID
	nodes map[anchormesh.NodeID]*virtual
	loss  int // percent
	bytes int
	calls int
}

type virtual struct {
	core  *Core
	table *route.Table
	down  bool
}

func newWorld(seed uint64, n, loss int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 5)), nodes: map[anchormesh.NodeID]*virtual{}, loss: loss}
	for i := range n {
		id := anchormesh.NodeID(fmt.Sprintf("12D3KooWNodeOfTheVirtualMeshWithARealisticID%08d", i))
		w.ids = append(w.ids, id)
		w.start(id)
	}
	return w
}

// start starts a node, or restarts it with nothing.
func (w *world) start(id anchormesh.NodeID) {
	tab := route.NewTable()
	w.nodes[id] = &virtual{core: NewCore(w.rng.Uint64(), tab), table: tab}
}

func (w *world) others(id anchormesh.NodeID, downToo bool) []anchormesh.NodeID {
	return slices.DeleteFunc(slices.Clone(w.ids), func(o anchormesh.NodeID) bool { return o == id || !downToo && w.nodes[o].down })
}

func (w *world) lost() bool { return w.rng.IntN(100) < w.loss }

// ask lets a ask b once and reports whether there is more.
func (w *world) ask(t *testing.T, a, b anchormesh.NodeID) bool {
	from, to := w.nodes[a], w.nodes[b]
	q := from.core.Question(b)
	w.calls, w.bytes = w.calls+1, w.bytes+len(q)
	if to.down || w.lost() {
		return false
	}
	answer, err := to.core.Answer(a, q)
	if err != nil {
		t.Fatal(err)
	}
	w.bytes += len(answer)
	if len(answer) > AnswerBytesMax+4096 {
		t.Fatalf("an answer of %d bytes", len(answer))
	}
	if w.lost() {
		return false
	}
	items, again, err := from.core.Take(b, answer)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		from.learn(i)
	}
	return again
}

func (v *virtual) learn(i Item) bool {
	if i.Descriptor == nil {
		return v.table.Bury(i.Tombstone)
	}
	return v.table.Learn(i.Descriptor)
}

// round lets every node ask one other, to the end of what that one has to tell.
func (w *world) round(t *testing.T) {
	for _, id := range w.ids {
		v := w.nodes[id]
		if v.down {
			continue
		}
		v.core.Settle(w.others(id, true))
		if to, ok := v.core.Next(w.others(id, true), w.rng.IntN); ok {
			for w.ask(t, id, to) {
			}
		}
	}
}

// settled reports whether all running nodes know the same.
func (w *world) settled() bool {
	var sums []uint64
	for _, id := range w.ids {
		if v := w.nodes[id]; !v.down {
			_, sum := v.table.Position()
			sums = append(sums, sum)
		}
	}
	return len(slices.Compact(sums)) == 1
}

func (w *world) until(t *testing.T, rounds int, done func() bool) int {
	t.Helper()
	for n := range rounds + 1 {
		if done() {
			return n
		}
		w.round(t)
	}
	t.Fatalf("not within %d rounds", rounds)
	return 0
}

// segment is the i-th of n that cut the keyspace, with three anchors.
func segment(i, n int, changed uint64) *anchormesh.Descriptor {
	d := &anchormesh.Descriptor{
		Mesh: 7, Segment: anchormesh.SegmentID(i+1) * 0x9e3779b97f4a7c15, Generation: 9, Changed: changed, NextReplica: 4, Stamped: true,
		Lineage: anchormesh.Hash{1, byte(i), byte(changed)},
	}
	for r := range 3 {
		d.Anchors = append(d.Anchors, anchormesh.Anchor{
			Node:    anchormesh.NodeID(fmt.Sprintf("12D3KooWAnchorOfASegmentWithARealisticLength%08d", (i+r)%100)),
			Replica: anchormesh.ReplicaID(r + 1), Role: anchormesh.Voter, Zone: "eu-west-1a",
		})
	}
	if i > 0 {
		d.Range.Start = fmt.Appendf(nil, "/registry/pods/%06d", i)
	}
	if i+1 < n {
		d.Range.End = fmt.Appendf(nil, "/registry/pods/%06d", i+1)
	}
	return d
}

// TestHundredNodesConverge: segments are known to their anchors only; every tenth
// question and answer is lost.
func TestHundredNodesConverge(t *testing.T) {
	const nodes, segments = 100, 300
	for seed, loss := range []int{0, 10} {
		w := newWorld(uint64(seed), nodes, loss)
		for i := range segments {
			for range 3 {
				w.nodes[w.ids[w.rng.IntN(nodes)]].table.Learn(segment(i, segments, 5))
			}
		}
		n := w.until(t, 25, w.settled)
		for _, id := range w.ids {
			if got := len(w.nodes[id].table.All()); got != segments {
				t.Fatalf("seed %d: node %s knows %d segments", seed, id.Short(), got)
			}
		}
		t.Logf("%d%% lost: everybody knows everything after %d rounds, %d KB and %d questions per node", loss, n, w.bytes/nodes/1000, w.calls/nodes)
	}
}

// TestAnythingConverges: changes, tombstones, restarts, lost answers and
// half-finished conversations in any order; once they cease, all know the same.
func TestAnythingConverges(t *testing.T) {
	const segments = 40
	for seed := range uint64(30) {
		w := newWorld(seed, 5, 20)
		newest, buried := make([]uint64, segments), make([]bool, segments)
		for range 400 {
			id := w.ids[w.rng.IntN(len(w.ids))]
			switch roll := w.rng.IntN(100); {
			case roll < 30:
				i := w.rng.IntN(segments)
				newest[i]++
				w.nodes[id].table.Learn(segment(i, segments, newest[i]))
			case roll < 32:
				i := w.rng.IntN(segments)
				buried[i] = true // nobody succeeds it here, so its keys may be lost
				s := segment(i, segments, 1)
				w.nodes[id].table.Bury(anchormesh.Tombstone{Segment: s.Segment, Generation: 9, Range: s.Range})
			case roll < 34:
				w.start(id)
			default:
				w.ask(t, id, w.others(id, true)[w.rng.IntN(4)])
			}
		}
		// What restarts have wiped out everywhere its own log brings back.
		for i, changed := range newest {
			if changed > 0 {
				w.nodes[w.ids[i%5]].table.Learn(segment(i, segments, changed))
			}
		}
		w.loss = 0
		w.until(t, 12, w.settled)
		for i, changed := range newest {
			for _, id := range w.ids {
				d, ok := w.nodes[id].table.Lookup(segment(i, segments, 1).Range.Start)
				if changed > 0 && !buried[i] && (!ok || d.Changed != changed) {
					t.Fatalf("seed %d: node %s routes segment %d to %v, the newest is %d", seed, id.Short(), i, d, changed)
				}
			}
		}
	}
}

// TestTenThousandSegments states what the exchange costs at that size.
func TestTenThousandSegments(t *testing.T) {
	const nodes, segments = 4, 10_000
	w := newWorld(1, nodes, 0)
	for i := range segments {
		w.nodes[w.ids[0]].table.Learn(segment(i, segments, 5))
	}
	cost := func(name string, most int, what func()) {
		w.bytes, w.calls = 0, 0
		what()
		t.Logf("%s: %d bytes and %.1f questions per node", name, w.bytes/nodes, float64(w.calls)/nodes)
		if w.bytes/nodes > most {
			t.Errorf("%s: %d bytes per node, at most %d", name, w.bytes/nodes, most)
		}
	}
	cost("a newcomer learns 10,000", 5_000_000, func() { w.until(t, 8, w.settled) })
	cost("first contact with all others at rest", 400, func() {
		for range nodes - 1 {
			w.round(t)
		}
	})
	cost("a round at rest", 60, func() { w.round(t) })
	cost("100 changed anchors known by all", 200_000, func() {
		for i := range 100 {
			w.nodes[w.ids[0]].table.Learn(segment(i*97, segments, 6))
		}
		w.until(t, 8, w.settled)
	})
	w.nodes[w.ids[3]].core = NewCore(99, w.nodes[w.ids[3]].table)
	w.nodes[w.ids[0]].table.Learn(segment(4711, segments, 7))
	cost("one differs at first contact", 6_000, func() {
		for w.ask(t, w.ids[3], w.ids[0]) {
		}
	})
	if d, _ := w.nodes[w.ids[3]].table.Segment(segment(4711, segments, 0).Segment); d.Changed != 7 {
		t.Error("the comparison did not find the one that differs")
	}
}

// TestARestartedNodeLearnsAnew: its numbers begin anew, and so do those that
// others keep of it.
func TestARestartedNodeLearnsAnew(t *testing.T) {
	const segments = 200
	w := newWorld(2, 4, 0)
	for i := range segments {
		w.nodes[w.ids[i%4]].table.Learn(segment(i, segments, 5))
	}
	w.until(t, 6, w.settled)
	w.start(w.ids[2])
	// Only the restarted one knows this, under a small number that others would
	// take for old.
	w.nodes[w.ids[2]].table.Learn(segment(0, segments, 9))
	w.until(t, 6, w.settled)
	for _, id := range w.ids {
		if d, ok := w.nodes[id].table.Lookup(nil); !ok || d.Changed != 9 || len(w.nodes[id].table.All()) != segments {
			t.Errorf("node %s has %v and %d segments", id.Short(), d, len(w.nodes[id].table.All()))
		}
	}
}

// TestTombstonesGoWhenAllHaveConfirmed, and not before: a member that is down
// holds them.
func TestTombstonesGoWhenAllHaveConfirmed(t *testing.T) {
	const nodes, segments = 12, 30
	w := newWorld(3, nodes, 20)
	for i := range segments {
		w.nodes[w.ids[0]].table.Learn(segment(i, segments, 5))
	}
	w.until(t, 20, w.settled)
	asleep := w.nodes[w.ids[7]]
	asleep.down = true
	left, right := segment(10, segments, 5), segment(11, segments, 5)
	merged := left.Clone()
	merged.Generation, merged.Changed, merged.Range.End = 10, 6, right.Range.End
	for _, id := range w.ids[3:6] { // the anchors
		w.nodes[id].table.Learn(merged)
		w.nodes[id].table.Bury(anchormesh.Tombstone{
			Segment: right.Segment, Generation: right.Generation, Range: right.Range, Successors: []anchormesh.SegmentID{left.Segment},
		})
	}
	holders := func() (n int) {
		for _, id := range w.ids {
			if _, ok := w.nodes[id].table.Tombstone(right.Segment); ok {
				n++
			}
		}
		return n
	}
	w.until(t, 20, func() bool { return holders() == nodes-1 })
	for range 10 * nodes {
		w.round(t)
	}
	if n := holders(); n != nodes-1 {
		t.Fatalf("%d of %d hold the tombstone while a member has not confirmed", n, nodes-1)
	}
	if next := w.nodes[w.ids[0]].table.Successors(right.Segment); len(next) != 1 || next[0].Segment != left.Segment {
		t.Fatalf("the tombstone leads to %v", next)
	}
	asleep.down = false
	n := w.until(t, 20*nodes, func() bool {
		d, ok := asleep.table.Lookup(right.Range.Start)
		return holders() == 0 && ok && d.Segment == left.Segment
	})
	t.Logf("confirmed and dropped by all %d nodes within %d rounds", nodes, n)
}

// TestAPushIsAllOverTheMeshWithinFiveHops and asks nobody anything.
func TestAPushIsAllOverTheMeshWithinFiveHops(t *testing.T) {
	const nodes = 100
	for seed := range uint64(10) {
		w := newWorld(seed, nodes, 0)
		news := segment(0, 1, 5)
		first := w.nodes[w.ids[0]]
		first.learn(Item{Descriptor: news})
		first.core.Announce(news.Segment)
		telling, told, hops, bytes := []anchormesh.NodeID{w.ids[0]}, 1, 0, 0
		for ; len(telling) > 0; hops++ {
			var next []anchormesh.NodeID
			for _, id := range telling {
				push := w.nodes[id].core.Push()
				others := w.others(id, true)
				for _, i := range w.rng.Perm(len(others))[:Fanout] {
					bytes += len(push)
					to := w.nodes[others[i]]
					items, err := to.core.Pushed(push)
					if err != nil {
						t.Fatal(err)
					}
					if to.learn(items[0]) {
						to.core.Announce(items[0].version().Segment)
						next = append(next, others[i])
						told++
					}
				}
			}
			telling = next
			if hops == 4 && told < 70 {
				t.Errorf("seed %d: after five hops %d of %d nodes know", seed, told, nodes)
			}
		}
		if told < 88 || hops > 9 {
			t.Errorf("seed %d: %d of %d nodes were told, in %d hops", seed, told, nodes, hops)
		}
		if seed == 0 {
			t.Logf("%d of %d nodes told in %d hops, %d bytes in all", told, nodes, hops, bytes)
		}
	}
}

func TestUrgentIsBounded(t *testing.T) {
	const segments = 3 * UrgentMax
	w := newWorld(1, 1, 0)
	v := w.nodes[w.ids[0]]
	for i := range segments {
		d := segment(i, segments, 5)
		v.table.Learn(d)
		v.core.Announce(d.Segment, d.Segment)
	}
	sent := 0
	for push := v.core.Push(); push != nil; push = v.core.Push() {
		if len(push) > PushBytesMax+1024 {
			t.Fatalf("a push of %d bytes", len(push))
		}
		items, err := v.core.Pushed(push)
		if err != nil {
			t.Fatal(err)
		}
		sent += len(items)
	}
	if sent != UrgentMax {
		t.Errorf("%d segments were pushed, want %d", sent, UrgentMax)
	}
}

// TestWhatALaterVersionSendsCostsOnlyItself: a descriptor with a field that is
// not known here is left out; what was told beside it counts.
func TestWhatALaterVersionSendsCostsOnlyItself(t *testing.T) {
	one, two := segment(0, 2, 5), segment(1, 2, 5)
	body := appendItem([]byte{kindPush}, Item{Descriptor: one})
	odd := appendItem(nil, Item{Descriptor: two})
	body = append(append(body, bodyDescriptor), fields.AppendBytes(nil, append(odd[3:], 0xfa, 0x01, 0))...)
	body = appendItem(body, Item{Descriptor: two})
	core := NewCore(1, route.NewTable())
	items, err := core.Pushed(body)
	if len(items) != 2 || err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("%d items, %v", len(items), err)
	}
	if _, err := core.Pushed(body[:len(body)-1]); !errors.Is(err, ErrMalformed) {
		t.Errorf("cut short: %v", err)
	}
}

// FuzzMessages: no bytes of a peer do harm, and what was learnt of them is sound.
func FuzzMessages(f *testing.F) {
	w := newWorld(1, 2, 0)
	v := w.nodes[w.ids[0]]
	for i := range 100 {
		v.table.Learn(segment(i, 100, 5))
	}
	v.table.Bury(anchormesh.Tombstone{Segment: 5, Generation: 1, Successors: []anchormesh.SegmentID{1}})
	other := NewCore(2, route.NewTable())
	for range 4 {
		q := other.Question(w.ids[0])
		a, err := v.core.Answer(w.ids[1], q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(q)
		f.Add(a)
		if _, _, err := other.Take(w.ids[0], a); err != nil {
			f.Fatal(err)
		}
	}
	v.core.Announce(5, segment(3, 100, 5).Segment)
	f.Add(v.core.Push())
	f.Fuzz(func(t *testing.T, b []byte) {
		tab := route.NewTable()
		tab.Learn(segment(0, 2, 5))
		core := NewCore(3, tab)
		if a, err := core.Answer("p", b); err == nil {
			_, _, _ = NewCore(4, route.NewTable()).Take("q", a)
		}
		for range 3 {
			items, _, _ := core.Take("p", b)
			for _, i := range items {
				(&virtual{table: tab}).learn(i)
			}
			core.Question("p")
		}
		if _, err := core.Pushed(b); err != nil && len(b) == 0 && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}
