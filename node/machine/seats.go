package machine

import (
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// OpSeated ends a change of voters: uvarint index of the change.
//
// Raft's followers know that an entry is committed only from what comes behind it. Were the
// voters that left gone as soon as they learnt it, a majority of those that stay could start
// again without knowing it, and ask those that are gone for their votes, for ever. So a change
// of voters is over with an entry that its leader proposed once it had applied the change: a
// majority of the new voters has that entry on disk, and with it that the change is committed.
// Until then the voters that left keep their votes. CockroachDB comes to the same by making
// them learners first, and removing those behind it.
const OpSeated = keyspace.OpStructural + 36

// Seated returns the command that ends the change of voters at an index. The leader of a term
// may propose it in that term, once it has applied the change.
func Seated(change uint64) []byte {
	return fields.AppendNumbers([]byte{byte(OpSeated)}, change)
}

// Seating returns the index of the newest change of voters, if it is behind its joint
// configuration and wants Seated.
func (s *State) Seating() (change uint64, is bool) {
	return s.Seats, s.Seats > 0 && len(s.Conf.GetVotersOutgoing()) == 0
}

// Joint reports whether a change of voters is half way: some that are not anchors any more
// may still count.
func (s *State) Joint() bool { return len(s.Conf.GetVotersOutgoing()) > 0 || s.Seats > 0 }

// left returns those of before that are no anchors behind a change, and may still count.
func (s *State) left(before *State) (out []anchormesh.Anchor) {
	for _, old := range append(slices.Clone(before.Descriptor.Anchors), before.Leaving...) {
		if _, stays := s.Descriptor.Replica(old.Replica); !stays && s.Joint() && old.Role == anchormesh.Voter {
			out = append(out, old)
		}
	}
	return out
}

// sameVoters reports whether two configurations have the same majorities.
func sameVoters(a, b *raftpb.ConfState) bool {
	same := func(a, b []uint64) bool {
		return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
	}
	return same(a.GetVoters(), b.GetVoters()) && same(a.GetVotersOutgoing(), b.GetVotersOutgoing())
}

func (m *Machine) applySeated(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	change := r.AtMost(math.MaxUint64)
	if err := r.end(); err != nil {
		return err
	}
	next := *m.state.Load()
	if due, is := next.Seating(); !is || due != change {
		return fmt.Errorf("%w: no change of voters at %d waits for its end", ErrRefused, change)
	}
	next.Seats, next.Leaving = 0, nil
	next.Soft = next.stillSoft()
	next.Descriptor = next.Descriptor.Clone()
	next.Descriptor.Changed, next.Descriptor.Joint = e.Index, false
	b := m.segment.Begin(e.Index, e.Term)
	next.store(b)
	b.End()
	m.enter(&next)
	m.changed(Change{State: &next, Place: placeOf(e)})
	return nil
}
