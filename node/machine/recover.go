package machine

import (
	"bytes"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

// What a segment that begins anew on a survivor skips, for the anchors that are lost may
// have gone on without the survivor, and nothing of theirs may come twice.
const (
	// recoveredGenerations is more than the splits and merges that they can have made.
	recoveredGenerations = 1 << 16
	// recoveredReplicas is more than the anchors that they can have named.
	recoveredReplicas = 1 << 10
	// recoveredRevisions is more than they can have given: a million a second for an hour.
	recoveredRevisions = 1 << 32
)

// Recover makes the replica here, whose group is stopped, the only one of a new
// generation of its segment, at a place that is not in its log. It writes the state and
// the place into the store's next commit, and returns the state. The machine is not used
// any more: the replica starts again from the store.
func (m *Machine) Recover(self anchormesh.NodeID, at lineage.Place, rule lineage.Rule, why lineage.Evidence) (*State, error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	now := m.state.Load()
	if now.Frozen() {
		return nil, fmt.Errorf("%w: the segment is being merged, and its left neighbour may hold it already", ErrRefused)
	}
	last, _ := m.segment.Revision()
	next, err := now.recovered(self, last, at, rule, why)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	b := m.segment.Begin(at.Index, at.Term)
	b.SetState(next.Encode())
	b.End()
	m.gone = true
	return next, nil
}

func (s *State) recovered(self anchormesh.NodeID, last anchormesh.Revision, at lineage.Place, rule lineage.Rule, why lineage.Evidence) (*State, error) {
	old, had := s.Descriptor.AnchorOn(self)
	if !had {
		return nil, fmt.Errorf("node %s is no anchor of segment %s", self.Short(), s.Descriptor.Segment)
	}
	chain, err := s.Chain.Recovered(at, self, recoveredGenerations, rule, why)
	if err != nil {
		return nil, err
	}
	next := *s
	d := s.Descriptor.Clone()
	next.Descriptor, next.Chain, next.Leaving, next.Soft = d, chain, nil, nil
	next.Left.Open = false
	old.Replica, old.Role = d.NextReplica+recoveredReplicas, anchormesh.Voter
	d.Anchors, d.NextReplica, d.Joint = []anchormesh.Anchor{old}, old.Replica+1, false
	d.Generation, d.Changed, d.Lineage = chain.Now().Generation, at.Index, chain.Head()
	next.Conf = confOf([]uint64{uint64(old.Replica)})
	if d.LineHome() { // its numbers go on above all that the others can have given
		if next.Line == 0 {
			next.Line, d.Stamped = uint64(d.Segment), true
		}
		next.Window = max(next.Window, last) + recoveredRevisions
	}
	next.check()
	return &next, nil
}

// RecoveredBy reports whether a segment has begun anew by a decision.
func (s *State) RecoveredBy(decision anchormesh.Hash) bool {
	for _, e := range s.Chain.Entries() {
		if e.Kind == lineage.Recovered && bytes.Equal(e.Rule.Decision[:], decision[:]) {
			return true
		}
	}
	return false
}
