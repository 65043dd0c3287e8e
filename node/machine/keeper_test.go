package machine

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

func deadReplica(id anchormesh.ReplicaID) *keeper.Report {
	holders := []keeper.Holder{{Replica: 1, Node: "a"}, {Replica: 2, Node: "b"}, {Replica: 3, Node: "c"}}
	return &keeper.Report{
		Segment: 77, Generation: 4, Holder: holders[id-1], Left: keeper.Position{Term: 2, Index: 10 + uint64(id)},
		Confs: []keeper.Conf{{1, 2, 3}}, Holders: holders,
	}
}

// The home of a scope that is not light takes reports, decides with the second of three
// and says so in its lineage; who begins is chosen once; a split leaves all that with it.
func TestAKeeperDecides(t *testing.T) {
	b := newBench(t)
	if out := b.apply(1, ReportDead(deadReplica(1))); out.Err != nil || b.m.State().Keeper.Busy() {
		t.Fatalf("one of three: %v, %+v", out.Err, b.m.State().Keeper)
	}
	if out := b.apply(1, Choose(77, keeper.Holder{Replica: 1, Node: "a"}, keeper.Position{Term: 9})); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("chosen before anything is decided: %v", out.Err)
	}
	if out := b.apply(1, ReportDead(deadReplica(2))); out.Err != nil {
		t.Fatal(out.Err)
	}
	s := b.m.State()
	c, _ := s.Keeper.Case(77)
	last := s.Chain.Last()
	if c.Entry != last.Hash() || last.Evidence.Reason != lineage.Recovery || last.Evidence.Operator != KeeperOperator || last.Evidence.Numbers[0] != 77 {
		t.Errorf("decided %x, the lineage ends with %+v", c.Entry, last)
	}
	if out := b.apply(1, Unheard(77)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("what is decided was dropped: %v", out.Err)
	}
	if out := b.apply(1, Choose(77, keeper.Holder{Replica: 3, Node: "c"}, keeper.Position{Term: 2, Index: 12})); out.Err != nil {
		t.Fatal(out.Err)
	}
	again, err := DecodeState(b.m.State().Encode())
	if err != nil || !again.Keeper.Busy() {
		t.Fatalf("%+v, %v", again.Keeper, err)
	}
	if out := b.apply(1, Begun(77, 1<<20)); out.Err != nil || b.m.State().Keeper.Busy() {
		t.Errorf("begun: %v", out.Err)
	}
	if out := b.apply(1, ReportDead(deadReplica(3))); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a report of the old generation was heard: %v", out.Err)
	}
}

// What an operator wants to recover, no keeper gives up, and an operator's decision ends
// what a keeper has begun.
func TestOperatorsComeFirst(t *testing.T) {
	b := newBench(t)
	b.governs()
	want := &scope.Proposal{Kind: scope.Recover, Segment: 77, Survivor: "b", Operator: "test", AtMillis: 1}
	if out := b.apply(1, Propose(want)); out.Err != nil {
		t.Fatal(out.Err)
	}
	if out := b.apply(1, ReportDead(deadReplica(1))); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("heard while operators recover the segment: %v", out.Err)
	}
	if out := b.apply(1, Close(1, scope.Withdrawn, "")); out.Err != nil {
		t.Fatal(out.Err)
	}
	for id := range anchormesh.ReplicaID(2) {
		if out := b.apply(1, ReportDead(deadReplica(id+1))); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	b.decide(1, *want)
	if s := b.m.State(); s.Keeper.Busy() || s.Scope.Recovering == nil || s.Keeper.Floor(77) <= 4 {
		t.Errorf("keeper %+v, recovering %+v", s.Keeper, s.Scope.Recovering)
	}
}
