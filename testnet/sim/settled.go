package sim

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/testnet/check"
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
	for _, id := range m.live {
		if why := m.unsettledSegment(id, living); why != "" {
			return fmt.Sprintf("segment %s: %s", id, why)
		}
	}
	return m.unsettledRoutes()
}

// leaderOf finds who leads a segment in its newest term.
func (m *mesh) leaderOf(id anchormesh.SegmentID) (leader *process, unique bool) {
	for _, p := range m.running() {
		if g := p.groups[id]; g != nil && g.status.Role == raft.StateLeader {
			if leader != nil && leader.groups[id].status.Term == g.status.Term {
				return leader, false
			}
			if leader == nil || leader.groups[id].status.Term < g.status.Term {
				leader = p
			}
		}
	}
	return leader, true
}

func (m *mesh) unsettledSegment(id anchormesh.SegmentID, living int) string {
	leader, unique := m.leaderOf(id)
	if !unique {
		return "two leaders"
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

// unsettledRoutes looks for a node that does not know who holds a key.
func (m *mesh) unsettledRoutes() string {
	for _, p := range m.running() {
		for _, id := range m.live {
			leader, _ := m.leaderOf(id)
			d := leader.host.held[id].machine.Descriptor()
			parts, whole := p.table.Covering(d.Range)
			if !whole || len(parts) != 1 || parts[0].Segment != id || parts[0].Generation != d.Generation {
				return fmt.Sprintf("node %d does not know that segment %s holds %s", p.idx, id, d.Range)
			}
		}
	}
	return ""
}

// keyIn is a key of a segment of a mesh at rest.
func (m *mesh) keyIn(id anchormesh.SegmentID) string {
	leader, _ := m.leaderOf(id)
	keys := leader.host.held[id].machine.Descriptor().Range
	for _, tail := range []string{"/00", "/!"} {
		if key := segment0(m, id).letter() + tail; keys.Contains([]byte(key)) {
			return key
		}
	}
	return string(keys.Start)
}

// judgeOwners makes sure that every key has one owner, and that all replicas agree on
// who it is.
func (m *mesh) judgeOwners() error {
	for _, s := range m.segments {
		var owners []check.Owner
		for _, p := range m.running() {
			for _, r := range p.host.sorted() {
				d := r.machine.Descriptor()
				if m.scopeOf[d.Segment] == s.id {
					owners = append(owners, check.Owner{Node: string(p.id), Segment: uint64(d.Segment), Generation: uint64(d.Generation),
						Start: string(d.Range.Start), End: string(d.Range.End)})
				}
			}
		}
		if err := check.Owners(owners, string(s.rng.Start), string(s.rng.End)); err != nil {
			return fmt.Errorf("line %s: %w", lineOf(s.id), err)
		}
	}
	return nil
}

// errLineage: a segment's record of how it came to be does not hold.
var errLineage = errors.New("lineage is broken")

// judgeLineage follows the lineage of every segment to its genesis.
func (m *mesh) judgeLineage() error {
	for _, s := range m.segments {
		var chains []*lineage.Chain
		for _, p := range m.running() {
			for _, r := range p.host.sorted() {
				state := r.machine.State()
				if m.scopeOf[state.Descriptor.Segment] != s.id {
					continue
				}
				if err := lineage.Verify(state.Descriptor.Segment, state.Chain.Entries()); err != nil {
					return fmt.Errorf("%w: %w", errLineage, err)
				}
				if state.Chain.Head() != state.Descriptor.Lineage || !state.Chain.Now().Range.Equal(state.Descriptor.Range) {
					return fmt.Errorf("%w: segment %s is not where its lineage leads", errLineage, state.Descriptor.Segment)
				}
				chains = append(chains, state.Chain)
			}
		}
		gaps, forks := lineage.Survey(chains)
		if len(forks) > 0 {
			return fmt.Errorf("%w: %v and %v follow the same decision", errLineage, forks[0].One, forks[0].Other)
		}
		for _, g := range gaps { // chains are bounded: what they left behind was seen when it was applied
			e := m.decided[g.Missing]
			for e != nil && e.Kind != lineage.Genesis {
				e = m.decided[e.Previous[0]]
			}
			if e == nil {
				return fmt.Errorf("%w: segment %s does not lead to genesis", errLineage, g.Segment)
			}
		}
	}
	return nil
}

func compaction(rev int64) protoMessage { return &pb.CompactionRequest{Revision: rev} }
