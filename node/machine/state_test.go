package machine

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

func threeAnchors() *State {
	s, err := Founding(&anchormesh.Descriptor{
		Mesh: 7, Segment: 9, Generation: 1, NextReplica: 4,
		Anchors: []anchormesh.Anchor{
			{Node: "a", Replica: 1, Role: anchormesh.Voter, Zone: "z1"},
			{Node: "b", Replica: 2, Role: anchormesh.Voter},
			{Node: "c", Replica: 3, Role: anchormesh.Learner},
		},
	}, 3, lineage.Place{Index: 12, Term: 1})
	if err != nil {
		panic(err)
	}
	s.Conf.Learners = []uint64{3}
	return s
}

func equal(a, b *State) bool {
	return a.Want == b.Want && reflect.DeepEqual(a.Descriptor, b.Descriptor) && proto.Equal(a.Conf, b.Conf) &&
		reflect.DeepEqual(a.Leaving, b.Leaving) && a.Line == b.Line && a.Window == b.Window &&
		bytes.Equal(a.Chain.Encode(), b.Chain.Encode())
}

func TestStateIsReadBackAsItWasStored(t *testing.T) {
	s := threeAnchors()
	s.Leaving = []anchormesh.Anchor{{Node: "gone", Replica: 9, Role: anchormesh.Voter, Zone: "z"}}
	s.Line, s.Window = 9, 1<<40
	got, err := DecodeState(s.Encode())
	if err != nil || !equal(got, s) {
		t.Fatalf("%+v came back as %+v, %v", s, got, err)
	}
	for cut := range len(s.Encode()) {
		if _, err := DecodeState(s.Encode()[:cut]); !errors.Is(err, ErrState) {
			t.Fatalf("cut to %d bytes: %v", cut, err)
		}
	}
}

func TestAnchorsOnTheirWayOutStayReachable(t *testing.T) {
	s := threeAnchors()
	next := s.Descriptor.Clone()
	next.Anchors = []anchormesh.Anchor{next.Anchors[0], {Node: "c", Replica: 3, Role: anchormesh.Voter}}
	joint := s.after(next, &raftpb.ConfState{Voters: []uint64{1, 3}, VotersOutgoing: []uint64{1, 2}, AutoLeave: new(true)},
		lineage.Place{Index: 20, Term: 3})
	joint.check()
	if !joint.Joint() || !joint.Descriptor.Joint || joint.Peers()[2] != "b" {
		t.Fatalf("the joint configuration forgot the voter that leaves: %+v", joint)
	}
	left := joint.after(next.Clone(), &raftpb.ConfState{Voters: []uint64{1, 3}}, lineage.Place{Index: 21, Term: 3})
	left.check()
	if change, due := left.Seating(); left.Peers()[2] != "b" || !left.Descriptor.Joint || !due || change != 21 {
		t.Fatalf("the voter that left is gone before others are known to know it: %+v", left)
	}
	if again, err := DecodeState(left.Encode()); err != nil || !equal(left, again) || again.Seats != 21 {
		t.Fatalf("%+v came back as %+v, %v", left, again, err)
	}
	entries := left.Chain.Entries()
	if last := entries[len(entries)-1]; len(entries) != 3 || !last.Describes(left.Descriptor) || len(entries[1].Voters.Outgoing) != 2 {
		t.Errorf("the lineage does not tell of both steps: %+v", entries)
	}
}

func TestStateThatContradictsRaftStopsTheProcess(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a descriptor with other voters than Raft's was taken")
		}
	}()
	s := threeAnchors()
	s.Conf.Voters = []uint64{1, 3}
	s.check()
}

// FuzzDecodeState: any bytes are decoded or refused, and what was decoded is
// stored to the same meaning.
func FuzzDecodeState(f *testing.F) {
	f.Add(threeAnchors().Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(data)
		if err != nil {
			return
		}
		again, err := DecodeState(s.Encode())
		if err != nil || !equal(s, again) {
			t.Fatalf("%+v came back as %+v, %v", s, again, err)
		}
	})
}
