package machine

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// ErrState says that stored bytes are not an encoded State.
var ErrState = errors.New("stored state of the segment cannot be read")

// State is the segment's record of itself at some place of its log. It is not
// modified once made. Its encoding is in parts.go.
type State struct {
	Descriptor *anchormesh.Descriptor
	Conf       *raftpb.ConfState
	// Want is the number of anchors the segment's scope asks for.
	Want int
	// Leaving holds voters that are not in the descriptor any more and may still count,
	// until the change of voters is over.
	Leaving []anchormesh.Anchor
	// Seats is the index of the newest change of voters while it is not over; see
	// OpSeated. 0: it is.
	Seats uint64
	// Chain is the segment's lineage.
	Chain *lineage.Chain
	// Line names the line of revisions that the segment's writes are stamped from;
	// 0: the line has this segment only and was never split, and they are counted as
	// they are applied.
	Line uint64
	// Window is the W of the line, where the segment is its home: numbers up to it
	// may have been given out.
	Window anchormesh.Revision
	// Left and Right say which attempts to merge concern the segment as one of the two.
	Left  merge.Left
	Right merge.Right
	// Policy is what holds for the segment, the version that its descriptor names; nil:
	// the mesh's default.
	Policy *policy.Policy
	// Scope is the scope's record, where the segment is its home; nil elsewhere.
	Scope *scope.Record
	// Trust is the ledger of the anchors' weights; nil: nobody was ever judged.
	Trust *trust.Ledger
	// Soft names the replicas, ascending, that may have acknowledged writes which are not
	// on their disks, in a segment that is light no more.
	Soft []anchormesh.ReplicaID
	// Keeper is what the segment keeps of losses in light scopes inside, where it is a
	// scope's home; nil: nothing.
	Keeper *keeper.Record
	// Turn is the last hand-over from one line to another that reached the segment.
	Turn Turn
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

// after returns the state behind a change of the configuration at a place of the
// log.
func (s *State) after(next *anchormesh.Descriptor, conf *raftpb.ConfState, place lineage.Place) *State {
	out := *s
	out.Descriptor, out.Conf = next, conf
	out.Left.Open = false // nothing else may change while it is: so it has failed
	if !sameVoters(s.Conf, conf) {
		out.Seats = place.Index
	}
	out.Leaving = out.left(s)
	out.Soft = out.stillSoft()
	chain, err := s.Chain.Change(place, out.voters(), lineage.Evidence{})
	if err != nil {
		panic("machine: committed change of the anchor group does not follow from the lineage: " + err.Error())
	}
	out.Chain, next.Changed, next.Lineage, next.Joint = chain, place.Index, chain.Head(), out.Joint()
	return &out
}

// voters names the nodes whose votes count.
func (s *State) voters() lineage.Voters {
	nodes := s.Peers()
	named := func(ids []uint64) (out []anchormesh.NodeID) {
		for _, id := range ids {
			out = append(out, nodes[anchormesh.ReplicaID(id)])
		}
		slices.Sort(out)
		return out
	}
	return lineage.Voters{Incoming: named(s.Conf.GetVoters()), Outgoing: named(s.Conf.GetVotersOutgoing())}
}

// Founding is the state of a mesh's first segment, whose log begins at a place.
func Founding(d *anchormesh.Descriptor, want int, place lineage.Place) (*State, error) {
	chain, err := lineage.Begin(d.Mesh, d.Segment, lineage.Extent{Generation: d.Generation, Range: d.Range}, place,
		lineage.VotersOf(d), lineage.Evidence{Reason: lineage.Operator})
	if err != nil {
		return nil, err
	}
	d = d.Clone()
	d.Changed, d.Lineage = place.Index, chain.Head()
	var voters []uint64
	for _, a := range d.Voters() {
		voters = append(voters, uint64(a.Replica))
	}
	return &State{
		Descriptor: d, Conf: confOf(voters), Want: want, Chain: chain, Scope: &scope.Record{}, Left: merge.Left{Edge: d.Generation},
	}, nil
}

func confOf(voters []uint64) *raftpb.ConfState { return &raftpb.ConfState{Voters: voters} }

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
