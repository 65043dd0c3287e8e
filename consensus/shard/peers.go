package shard

import (
	"cmp"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// peers says on which nodes a group's replicas are, in the order of their IDs. Thousands
// of groups have one, of a few replicas each, where a map would take three times as much.
type peers []peer

type peer struct {
	id   anchormesh.ReplicaID
	node anchormesh.NodeID
}

func peersOf(nodes map[anchormesh.ReplicaID]anchormesh.NodeID) peers {
	out := make(peers, 0, len(nodes))
	for id, node := range nodes {
		out = append(out, peer{id, node})
	}
	slices.SortFunc(out, func(a, b peer) int { return cmp.Compare(a.id, b.id) })
	return out
}

// node returns where a replica is.
func (p peers) node(id anchormesh.ReplicaID) (anchormesh.NodeID, bool) {
	for i := range p {
		if p[i].id == id {
			return p[i].node, true
		}
	}
	return "", false
}

// has reports whether a replica is on a node.
func (p peers) has(id anchormesh.ReplicaID, node anchormesh.NodeID) bool {
	at, known := p.node(id)
	return known && at == node
}
