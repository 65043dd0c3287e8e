package machine

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/keyspace"
)

// What a segment that begins anew on a survivor skips, for the anchors that are lost may
// have gone on without the survivor, and nothing of theirs may come twice.
const (
	// RecoveredGenerations is more than the splits and merges that they can have made.
	RecoveredGenerations = 1 << 16
	// recoveredReplicas is more than the anchors that they can have named.
	recoveredReplicas = 1 << 10
	// recoveredRevisions is more than they can have given: a million a second for an hour.
	recoveredRevisions = 1 << 32
)

// ErrAbove says that a number was asked for too early: the log that is left holds a higher
// revision. Another one has to be asked for.
var ErrAbove = errors.New("the revisions of the segment go beyond the number of its line")

// Recovery says how a segment begins anew.
type Recovery struct {
	Self anchormesh.NodeID
	At   lineage.Place // not in the log
	// Above all revisions that the lost anchors can have given is this number of the
	// segment's line. The home of a line finds its own, and it may be 0.
	Above anchormesh.Revision
	// Times is the how manyth recovery this is that was decided for the segments around:
	// one before may have been given up and carried out all the same, so each skips more.
	// 0 counts as 1.
	Times uint64
	Rule  lineage.Rule
	Why   lineage.Evidence
}

// timesMax keeps revisions far below what clients can hold.
const timesMax = 1 << 16

func (r *Recovery) times() uint64 { return min(max(r.Times, 1), timesMax) }

// Recover makes the replica here, whose group is stopped, the only one of a new
// generation of its segment. It writes the state and the place into the store's next
// commit, and returns the state. History ends above all that was lost, so that whoever saw
// some of it is told that it is compacted. The machine is not used any more: the replica
// starts again from the store.
func (m *Machine) Recover(how Recovery) (*State, error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	now := m.state.Load()
	if now.Frozen() {
		return nil, fmt.Errorf("%w: the segment is being merged, and its left neighbour may hold it already", ErrRefused)
	}
	last, _ := m.segment.Revision()
	base := how.Above
	switch {
	case now.Descriptor.LineHome(): // its numbers go on above all that the others can have given
		base = max(now.Window, last) + recoveredRevisions*anchormesh.Revision(how.times())
	case base < last:
		return nil, fmt.Errorf("%w: %d, number %d", ErrAbove, last, base)
	}
	how.Why.Numbers = append(how.Why.Numbers, uint64(base))
	next, err := now.recovered(&how, base)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	b := m.segment.Begin(how.At.Index, how.At.Term)
	next.store(b)
	b.Raise(base)
	if floor := m.lossFloor(base); floor > 0 {
		// Compacted further already, or never so far: then nobody saw what is lost.
		_ = b.Compact(floor)
	}
	b.End()
	m.gone = true
	return next, nil
}

// lossFloor is the revision up to which somebody may have been shown what is lost. What
// is prepared held back all that came behind it; it is in the log, and all before it.
func (m *Machine) lossFloor(base anchormesh.Revision) anchormesh.Revision {
	stamps, _ := m.space.Held()
	for _, p := range stamps {
		base = min(base, p-1)
	}
	return base
}

func (s *State) recovered(how *Recovery, base anchormesh.Revision) (*State, error) {
	old, had := s.Descriptor.AnchorOn(how.Self)
	if !had {
		return nil, fmt.Errorf("node %s is no anchor of segment %s", how.Self.Short(), s.Descriptor.Segment)
	}
	chain, err := s.Chain.Recovered(how.At, how.Self, RecoveredGenerations*how.times(), how.Rule, how.Why)
	if err != nil {
		return nil, err
	}
	next := *s
	d := s.Descriptor.Clone()
	next.Descriptor, next.Chain, next.Leaving, next.Seats, next.Soft = d, chain, nil, 0, nil
	next.Left.Open = false
	old.Replica, old.Role = d.NextReplica+recoveredReplicas*anchormesh.ReplicaID(how.times()), anchormesh.Voter
	d.Anchors, d.NextReplica, d.Joint = []anchormesh.Anchor{old}, old.Replica+1, false
	d.Generation, d.Changed, d.Lineage = chain.Now().Generation, how.At.Index, chain.Head()
	next.Conf = confOf([]uint64{uint64(old.Replica)})
	if d.LineHome() {
		if next.Line == 0 {
			next.Line, d.Stamped = uint64(d.Segment), true
		}
		next.Window = base
	}
	next.check()
	return &next, nil
}

// Reshapes reports whether a command changes which keys the segment has, or is on the way
// to: what came of it elsewhere cannot be seen here.
func Reshapes(command []byte) bool {
	if len(command) == 0 {
		return false
	}
	switch keyspace.Op(command[0]) {
	case OpSplit, OpFreeze, OpAbsorb:
		return true
	}
	return false
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
