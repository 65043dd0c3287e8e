package pairing

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/node/route"
)

// node is one of a mesh; it leads some of the sides.
type node struct {
	*Pairing
	world *world
	self  anchormesh.NodeID
	sides map[anchormesh.SegmentID]*place.Side
	// what it was asked to do
	aligned []place.Order
	held    []anchormesh.SegmentID
	merged  []anchormesh.SegmentID
	failing error
	tries   int
}

type world struct {
	nodes map[anchormesh.NodeID]*node
	cut   anchormesh.NodeID // nobody reaches it
}

func (w *world) Connected(id anchormesh.NodeID) bool { return id != w.cut }

func (w *world) Call(_ context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	if method != Method || to == w.cut || len(parts) != 1 {
		return nil, errors.New("not reached")
	}
	q, err := parseQuestion(parts[0])
	if err != nil {
		return nil, err
	}
	return w.nodes[to].answer(q)
}

// segment is one of three in a row, on three nodes of four.
func segment(id anchormesh.SegmentID, start, end string, on ...anchormesh.NodeID) *place.Side {
	d := &anchormesh.Descriptor{
		Mesh: 1, Segment: id, Generation: 2, Changed: 7, NextReplica: 9,
		Range: anchormesh.KeyRange{Start: []byte(start), End: []byte(end)},
	}
	for i, n := range on {
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: n, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	return &place.Side{Descriptor: d, Dormant: true, Bytes: 100}
}

// newWorld is a mesh in which each side is led by its first anchor; the left of the
// pair is led by a.
func newWorld(sides ...*place.Side) *world {
	w := &world{nodes: make(map[anchormesh.NodeID]*node)}
	for _, id := range []anchormesh.NodeID{"a", "b", "c", "d"} {
		n := &node{world: w, self: id, sides: make(map[anchormesh.SegmentID]*place.Side)}
		table := route.NewTable()
		for _, s := range sides {
			table.Learn(s.Descriptor)
			if s.Descriptor.Anchors[0].Node == id {
				n.sides[s.Descriptor.Segment] = s
			}
		}
		n.Pairing = New(Config{
			Self: id, Logger: slog.New(slog.DiscardHandler), Again: time.Minute, Settle: 10 * time.Second, Backoff: place.MergeBackoff(),
			Side: func(id anchormesh.SegmentID) (place.Side, bool) {
				if s := n.sides[id]; s != nil {
					return *s, true
				}
				return place.Side{}, false
			},
			Align: func(o place.Order) error { n.aligned = append(n.aligned, o); return nil },
			Hold:  func(id anchormesh.SegmentID) error { n.held = append(n.held, id); return nil },
			Merge: func(_ context.Context, left anchormesh.SegmentID, _ lineage.Evidence) error {
				n.tries++
				if n.failing == nil {
					n.merged = append(n.merged, left)
				}
				return n.failing
			},
		}, table, w)
		w.nodes[id] = n
	}
	return w
}

var start = time.Unix(1000, 0)

func (n *node) consider(after time.Duration, id anchormesh.SegmentID) string {
	return n.Consider(context.Background(), start.Add(after), id, lineage.Evidence{})
}

func TestReadyNeighboursAreMerged(t *testing.T) {
	w := newWorld(segment(1, "", "m", "a", "b", "c"), segment(2, "m", "", "b", "a", "c"))
	a := w.nodes["a"]
	if note := a.consider(0, 1); !strings.Contains(note, "merged") || len(a.merged) != 1 {
		t.Errorf("%q, merged %v", note, a.merged)
	}
	if note := w.nodes["b"].consider(0, 2); !strings.Contains(note, "last segment") {
		t.Errorf("the last one: %q", note)
	}
}

// Where a neighbour is not dormant, does not answer or merges with another first,
// nothing happens, and nobody is asked again at once.
func TestTheOthersAreAskedAndWaitedFor(t *testing.T) {
	right := segment(2, "m", "", "b", "a", "c")
	w := newWorld(segment(1, "", "m", "a", "b", "c"), right)
	a := w.nodes["a"]
	right.Dormant = false
	if note := a.consider(0, 1); !strings.Contains(note, "not both are dormant") {
		t.Errorf("%q", note)
	}
	right.Dormant = true
	if a.consider(59*time.Second, 1); len(a.merged) != 0 {
		t.Error("asked again at once")
	}
	w.cut = "b"
	if note := a.consider(time.Minute, 1); !strings.Contains(note, "does not answer") {
		t.Errorf("%q", note)
	}
	w.cut = ""
	right.Degraded = "voter 2 is silent"
	if note := a.consider(2*time.Minute, 1); !strings.Contains(note, "voter 2 is silent") {
		t.Errorf("%q", note)
	}
	right.Degraded = ""
	if a.consider(3*time.Minute, 1); len(a.merged) != 1 {
		t.Error("not merged although all is well")
	}
}

// Of a row of three, one pair goes first, whoever is asked.
func TestOnePairOfThreeGoesFirst(t *testing.T) {
	w := newWorld(segment(1, "", "g", "a", "b", "c"), segment(2, "g", "p", "b", "a", "c"), segment(3, "p", "", "c", "a", "b"))
	first, second := w.nodes["a"].consider(0, 1), w.nodes["b"].consider(0, 2)
	if n := len(w.nodes["a"].merged) + len(w.nodes["b"].merged); n != 1 {
		t.Errorf("%d pairs were merged: %q, %q", n, first, second)
	}
}

// Two on different nodes are held where they are, and one move after the other goes to
// the leader of the one that moves.
func TestAlignment(t *testing.T) {
	right := segment(2, "m", "", "b", "c", "d")
	w := newWorld(segment(1, "", "m", "a", "b", "c"), right)
	a, b := w.nodes["a"], w.nodes["b"]
	note := a.consider(0, 1)
	if len(b.aligned) != 1 || len(a.aligned) != 0 || len(a.held) != 1 || len(b.held) != 1 {
		t.Fatalf("%q: ordered %v and %v, held %v and %v", note, a.aligned, b.aligned, a.held, b.held)
	}
	if o := b.aligned[0]; o.Segment != 2 || o.From != "d" || o.To != "a" || !o.Align {
		t.Errorf("ordered %+v", o)
	}
	right.Descriptor.Anchors[2].Node = "a"
	if a.consider(9*time.Second, 1); len(a.merged) != 0 {
		t.Error("the order was given no time")
	}
	if a.consider(10*time.Second, 1); len(a.merged) != 1 {
		t.Error("aligned, and not merged")
	}
}

// Attempts that fail are spaced further and further.
func TestBackoff(t *testing.T) {
	w := newWorld(segment(1, "", "m", "a", "b", "c"), segment(2, "m", "", "b", "a", "c"))
	a := w.nodes["a"]
	a.failing = errors.New("frozen too long")
	for s := range 3600 {
		a.consider(time.Duration(s)*time.Second, 1)
	}
	if a.tries < 4 || a.tries > 8 {
		t.Errorf("tried %d times in an hour of failures", a.tries)
	}
	if note := a.last(1); !strings.Contains(note, "frozen too long") {
		t.Errorf("%q", note)
	}
	a.Forget(1)
	a.failing = nil
	if a.consider(time.Hour, 1); len(a.merged) != 1 {
		t.Error("not tried after it was forgotten")
	}
}

func FuzzMessages(f *testing.F) {
	q := question{kind: askAlign, segment: 7, from: "from", to: "to"}
	f.Add(q.encode())
	s := segment(1, "a", "m", "a", "b", "c")
	s.Degraded, s.Busy, s.Peak, s.Fill, s.Policy = "why", true, 3, 4, 5
	f.Add(appendSide(nil, s))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := parseQuestion(b); err == nil {
			if again, err := parseQuestion(q.encode()); err != nil || again != q {
				t.Errorf("%+v became %+v, %v", q, again, err)
			}
		}
		if s, err := parseSide(b); err == nil {
			if again, err := parseSide(appendSide(nil, &s)); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("%+v became %+v, %v", s, again, err)
			}
		}
	})
}
