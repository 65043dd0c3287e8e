package sim

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/testnet/sim/govern"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
)

// ErrStuck says that a mesh without faults did not come to rest.
var ErrStuck = errors.New("mesh is stuck")

// unsettled says what is not as it must be in a healed mesh; empty: nothing.
func (m *world) unsettled() string {
	living := 0
	for _, n := range m.Computers {
		if n.Gone {
			continue
		}
		living++
		if n.Proc == nil {
			return fmt.Sprintf("node %d does not start", n.Index)
		}
		if left := n.Proc.Forgotten(); len(left) > 0 {
			return fmt.Sprintf("replica %d of segment %s on node %d forgot something and is still there", left[0].Replica, left[0].Segment, n.Index)
		}
	}
	for _, id := range m.Live {
		if why := m.unsettledSegment(id, living); why != "" {
			return fmt.Sprintf("segment %s: %s", id, why)
		}
	}
	if why := m.ungoverned(); why != "" {
		return why
	}
	return m.unsettledRoutes()
}

// ungoverned looks for a home that has something left to do.
func (m *world) ungoverned() string {
	for _, id := range m.Live {
		leader, _ := m.leaderOf(id)
		state := leader.Host.Held[id].Machine.State()
		switch r := state.Scope; {
		case r == nil:
		case len(r.Open) > 0:
			return fmt.Sprintf("scope %q: proposal %d is open", state.Descriptor.Scope, r.Open[0].ID)
		case r.Doing != nil:
			return fmt.Sprintf("scope %q: %s of %q is not done", state.Descriptor.Scope, r.Doing.Kind, r.Doing.Subject)
		case govern.Behind(r):
			return fmt.Sprintf("scope %q: version %d is not in force", state.Descriptor.Scope, r.Newest().Number)
		}
	}
	return ""
}

// leaderOf finds who leads a segment in its newest term.
func (m *world) leaderOf(id anchormesh.SegmentID) (leader *node.Process, unique bool) {
	for _, p := range m.Running() {
		if g := p.Groups[id]; g != nil && g.Status.Role == raft.StateLeader {
			if leader != nil && leader.Groups[id].Status.Term == g.Status.Term {
				return leader, false
			}
			if leader == nil || leader.Groups[id].Status.Term < g.Status.Term {
				leader = p
			}
		}
	}
	return leader, true
}

func (m *world) unsettledSegment(id anchormesh.SegmentID, living int) string {
	leader, unique := m.leaderOf(id)
	if !unique {
		return "two leaders"
	}
	if leader == nil {
		return "no leader"
	}
	state := leader.Host.Held[id].Machine.State()
	d := state.Descriptor
	want := min(state.Want, (living-1)|1)
	switch {
	case state.Hardening():
		return fmt.Sprintf("replicas %v are not known to be on disk", state.Soft)
	case state.Joint():
		return "its configuration is joint"
	case leader.Host.Held[id].Machine.Space().Unsettled():
		return "a transaction is not settled"
	case len(d.Voters()) < want:
		return fmt.Sprintf("%d of %d voters", len(d.Voters()), want)
	}
	for _, a := range d.Anchors {
		n := m.Find(a.Node)
		if n.Gone {
			return fmt.Sprintf("replica %d is on node %d, which is lost", a.Replica, n.Index)
		}
		g := n.Proc.Groups[id]
		switch {
		case g == nil:
			return fmt.Sprintf("replica %d does not run on node %d", a.Replica, n.Index)
		case g.Applied != leader.Groups[id].Applied:
			return fmt.Sprintf("node %d stands at %d, the leader at %d", n.Index, g.Applied, leader.Groups[id].Applied)
		}
	}
	for _, p := range m.Running() {
		if p.Groups[id] == nil {
			continue
		}
		if _, named := d.AnchorOn(p.ID); !named {
			return fmt.Sprintf("node %d runs a replica that the group removed", p.Index)
		}
	}
	return ""
}

// highest is the newest index that a replica of the segment has applied.
func (m *world) highest(id anchormesh.SegmentID) uint64 {
	var out uint64
	for _, p := range m.Running() {
		if g := p.Groups[id]; g != nil {
			out = max(out, g.Applied)
		}
	}
	return out
}

// unsettledRoutes looks for a node that does not know who holds a key.
func (m *world) unsettledRoutes() string {
	for _, p := range m.Running() {
		for _, id := range m.Live {
			leader, _ := m.leaderOf(id)
			d := leader.Host.Held[id].Machine.Descriptor()
			parts, whole := p.Table.Covering(d.Range)
			if !whole || len(parts) != 1 || parts[0].Segment != id || parts[0].Generation != d.Generation {
				return fmt.Sprintf("node %d does not know that segment %s holds %s", p.Index, id, d.Range)
			}
		}
	}
	return ""
}

// keyIn is a key of a segment of a mesh at rest.
func (m *world) keyIn(id anchormesh.SegmentID) string {
	leader, _ := m.leaderOf(id)
	keys := leader.Host.Held[id].Machine.Descriptor().Range
	for _, tail := range []string{"/00", "/!"} {
		if key := node.Segment0(m.Mesh, id).Letter() + tail; keys.Contains([]byte(key)) {
			return key
		}
	}
	return string(keys.Start)
}
