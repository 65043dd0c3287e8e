package machine

import (
	"fmt"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// OpHardened notes that a replica has everything on disk, since the segment is light no
// more: uvarint replica.
const OpHardened = keyspace.OpStructural + 31

// Hardened returns the command that says so of a replica.
func Hardened(id anchormesh.ReplicaID) []byte {
	return fields.AppendNumbers([]byte{byte(OpHardened)}, uint64(id))
}

// MustLast reports whether a command has to be on disk before it is acknowledged, in a
// light segment, too: all that is structural, the parts of transactions over several
// segments, whose other parts may be in a segment that is not light, and the end of a
// lease, which its home forgets then: a key that came back on it would stay for ever. What
// cannot be told must last.
func MustLast(command []byte) bool {
	for len(command) > 0 {
		switch op := keyspace.Op(command[0]); {
		case op >= keyspace.OpStructural:
			return true
		case op >= keyspace.OpPrepare && op <= keyspace.OpForget, op == keyspace.OpLeaseEnd:
			return true
		case op == keyspace.OpStamped && len(command) > 9:
			command = command[9:] // the stamp, then another command
		default:
			return op == keyspace.OpStamped
		}
	}
	return true
}

// Gated reports whether the proposer of a command waits for the acknowledgements that the
// scope's policy asks for. What changes the segment itself needs Raft's majority only: a
// group that lost too many must be able to mend itself.
func Gated(command []byte) bool {
	return len(command) > 0 && (keyspace.Op(command[0]) < keyspace.OpStructural || keyspace.Op(command[0]) == OpApproved)
}

// Acks is what the policy in force asks for beyond Raft's majority.
func (s *State) Acks() consensus.Acks {
	if s.Policy == nil || s.Light() {
		return consensus.Acks{}
	}
	return consensus.Acks{All: s.Policy.Acks.All, Count: s.Policy.Acks.Count}
}

// Light reports whether the segment's replicas may acknowledge from memory.
func (s *State) Light() bool { return s.Descriptor.Class == anchormesh.Light }

// Hardening reports whether the segment is light no more, but not known yet to have
// everything on the disks of all its anchors. Its contract until then is the light one.
func (s *State) Hardening() bool { return len(s.Soft) > 0 }

// reclass gives the segment a class. The descriptor must be the state's own. Who had a
// replica while it was light has to say that it is on disk.
func (s *State) reclass(to anchormesh.Class) {
	from := s.Descriptor.Class
	s.Descriptor.Class = to
	switch {
	case to == anchormesh.Light:
		s.Soft = nil
	case from == anchormesh.Light:
		s.Soft = nil
		for id := range s.Peers() {
			s.Soft = append(s.Soft, id)
		}
		slices.Sort(s.Soft)
	}
}

// stillSoft returns those of Soft that are left behind a change of the anchors. Whoever
// joined since the switch came with a snapshot behind it, and is on disk.
func (s *State) stillSoft() (out []anchormesh.ReplicaID) {
	peers := s.Peers()
	for _, id := range s.Soft {
		if _, here := peers[id]; here {
			out = append(out, id)
		}
	}
	return out
}

func (m *Machine) applyHardened(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	id := anchormesh.ReplicaID(r.AtMost(math.MaxUint64))
	if err := r.end(); err != nil {
		return err
	}
	next := *m.state.Load()
	i, soft := slices.BinarySearch(next.Soft, id)
	if !soft {
		return fmt.Errorf("%w: nobody waits for replica %d of segment %s to be on disk", ErrRefused, id, next.Descriptor.Segment)
	}
	next.Soft = slices.Delete(slices.Clone(next.Soft), i, i+1)
	b := m.segment.Begin(e.Index, e.Term)
	next.store(b)
	b.End()
	m.put(&next) // the configuration is as it was: see Durable
	m.changed(Change{State: &next, Place: placeOf(e)})
	return nil
}
