package machine

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// couple is a left and a right of one store.
type couple struct {
	*bench
	right *Machine
	index uint64 // of the right's log
}

func newCouple(t *testing.T) *couple {
	b := newBench(t)
	b.apply(1, put("a", "v"), put("z", "v"))
	b.apply(1, (&Split{At: []byte("m"), Right: 11}).Command())
	c := &couple{bench: b, index: BirthIndex}
	c.right = b.machine(b.changes[0].Child)
	b.m.OnAbsorb(func(id anchormesh.SegmentID) *Machine {
		if id == 11 {
			return c.right
		}
		return nil
	})
	return c
}

func (c *couple) applyRight(payloads ...[]byte) error {
	c.index++
	e := &consensus.Entry{Index: c.index, Term: 3, Generation: 2, Payloads: payloads}
	return c.right.Apply(e, true)[0].Err
}

func (c *couple) pair() merge.Pair {
	return merge.Pair{Left: c.m.State().Side(), Right: c.right.State().Side()}
}

func value(t *testing.T, seg *mvcc.Segment, key string) string {
	t.Helper()
	v := seg.Read()
	defer v.Close()
	found, err := v.Range([]byte(key), nil, 0, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.KVs) == 0 {
		return ""
	}
	return string(found.KVs[0].Value())
}

// A merge, from the attempt's opening to the writes of the merged segment.
func TestMerge(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 1}, c.pair()
	if out := c.apply(2, Open(n, &pair)); out.Err != nil {
		t.Fatal(out.Err)
	}
	if err := c.applyRight(stamped(20, put("z", "last"))); err != nil {
		t.Fatal(err)
	}
	if err := c.applyRight(Freeze(n, &pair)); err != nil {
		t.Fatal(err)
	}
	if err := c.applyRight(stamped(30, put("z", "late"))); !errors.Is(err, ErrFrozen) {
		t.Errorf("a write of the frozen right: %v", err)
	}
	if err := c.applyRight((&Split{At: []byte("t"), Right: 12}).Command()); !errors.Is(err, ErrRefused) {
		t.Errorf("a split of the frozen right: %v", err)
	}
	if out := c.apply(2, (&Split{At: []byte("f"), Right: 12}).Command()); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a split of the left with an open attempt: %v", out.Err)
	}
	if out := c.apply(2, stamped(25, put("a", "left"))); out.Err != nil {
		t.Errorf("a write of the left: %v", out.Err)
	}
	if out := c.apply(2, Absorb(n, &lineage.Evidence{Operator: "me"})); out.Err != nil {
		t.Fatal(out.Err)
	}
	d := c.m.Descriptor()
	if d.Generation != 3 || len(d.Range.End) != 0 || d.Changed != c.bench.index || d.Lineage != c.m.State().Chain.Head() {
		t.Errorf("the merged segment: %+v", d)
	}
	if s := c.m.State(); s.Line != 9 || s.Left.Open || !s.Left.Absorbed || s.Chain.Last().Kind != lineage.Merge {
		t.Errorf("the merged state: %+v", s)
	}
	if !d.Stamped || c.m.State().Counts() {
		t.Error("back to one segment, the scope counts by itself again (counterexample 22k)")
	}
	if z, a := value(t, c.m.Segment(), "z"), value(t, c.m.Segment(), "a"); z != "last" || a != "left" {
		t.Errorf("z is %q, a is %q", z, a)
	}
	if err := c.applyRight(stamped(40, put("z", "dead"))); !errors.Is(err, ErrFrozen) || !c.right.State().Frozen() {
		t.Errorf("a write of the right that was absorbed: %v", err)
	}
	if out := c.apply(2, stamped(41, put("a", "old"))); !errors.Is(out.Err, ErrGeneration) {
		t.Errorf("an entry from before the merge: %v", out.Err)
	}
	if out := c.apply(3, stamped(24, put("z", "pooled"))); out.Err == nil {
		t.Error("a stamp from below what the left had reached was taken (counterexample 22b)")
	}
	if out := c.apply(3, stamped(42, put("z", "new"))); out.Err != nil || value(t, c.m.Segment(), "z") != "new" {
		t.Errorf("a write of the merged segment: %v", out.Err)
	}
	if last := c.changes[len(c.changes)-1]; last.Absorbed == nil || last.Absorbed.Descriptor.Segment != 11 {
		t.Errorf("the change told: %+v", last)
	}
	again := c.machine(c.m.Segment())
	if got, want := again.State().Encode(), c.m.State().Encode(); !bytes.Equal(got, want) {
		t.Error("the merged state is not read back as it was")
	}
}

// Counterexample 10a: a freeze that comes after its abort thaws, and neither the attempt
// nor an earlier one freezes again. What stands in the states survives a restart.
func TestAnAbortedMergeChangesNothing(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 1}, c.pair()
	c.apply(2, Open(n, &pair))
	if out := c.apply(2, Open(merge.Attempt{Generation: 2, Number: 2}, &pair)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a second attempt beside an open one: %v", out.Err)
	}
	if out := c.apply(2, Abort(n)); out.Err != nil {
		t.Fatal(out.Err)
	}
	if out := c.apply(2, Absorb(n, &lineage.Evidence{})); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("an absorb behind its abort: %v", out.Err)
	}
	if err := c.applyRight(Freeze(n, &pair)); err != nil {
		t.Fatal(err)
	}
	c.right = c.machine(c.right.Segment())
	if !c.right.State().Frozen() || c.right.State().Right.By != n {
		t.Fatalf("read back: %+v", c.right.State().Right)
	}
	for _, v := range []merge.Verdict{merge.Undecided, merge.Merged} {
		if err := c.applyRight(Thaw(n, v)); !errors.Is(err, merge.ErrNoProof) {
			t.Errorf("a thaw on verdict %d: %v", v, err)
		}
	}
	if v, ok := c.m.State().Judge(c.right.Descriptor().Range.Start, n); !ok || v != merge.Aborted {
		t.Fatalf("the left says %d, %v", v, ok)
	}
	if err := c.applyRight(Thaw(n, merge.Aborted)); err != nil {
		t.Fatal(err)
	}
	if last := c.changes[len(c.changes)-1]; !last.Thawed {
		t.Errorf("the change told: %+v", last)
	}
	if err := c.applyRight(Freeze(n, &pair)); !errors.Is(err, merge.ErrNumber) {
		t.Errorf("the same freeze again: %v", err)
	}
	if err := c.applyRight(stamped(30, put("z", "w"))); err != nil {
		t.Errorf("a write behind the thaw: %v", err)
	}
	next := merge.Attempt{Generation: 2, Number: 2}
	if out := c.apply(2, Open(next, &pair)); out.Err != nil {
		t.Errorf("the next attempt: %v", out.Err)
	}
}

// Trap 14: the repair of a group that lost its majority does not go into a merge: the
// left may hold the keys already.
func TestAFrozenSegmentDoesNotBeginAnew(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 1}, c.pair()
	c.apply(2, Open(n, &pair))
	if err := c.applyRight(Freeze(n, &pair)); err != nil {
		t.Fatal(err)
	}
	before, self := c.right.State(), c.right.Descriptor().Anchors[0].Node
	how := Recovery{Self: self, At: lineage.Place{Index: 1000, Term: 9}, Above: 1 << 20, Why: lineage.Evidence{Reason: lineage.Recovery}}
	if _, err := c.right.Recover(how); !errors.Is(err, ErrRefused) || c.right.State() != before {
		t.Errorf("a frozen segment began anew: %v", err)
	}
	if err := c.applyRight(Thaw(n, merge.Aborted)); err != nil {
		t.Fatal(err)
	}
	if s, err := c.right.Recover(how); err != nil || s.Descriptor.Generation <= before.Descriptor.Generation+1 {
		t.Errorf("thawed, it did not: %v", err)
	}
}

// Counterexample 10d: whatever changes the left's anchors ends the attempt.
func TestAChangeOfAnchorsAbortsTheMerge(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 1}, c.pair()
	c.apply(2, Open(n, &pair))
	now := c.m.State()
	next := now.after(now.Descriptor.Clone(), now.Conf, lineage.Place{Index: 50, Term: 2})
	if next.Left.Open || next.Left.Judge(merge.Place{Generation: 2}, n) != merge.Aborted {
		t.Errorf("behind a change of the group: %+v", next.Left)
	}
	other := pair
	other.Right.Changed++
	if err := c.applyRight(Freeze(n, &other)); !errors.Is(err, merge.ErrChanged) {
		t.Errorf("a freeze that names another descriptor: %v", err)
	}
}

func TestStatesOfMergesReadBack(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 7}, c.pair()
	for name, s := range map[string]State{
		"none":     {},
		"open":     {Left: merge.Left{Last: n, Pair: pair, Open: true}},
		"absorbed": {Left: merge.Left{Last: n, Pair: pair, Absorbed: true}},
		"aborted":  {Left: merge.Left{Last: n}},
		"frozen":   {Right: merge.Right{Frozen: true, By: n, Pair: pair, Decided: merge.Attempt{Generation: 1, Number: 3}}},
		"thawed":   {Right: merge.Right{Decided: n}},
	} {
		var got State
		if err := got.decodeMerge(s.encodeMerge()); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: %+v came back as %+v, %v", name, s, got, err)
		}
		if err := got.decodeMerge(append(s.encodeMerge(), 0)); !errors.Is(err, ErrState) {
			t.Errorf("%s with a byte too many: %v", name, err)
		}
	}
}

func FuzzParseAttempt(f *testing.F) {
	side := merge.Side{Segment: 9, Generation: 2, Changed: 7, Nodes: []anchormesh.NodeID{"a", "b"}}
	pair := merge.Pair{Left: side, Right: side}
	f.Add(Open(merge.Attempt{Generation: 2, Number: 1}, &pair)[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		n, pair, err := ParseAttempt(data)
		if err != nil {
			return
		}
		again, p, err := ParseAttempt(Freeze(n, &pair)[1:])
		if err != nil || again != n || !reflect.DeepEqual(p, pair) {
			t.Fatalf("%v %+v came back as %v %+v, %v", n, pair, again, p, err)
		}
	})
}

// Every replica judges by what it has applied, whatever the leader that proposed had
// seen: while a change of voters is half way nothing is cut, opened or frozen, and
// afterwards all of it goes.
func TestNothingIsCutOrJoinedWhileAConfigurationIsJoint(t *testing.T) {
	c := newCouple(t)
	n, pair := merge.Attempt{Generation: 2, Number: 1}, c.pair()
	change := func(m *Machine, index *uint64, term uint64, state *raftpb.ConfState, context []byte) {
		*index++
		m.Apply(&consensus.Entry{Index: *index, Term: term, Generation: 2, Conf: &consensus.ConfChange{Context: context, State: state}}, true)
	}
	swapped := func(m *Machine) []byte {
		d := m.Descriptor().Clone()
		d.Anchors[2] = anchormesh.Anchor{Node: "d", Replica: 4, Role: anchormesh.Voter}
		d.NextReplica = 5
		return meshpb.EncodeDescriptor(d)
	}
	joint := &raftpb.ConfState{Voters: []uint64{1, 2, 4}, VotersOutgoing: []uint64{1, 2, 3}, AutoLeave: new(true)}
	change(c.m, &c.bench.index, 2, joint, swapped(c.m))
	change(c.right, &c.index, 3, joint, swapped(c.right))
	split := (&Split{At: []byte("f"), Right: 12}).Command()
	for name, err := range map[string]error{
		"a split":                    c.apply(2, split).Err,
		"an attempt":                 c.apply(2, Open(n, &pair)).Err,
		"a freeze":                   c.applyRight(Freeze(n, &pair)),
		"a split of the other child": c.applyRight((&Split{At: []byte("t"), Right: 13}).Command()),
	} {
		// The lineage refuses a split then, too: the reason says who did.
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the anchor group is changing") {
			t.Errorf("%s while the configuration is joint: %v, want %v", name, err, ErrRefused)
		}
	}
	if c.m.State().Merging() || c.right.State().Frozen() || c.m.Descriptor().Generation != 2 {
		t.Errorf("something took effect: %+v, %+v", c.m.State(), c.right.State())
	}
	left := &raftpb.ConfState{Voters: []uint64{1, 2, 4}}
	change(c.m, &c.bench.index, 2, left, nil)
	change(c.right, &c.index, 3, left, nil)
	if out := c.apply(2, split); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a split before the new voters are seated: %v, want %v", out.Err, ErrRefused)
	}
	joined := c.bench.index - 1
	for name, command := range map[string][]byte{
		"of another change": Seated(joined + 1), "of the joint step": Seated(joined - 1), "of none": Seated(0), "cut short": {byte(OpSeated)},
	} {
		if out := c.apply(2, command); out.Err == nil || !c.m.State().Joint() {
			t.Errorf("the end %s was taken", name)
		}
	}
	if out := c.apply(2, Seated(joined)); out.Err != nil || c.m.State().Joint() || c.m.Descriptor().Joint || len(c.m.State().Leaving) > 0 ||
		c.m.Descriptor().Changed != c.bench.index {
		t.Errorf("the end of the change: %v, %+v", out.Err, c.m.State())
	}
	if out := c.apply(2, Seated(joined)); out.Err == nil {
		t.Error("a change ended twice")
	}
	if out := c.apply(2, split); out.Err != nil {
		t.Errorf("a split when the change is over: %v", out.Err)
	}
}
