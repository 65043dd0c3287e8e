package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// stateVersion is the first byte of an encoded State.
const stateVersion = 1

// ErrState says that stored bytes are not an encoded State.
var ErrState = errors.New("stored state of the segment cannot be read")

// State is the segment's record of itself at some place of its log. It is not
// modified once made.
//
// Encoded: version byte, uvarint wanted anchors, then three times uvarint length and bytes: descriptor
// and leaving anchors (both as descriptors in canonical form), configuration.
type State struct {
	Descriptor *anchormesh.Descriptor
	Conf       *raftpb.ConfState
	// Want is the number of anchors the segment's scope asks for.
	Want int
	// Leaving holds anchors that count in a joint configuration's outgoing
	// majority and are not in the descriptor any more.
	Leaving []anchormesh.Anchor
}

// Encode returns the stored form.
func (s *State) Encode() []byte {
	conf, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Conf)
	if err != nil {
		panic("machine: configuration cannot be encoded: " + err.Error())
	}
	leaving := anchormesh.Descriptor{Anchors: s.Leaving}
	out := binary.AppendUvarint([]byte{stateVersion}, uint64(s.Want))
	for _, part := range [][]byte{meshpb.EncodeDescriptor(s.Descriptor), meshpb.EncodeDescriptor(&leaving), conf} {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}

// DecodeState reads what Encode wrote.
func DecodeState(b []byte) (*State, error) {
	if len(b) == 0 || b[0] != stateVersion {
		return nil, fmt.Errorf("%w: unknown version", ErrState)
	}
	want, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return nil, fmt.Errorf("%w: cut short", ErrState)
	}
	var parts [3][]byte
	rest := b[1+n:]
	for i := range parts {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, fmt.Errorf("%w: cut short", ErrState)
		}
		parts[i], rest = rest[n:n+int(size)], rest[n+int(size):]
	}
	d, err := meshpb.DecodeDescriptor(parts[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	s := &State{Descriptor: d, Conf: &raftpb.ConfState{}, Want: int(want)}
	if s.Leaving, err = decodeLeaving(parts[1]); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(parts[2], s.Conf); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return s, nil
}

func decodeLeaving(b []byte) ([]anchormesh.Anchor, error) {
	var d meshpb.Descriptor
	if err := proto.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	var out []anchormesh.Anchor
	for _, a := range d.GetAnchors() {
		out = append(out, anchormesh.Anchor{
			Node: anchormesh.NodeID(a.GetNode()), Replica: anchormesh.ReplicaID(a.GetReplica()),
			Role: anchormesh.Role(a.GetRole()), Zone: a.GetZone(),
		})
	}
	return out, nil
}

// Peers says on which node each replica of the configuration is, those on their
// way out included.
func (s *State) Peers() map[anchormesh.ReplicaID]anchormesh.NodeID {
	out := make(map[anchormesh.ReplicaID]anchormesh.NodeID, len(s.Descriptor.Anchors)+len(s.Leaving))
	for _, a := range s.Descriptor.Anchors {
		out[a.Replica] = a.Node
	}
	for _, a := range s.Leaving {
		out[a.Replica] = a.Node
	}
	return out
}

// Joint reports whether a change of voters is half way.
func (s *State) Joint() bool { return len(s.Conf.GetVotersOutgoing()) > 0 }

// after returns the state behind a change of the configuration.
func (s *State) after(next *anchormesh.Descriptor, conf *raftpb.ConfState) *State {
	out := &State{Descriptor: next, Conf: conf, Want: s.Want}
	for _, old := range append(slices.Clone(s.Descriptor.Anchors), s.Leaving...) {
		if _, stays := next.Replica(old.Replica); !stays && slices.Contains(conf.GetVotersOutgoing(), uint64(old.Replica)) {
			out.Leaving = append(out.Leaving, old)
		}
	}
	return out
}

// check panics if descriptor and configuration name different replicas.
func (s *State) check() {
	voters, learners := []uint64{}, []uint64{}
	for _, a := range s.Descriptor.Anchors {
		if a.Role == anchormesh.Voter {
			voters = append(voters, uint64(a.Replica))
		} else {
			learners = append(learners, uint64(a.Replica))
		}
	}
	inForce := slices.Sorted(slices.Values(s.Conf.GetVoters()))
	watching := append(slices.Clone(s.Conf.GetLearners()), s.Conf.GetLearnersNext()...)
	slices.Sort(watching)
	if !slices.Equal(voters, inForce) || !slices.Equal(learners, watching) {
		panic(fmt.Sprintf("machine: segment %s: descriptor names voters %v and learners %v, Raft has %v",
			s.Descriptor.Segment, voters, learners, s.Conf))
	}
}
