package place

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/cockroachdb/datadriven"
)

var start = time.Unix(1_000_000, 0).UTC()

// lopsided is a world in which there is everything to do: node a leads three
// segments on a, b and c, in one zone; d, e and f are empty.
func lopsided() World {
	w := World{Self: "a"}
	for i, id := range []anchormesh.NodeID{"a", "b", "c", "d", "e", "f"} {
		n := Node{Member: recruit.Member{Node: id, Alive: true, Since: start.Add(-time.Hour), Zone: "z", Room: 100}, Heard: start}
		if i < 3 {
			n.Replicas = 12
		}
		if i == 0 {
			n.Leaders, n.Load = 12, 1200
		}
		w.Nodes = append(w.Nodes, n)
	}
	for i := range anchormesh.SegmentID(12) {
		d := &anchormesh.Descriptor{Segment: i + 1, Generation: 1, NextReplica: 4}
		for j, id := range []anchormesh.NodeID{"a", "b", "c"} {
			d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: id, Replica: anchormesh.ReplicaID(j + 1), Role: anchormesh.Voter, Zone: "z"})
		}
		w.Segments = append(w.Segments, Segment{Descriptor: d, Load: 100, Since: start.Add(-time.Hour)})
	}
	return w
}

// steps runs a planner over some epochs and returns all that it wished.
func steps(p *Planner, w func() World, epochs int) (out []Move, notes []string) {
	for i := range epochs {
		now := start.Add(time.Duration(i) * p.cfg.Epoch)
		world := w()
		for j := range world.Nodes {
			world.Nodes[j].Heard = now
		}
		plan := p.Step(now, world)
		out, notes = append(out, plan.Moves...), append(notes, plan.Notes...)
	}
	return out, notes
}

// TestNothingHappensTo: each thing that forbids an optional act, and that without
// any of them there are acts.
func TestNothingHappensTo(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*World)
		acts   bool
	}{
		{"nothing forbids", func(*World) {}, true},
		{"degraded", func(w *World) { each(w, func(s *Segment) { s.Degraded = "voter 2 lags" }) }, false},
		{"degraded, leaving", func(w *World) {
			w.Nodes[0].Leaving, w.Nodes[1].Leaving = true, true
			each(w, func(s *Segment) { s.Degraded = "voter 2 lags" })
		}, false},
		{"degraded, ordered", func(w *World) {
			w.Orders = []Order{{Segment: 1, Kind: Replace, From: "b", To: "d"}}
			each(w, func(s *Segment) { s.Degraded = "voter 2 lags" })
		}, false},
		{"busy", func(w *World) { each(w, func(s *Segment) { s.Busy = true }) }, false},
		{"changed just now", func(w *World) { each(w, func(s *Segment) { s.Since = start.Add(time.Hour) }) }, false},
		{"others dead", func(w *World) { others(w, func(n *Node) { n.Alive = false }) }, false},
		{"others new", func(w *World) { others(w, func(n *Node) { n.Since = start.Add(time.Hour) }) }, false},
	} {
		moves, _ := steps(New(DefaultConfig()), func() World {
			w := lopsided()
			c.change(&w)
			return w
		}, 20)
		if (len(moves) > 0) != c.acts {
			t.Errorf("%s: %v", c.name, moves)
		}
	}
	// A summary that is too old counts for nothing.
	w := lopsided()
	if p := New(DefaultConfig()).Step(start.Add(time.Hour), w); len(p.Moves) > 0 {
		t.Errorf("summaries of an hour ago: %v", p.Moves)
	}
}

func each(w *World, f func(*Segment)) {
	for i := range w.Segments {
		f(&w.Segments[i])
	}
}

func others(w *World, f func(*Node)) {
	for i := 1; i < len(w.Nodes); i++ {
		f(&w.Nodes[i])
	}
}

// TestBounds: no more moves under way, and no more transfers per epoch, than
// configured; one wish per segment; and the same in equal situations.
func TestBounds(t *testing.T) {
	run := func() string {
		p, out := New(DefaultConfig()), ""
		for i := range 30 {
			plan := p.Step(start.Add(time.Duration(i)*time.Second), lopsided())
			replaced, seen := 0, map[anchormesh.SegmentID]bool{}
			for _, m := range plan.Moves {
				if m.Kind == Replace {
					replaced++
				}
				if seen[m.Segment] {
					t.Errorf("two wishes for segment %v: %v", m.Segment, plan.Moves)
				}
				seen[m.Segment] = true
			}
			if replaced > p.cfg.MovesMax {
				t.Errorf("%d moves at once", replaced)
			}
			out += fmt.Sprintln(plan)
		}
		if n := strings.Count(out, "this node leads"); n > 2*p.cfg.TransfersMax {
			t.Errorf("%d transfers in two epochs", n)
		}
		return out
	}
	if a, b := run(), run(); a != b {
		t.Errorf("the same situations, other plans:\n%s\n%s", a, b)
	}
}

// TestDeclined: a node that declined is left alone, and another is asked.
func TestDeclined(t *testing.T) {
	p, w := New(DefaultConfig()), lopsided()
	w.Nodes[1].Leaving = true
	plan := p.Step(start, w)
	if len(plan.Moves) == 0 || plan.Moves[0].Cause != ByDrain {
		t.Fatalf("plan %+v, want a drain", plan)
	}
	m := plan.Moves[0]
	p.Declined(start, m.Segment, m.To)
	for _, again := range p.Step(start.Add(time.Second), w).Moves {
		if again.Segment == m.Segment && again.To == m.To {
			t.Errorf("asked again at once: %+v", again)
		}
	}
}

// TestGivesUp: a move that comes to nothing ends, and its segment rests.
func TestGivesUp(t *testing.T) {
	p, w := New(DefaultConfig()), lopsided()
	w.Orders = []Order{{Segment: 1, Kind: Replace, From: "b", To: "d"}}
	w.Segments, w.Nodes[0].Leaders, w.Nodes[0].Load = w.Segments[:1], 1, 0
	now := start
	step := func(d time.Duration) Plan {
		now = now.Add(d)
		for i := range w.Nodes {
			w.Nodes[i].Heard = now
		}
		return p.Step(now, w)
	}
	if plan := step(0); len(plan.Moves) != 1 {
		t.Fatalf("plan %+v", plan)
	}
	if plan := step(p.cfg.GiveUp); len(plan.Moves) != 0 || len(plan.Notes) != 2 {
		t.Errorf("after %v: %+v", p.cfg.GiveUp, plan)
	}
	if plan := step(p.cfg.GiveUp); len(plan.Moves) != 1 {
		t.Errorf("after a rest: %+v", plan)
	}
	// It is done when the voter has left.
	w.Segments[0].Descriptor.Anchors[1] = anchormesh.Anchor{Node: "d", Replica: 4, Role: anchormesh.Voter, Zone: "z"}
	if plan := step(time.Second); len(plan.Moves)+len(plan.Notes) != 0 {
		t.Errorf("done, and still %+v", plan)
	}
}

// TestAnOrderThatCannotBe says why.
func TestAnOrderThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		order Order
		why   string
	}{
		{Order{Segment: 1, Kind: Replace, From: "b", To: "c"}, "node c is a voter of it already"},
		{Order{Segment: 1, Kind: Replace, From: "b", To: "x"}, "node x is away, new, leaving or full"},
		{Order{Segment: 1, Kind: Transfer, To: "d"}, "node d is no voter of it"},
		{Order{Segment: 2, Kind: Replace, From: "l", To: "d"}, "node l is no voter of it"},
	} {
		w := lopsided()
		w.Segments = w.Segments[:2]
		d := w.Segments[1].Descriptor
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: "l", Replica: 9, Role: anchormesh.Learner})
		w.Orders = []Order{c.order}
		if p := New(DefaultConfig()).Step(start, w); len(p.Notes) != 1 || !strings.Contains(p.Notes[0], c.why) {
			t.Errorf("%+v: %q, want %q", c.order, p.Notes, c.why)
		}
	}
	// The leader's own place goes only after its leadership.
	w := lopsided()
	w.Orders = []Order{{Segment: 1, Kind: Replace, From: "a", To: "d"}}
	if p := New(DefaultConfig()).Step(start, w); len(p.Moves) == 0 || p.Moves[0].Kind != Transfer || p.Moves[0].Cause != ByOrder {
		t.Errorf("an order for the leader's own place: %+v", p)
	}
}

// TestEven: the share, a tenth more and one.
func TestEven(t *testing.T) {
	w := lopsided() // 36 replicas, the capacities are 112 and 100
	if got := Even(DefaultConfig(), start, w.Nodes, "d"); got != 7 {
		t.Errorf("an empty node takes %d, want 7", got)
	}
	w.Nodes[3].Leaving = true
	if got := Even(DefaultConfig(), start, w.Nodes, "d"); got != 1 {
		t.Errorf("one that leaves takes %d, want 1", got)
	}
	if got := Even(DefaultConfig(), start, w.Nodes, "x"); got != 0 {
		t.Errorf("a stranger takes %d, want 0 for unknown", got)
	}
}

// TestDrainable: known, and enough others.
func TestDrainable(t *testing.T) {
	w := lopsided()
	for _, c := range []struct {
		node    anchormesh.NodeID
		anchors int
		ok      bool
	}{{"a", 5, true}, {"a", 6, false}, {"x", 1, false}} {
		if err := Drainable(w.Nodes, c.node, c.anchors); (err == nil) != c.ok {
			t.Errorf("%s with %d anchors: %v", c.node, c.anchors, err)
		}
	}
	w.Nodes[5].Alive, w.Nodes[4].Leaving = false, true
	if Drainable(w.Nodes, "a", 4) == nil {
		t.Error("a node that is dead and one that leaves count as left")
	}
}

// TestValidate: the default is valid; what would never come to rest is not.
func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Gap = 10 }, func(c *Config) { c.IdleLoad = 0 }, func(c *Config) { c.MovesMax = 0 },
		func(c *Config) { c.Epoch = 0 }, func(c *Config) { c.Settle = -1 },
	} {
		c := DefaultConfig()
		if change(&c); c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}

// TestPair runs testdata/pair: a row of segments, one per line, as
//
//	NAME ANCHORS [busy] [awake] [sick] [peak=N] [fill=N] [bytes=N] [policy=N] [scope=S] [learner]
//
// and prints the verdict on every two neighbours.
func TestPair(t *testing.T) {
	datadriven.RunTest(t, "testdata/pair", func(t *testing.T, d *datadriven.TestData) string {
		var sides []*Side
		for i, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			sides = append(sides, side(i, strings.Fields(line)))
		}
		var out strings.Builder
		at := func(i int) *Side {
			if i < 0 || i >= len(sides) {
				return nil
			}
			return sides[i]
		}
		for i := 0; i+1 < len(sides); i++ {
			v := Pair(*sides[i], *sides[i+1], at(i-1), at(i+2))
			fmt.Fprintf(&out, "%d and %d: ready %v: %s\n", i+1, i+2, v.Ready, v.Reason)
			for _, o := range v.Orders {
				fmt.Fprintf(&out, "  segment %d: %v %s by %s\n", o.Segment, o.Kind, o.From, o.To)
			}
		}
		return out.String()
	})
}

func side(i int, f []string) *Side {
	d := &anchormesh.Descriptor{Segment: anchormesh.SegmentID(i + 1), Generation: 3, Range: anchormesh.KeyRange{
		Start: fmt.Appendf(nil, "%03d", i), End: fmt.Appendf(nil, "%03d", i+1)}}
	for j, n := range f[1] {
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: anchormesh.NodeID(n), Replica: anchormesh.ReplicaID(j + 1), Role: anchormesh.Voter})
	}
	s := &Side{Descriptor: d, Dormant: true, Policy: 1}
	for _, o := range f[2:] {
		k, v, _ := strings.Cut(o, "=")
		n := uint64(0)
		fmt.Sscan(v, &n)
		switch k {
		case "busy":
			s.Busy = true
		case "awake":
			s.Dormant = false
		case "sick":
			s.Degraded = "voter 2 on b is silent"
		case "peak":
			s.Peak = n
		case "fill":
			s.Fill = n
		case "bytes":
			s.Bytes = int64(n)
		case "policy":
			s.Policy = n
		case "scope":
			d.Scope = []byte(v)
		case "learner":
			d.Anchors[len(d.Anchors)-1].Role = anchormesh.Learner
		case "gap":
			d.Range.Start = append(d.Range.Start, 'x')
		}
	}
	return s
}

// TestARowMerges: in a row of dormant, aligned segments some pairs always go, no
// segment is in two of them, and in few rounds one segment is left.
func TestARowMerges(t *testing.T) {
	var row []*Side
	for i := range 64 {
		row = append(row, side(i, []string{"s", "abc"}))
	}
	rounds := 0
	for ; len(row) > 1; rounds++ {
		var next []*Side
		for i := 0; i < len(row); i++ {
			at := func(i int) *Side {
				if i < 0 || i >= len(row) {
					return nil
				}
				return row[i]
			}
			if i+1 == len(row) || !Pair(*row[i], *row[i+1], at(i-1), at(i+2)).Ready {
				next = append(next, row[i])
				continue
			}
			if i+2 < len(row) && Pair(*row[i+1], *row[i+2], row[i], at(i+3)).Ready {
				t.Fatalf("segment %v is in two pairs", row[i+1].Descriptor.Segment)
			}
			d := *row[i].Descriptor
			d.Generation++
			d.Range.End = row[i+1].Descriptor.Range.End
			next = append(next, &Side{Descriptor: &d, Dormant: true, Policy: 1})
			i++
		}
		if len(next) == len(row) {
			t.Fatalf("nobody moves among %d segments", len(row))
		}
		row = next
	}
	if rounds > 20 {
		t.Errorf("64 segments took %d rounds", rounds)
	}
}

// TestBackoff doubles up to its end, and forgets.
func TestBackoff(t *testing.T) {
	b, now := MergeBackoff(), start
	if !b.Ready(now) {
		t.Error("the first attempt has to wait")
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 120, 120} {
		b.Failed(now)
		if w := want * time.Minute; b.Ready(now.Add(w-1)) || !b.Ready(now.Add(w)) {
			t.Errorf("after %d failures the wait is not %v", i+1, w)
		}
	}
	if b.Succeeded(); !b.Ready(now) {
		t.Error("after a success the next attempt has to wait")
	}
}

// BenchmarkStep is a node that leads 1000 segments in an even mesh of 30.
func BenchmarkStep(b *testing.B) {
	w := World{Self: "n00"}
	id := func(i int) anchormesh.NodeID { return anchormesh.NodeID(fmt.Sprintf("n%02d", i%30)) }
	for i := range 30 {
		w.Nodes = append(w.Nodes, Node{
			Member: recruit.Member{Node: id(i), Alive: true, Since: start.Add(-time.Hour), Zone: string(rune('a' + i%3)), Room: 1000},
			Heard:  start, Replicas: 3000, Leaders: 1000,
		})
	}
	for i := range 1000 {
		d := &anchormesh.Descriptor{Segment: anchormesh.SegmentID(i + 1)}
		for j, n := range []int{0, 1 + 3*(i%9), 2 + 3*(i%9)} {
			d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: id(n), Replica: anchormesh.ReplicaID(j + 1), Role: anchormesh.Voter, Zone: string(rune('a' + n%3))})
		}
		w.Segments = append(w.Segments, Segment{Descriptor: d, Since: start.Add(-time.Hour)})
	}
	p := New(DefaultConfig())
	b.ReportAllocs()
	for b.Loop() {
		if plan := p.Step(start, w); len(plan.Moves) > 0 {
			b.Fatalf("%+v", plan)
		}
	}
}
