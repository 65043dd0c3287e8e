package shard

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// Acked says up to which entry as many voters have a group's log on disk as its scope
// asks for. Of a leader only.
type Acked struct {
	Segment anchormesh.SegmentID
	Index   uint64
}

// barred reports whether a request is to be refused because too few anchors can be
// reached for the acknowledgements that are asked for: not heard of for an election
// timeout in which they were sent heartbeats, or lost.
func (s *Shard) barred(g *group, p *replica.Proposal) bool {
	r := g.replica
	if !r.Gated() || !r.Leads() || !r.Gates(p.Payload) {
		return false
	}
	return !r.Reach(func(id anchormesh.ReplicaID) bool {
		node, known := g.peers.node(id)
		_, lost := s.nodes.lost[node]
		return known && !lost && s.now-max(s.nodes.heard[node], g.sleep.since) <= uint64(r.ElectionTicks())
	})
}

// showAcked says what more is acknowledged since the last effects.
func (s *Shard) showAcked(g *group) {
	if !g.replica.Gated() || !g.replica.Leads() {
		g.acked = 0
		return
	}
	if acked := g.replica.Acked(); acked != g.acked {
		g.acked = acked
		s.out.Acked = append(s.out.Acked, Acked{g.segment, acked})
	}
}
