package node

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/neighbours"
	"github.com/anchormesh/anchormesh/node/summary"
)

const (
	// reserveBytes stay free on the disk of a node that takes a replica.
	reserveBytes = 256 << 20
	// replicasMax is how many replicas a node holds: what was measured to cost little
	// while they sleep.
	replicasMax = 10_000
	// replicaBytes is the least that a replica is reckoned to take: room is counted in
	// replicas, and nodes that hold small ones should not seem endless.
	replicaBytes = 64 << 20
	// installingMax is how many replicas a node takes in at a time.
	installingMax = 2
)

func (n *Node) newNeighbours(a *assembly) *neighbours.Neighbours {
	return neighbours.New(neighbours.Config{
		Own:  func() summary.Summary { return n.stands(a) },
		Mesh: a.mesh.MeshID, Identity: a.identity, NodeOf: wire.NodeIDOf, Logger: n.log,
	}, a.mesh)
}

// stands is how this node stands, as others are told.
func (n *Node) stands(a *assembly) summary.Summary {
	s := summary.Summary{Leaving: a.leaving.Load()}
	groups := a.engine.Load()
	s.Replicas, s.Sleeping, s.Leaders = uint64(len(a.host.Segments())), uint64(groups.Asleep), uint64(groups.Led)
	s.Load, s.Pressure = a.pulse.Total()
	free := n.freeBytes(a)
	s.FreeMiB, s.Room = uint64(free)>>20, a.room(free, int64(s.Replicas))
	return s
}

// room is how many more replicas this node would take.
func (a *assembly) room(free, replicas int64) uint64 {
	var used int64
	a.stores.Each(func(s *mvcc.Store) {
		_, inUse := s.SizeBytes()
		used += inUse
	})
	mean := max(replicaBytes, used/max(replicas, 1))
	return uint64(max(0, min(replicasMax-replicas, (free-reserveBytes)/mean)))
}

func (n *Node) freeBytes(a *assembly) int64 {
	free, err := a.dir.FreeBytes()
	if err != nil {
		n.log.Warn("free space of the data directory is unknown", "err", err)
	}
	return int64(min(free, 1<<62))
}

// placed is a summary as the planner takes it.
func placed(s *summary.Summary, heard time.Time) place.Node {
	return place.Node{
		Member:  recruit.Member{Room: uint32(min(s.Room, replicasMax))},
		Leaving: s.Leaving, Heard: heard, Replicas: int(min(s.Replicas, 1<<30)), Leaders: int(min(s.Leaders, 1<<30)), Load: min(s.Load, 1<<50),
	}
}

// heard is what others said of themselves lately.
func (a *assembly) heard(now time.Time) map[anchormesh.NodeID]place.Node {
	out := make(map[anchormesh.NodeID]place.Node)
	for id, h := range a.neighbours.Heard(now) {
		out[id] = placed(&h.Summary, h.At)
	}
	return out
}

// load is how this node stands when it is invited.
func (n *Node) load(a *assembly) recruit.Load {
	installing := a.host.Installing()
	return recruit.Load{
		Mesh: a.host.Mesh(), Leaving: n.serving.Load() == nil || a.leaving.Load(),
		Replicas: len(a.host.Segments()) + installing, ReplicasMax: replicasMax,
		Installing: installing, InstallingMax: installingMax,
		FreeBytes: n.freeBytes(a), ReserveBytes: reserveBytes,
	}
}

// setLeaving says that this node is being drained, or is not, across restarts.
func (n *Node) setLeaving(a *assembly, leaving bool) error {
	if err := a.host.SetLeaving(leaving); err != nil {
		return err
	}
	if a.leaving.Swap(leaving) != leaving {
		n.log.Info("this node is being drained, or is not any more", "leaving", leaving)
	}
	return nil
}
