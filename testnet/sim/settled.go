package sim

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3"

	"github.com/anchormesh/anchormesh"
)

// ErrStuck says that a mesh without faults did not come to rest.
var ErrStuck = errors.New("mesh is stuck")

// unsettled says what is not as it must be in a healed mesh; empty: nothing.
func (m *mesh) unsettled() string {
	living := 0
	for _, n := range m.computers {
		if n.gone {
			continue
		}
		living++
		if n.proc == nil {
			return fmt.Sprintf("node %d does not start", n.idx)
		}
	}
	for _, s := range m.segments {
		if why := m.unsettledSegment(s.id, living); why != "" {
			return fmt.Sprintf("segment %s: %s", s.id, why)
		}
	}
	return ""
}

func (m *mesh) unsettledSegment(id anchormesh.SegmentID, living int) string {
	var leader *process
	for _, p := range m.running() {
		if g := p.groups[id]; g != nil && g.status.Role == raft.StateLeader {
			if leader != nil && leader.groups[id].status.Term == g.status.Term {
				return "two leaders"
			}
			if leader == nil || leader.groups[id].status.Term < g.status.Term {
				leader = p
			}
		}
	}
	if leader == nil {
		return "no leader"
	}
	state := leader.host.held[id].machine.State()
	d := state.Descriptor
	want := min(m.cfg.Mesh.Want, (living-1)|1)
	switch {
	case state.Joint():
		return "its configuration is joint"
	case len(d.Voters()) < want:
		return fmt.Sprintf("%d of %d voters", len(d.Voters()), want)
	}
	for _, a := range d.Anchors {
		n := m.find(a.Node)
		if n.gone {
			return fmt.Sprintf("replica %d is on node %d, which is lost", a.Replica, n.idx)
		}
		g := n.proc.groups[id]
		switch {
		case g == nil:
			return fmt.Sprintf("replica %d does not run on node %d", a.Replica, n.idx)
		case g.applied != leader.groups[id].applied:
			return fmt.Sprintf("node %d stands at %d, the leader at %d", n.idx, g.applied, leader.groups[id].applied)
		}
	}
	for _, p := range m.running() {
		if p.groups[id] == nil {
			continue
		}
		if _, named := d.AnchorOn(p.id); !named {
			return fmt.Sprintf("node %d runs a replica that the group removed", p.idx)
		}
	}
	return ""
}

// highest is the newest index that a replica of the segment has applied.
func (m *mesh) highest(id anchormesh.SegmentID) uint64 {
	var out uint64
	for _, p := range m.running() {
		if g := p.groups[id]; g != nil {
			out = max(out, g.applied)
		}
	}
	return out
}

func compaction(rev int64) protoMessage { return &pb.CompactionRequest{Revision: rev} }
