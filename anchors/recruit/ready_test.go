package recruit

import (
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

// A learner of which nothing is known to be on disk has caught up with nothing,
// even if the log is shorter than the distance that counts as caught up.
func TestALearnerWithoutStateGetsNoVote(t *testing.T) {
	now := time.Unix(1000, 0)
	s := Situation{
		Self: "n1", Leading: true, LeaderSince: now.Add(-time.Minute), Commit: 8, Policy: Policy{Anchors: 3, ReplaceAfter: time.Minute},
		Descriptor: &anchormesh.Descriptor{Segment: 1, NextReplica: 4, Anchors: []anchormesh.Anchor{
			{Node: "n1", Replica: 1, Role: anchormesh.Voter},
			{Node: "n2", Replica: 2, Role: anchormesh.Learner},
			{Node: "n3", Replica: 3, Role: anchormesh.Learner},
		}},
		Members: []Member{{Node: "n1", Alive: true}, {Node: "n2", Alive: true}, {Node: "n3", Alive: true}},
		Progress: []Progress{
			{Replica: 1, Match: 8, LastContact: now}, {Replica: 2, Match: 8, LastContact: now}, {Replica: 3, LastContact: now},
		},
	}
	r := New(DefaultConfig())
	if p := r.Step(now, s); len(p.Effects) != 0 {
		t.Errorf("with a learner that has nothing: %+v", p)
	}
	s.Progress[2].Match = 6
	if p := r.Step(now, s); len(p.Effects) != 1 || len(p.Effects[0].Promote) != 2 {
		t.Errorf("with two learners that have caught up: %+v", p)
	}
}
