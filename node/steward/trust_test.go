package steward

import (
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/node/machine"
)

// ledger is that of voters who judged each other well so many times.
func ledger(t *testing.T, entries int, voters ...anchormesh.NodeID) *trust.Ledger {
	t.Helper()
	var l *trust.Ledger
	for range entries {
		p := &trust.Poll{Voters: voters, Version: l.Version(), Ledger: l.Digest()}
		var reports []trust.Report
		for _, n := range voters {
			r := trust.Report{By: n, Measures: make([]trust.Measure, len(voters))}
			for i := range r.Measures {
				r.Measures[i].Answered = 9
			}
			reports = append(reports, r)
		}
		var err error
		if l, err = l.Next(p, reports, 9, 1); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func group(nodes ...anchormesh.NodeID) *machine.State {
	s := &machine.State{Descriptor: &anchormesh.Descriptor{}}
	for i, n := range nodes {
		s.Descriptor.Anchors = append(s.Descriptor.Anchors, anchormesh.Anchor{Node: n, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	return s
}

// A trusted group takes in one newcomer at a time for balance; a fresh one is not held
// up, and whoever is not trusted may always go.
func TestNewcomersComeOneAtATime(t *testing.T) {
	proven := ledger(t, 5, "a", "b", "c")
	for _, c := range []struct {
		name   string
		state  *machine.State
		ledger *trust.Ledger
		leaves anchormesh.ReplicaID
		may    bool
	}{
		{"nobody was ever judged", group("a", "b", "c"), nil, 1, true},
		{"all are trusted", group("a", "b", "c"), proven, 1, true},
		{"one is new", group("a", "b", "z"), proven, 1, false},
		{"the new one itself goes", group("a", "b", "z"), proven, 3, true},
		{"all are new", group("x", "y", "z"), proven, 1, true},
	} {
		c.state.Trust = c.ledger
		if got := settled(c.state, c.leaves); got != c.may {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// min_trust keeps out who weighs less in the scope.
func TestMinTrustSteersRecruiting(t *testing.T) {
	s := group("a", "b", "c")
	members := []recruit.Member{{Node: "new", Room: 5}, {Node: "known", Room: 5}, {Node: "bad", Room: 5}}
	weights := map[anchormesh.NodeID]uint32{"new": trust.Newcomer, "known": 40, "bad": 3}
	weight := func(_ []byte, n anchormesh.NodeID) uint32 { return weights[n] }
	rooms := func(least int) (out [3]bool) {
		s.Policy = &policy.Policy{Anchors: policy.Anchors{Count: 3, MinTrust: least}}
		for i, m := range trusted(s, members, weight) {
			out[i] = m.Room > 0
		}
		return out
	}
	for least, want := range map[int][3]bool{0: {true, true, true}, 5: {true, true, false}, 10: {true, true, false}, 30: {false, true, false}} {
		if got := rooms(least); got != want {
			t.Errorf("min_trust %d: room with %v, want %v", least, got, want)
		}
	}
	if members[2].Room != 5 {
		t.Error("what others heard of the members was changed")
	}
}
