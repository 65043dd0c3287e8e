package node

import (
	"context"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
)

const (
	// handOverTimeout bounds the handing over of all leaderships. What is left then is
	// elected anew when the others notice that the node is gone, which is at once.
	handOverTimeout = 2 * time.Second
	// handOverAtOnce leaderships are under way together: a worker is asked and waited for
	// once for all of them, however busy it is.
	handOverAtOnce = 256
	handOverPoll   = 5 * time.Millisecond
)

// handOver moves leaderships to other voters before this node stops, so that
// clients need not wait for an election: first those that somebody uses.
func (n *Node) handOver(a *assembly) {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	for part := range slices.Chunk(a.led(), handOverAtOnce) {
		if ctx.Err() != nil {
			return
		}
		a.handOver(ctx, part)
	}
}

// led returns the segments that this node leads, those that sleep behind the others.
func (a *assembly) led() []anchormesh.SegmentID {
	var awake, asleep []anchormesh.SegmentID
	for _, id := range a.host.Segments() {
		switch st, ok := a.engine.Status(id); {
		case !ok || !st.Leads():
		case st.Asleep:
			asleep = append(asleep, id)
		default:
			awake = append(awake, id)
		}
	}
	return append(awake, asleep...)
}

// handOver moves the leaderships of some segments, and waits until they are moved,
// their successors are out of reach, or ctx ends.
func (a *assembly) handOver(ctx context.Context, segments []anchormesh.SegmentID) {
	successors := make(map[anchormesh.SegmentID]anchormesh.NodeID)
	progress := a.engine.ProgressAll(segments)
	for turn, id := range segments {
		if replica, node, ok := a.successor(id, progress[id], turn); ok {
			a.engine.TransferLeader(id, replica)
			successors[id] = node
		}
	}
	ticker := time.NewTicker(handOverPoll)
	defer ticker.Stop()
	for len(successors) > 0 {
		for id, node := range successors {
			if st, ok := a.engine.Status(id); !ok || !st.Leads() || !a.mesh.Connected(node) {
				delete(successors, id)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// successor picks who should lead a segment after this node: the voter that has
// most of its log, of those that can be reached. Of equals it is another one at the next
// turn, so that one node does not get all.
func (a *assembly) successor(id anchormesh.SegmentID, p consensus.Progress, turn int) (best anchormesh.ReplicaID, node anchormesh.NodeID, ok bool) {
	r, here := a.host.Get(id)
	if !here {
		return 0, "", false
	}
	others := slices.DeleteFunc(r.Machine.Descriptor().Voters(), func(v anchormesh.Anchor) bool { return v.Replica == r.ID })
	for i := range others {
		v := others[(turn+i)%len(others)]
		peer, known := p.Peers[v.Replica]
		if !known || !peer.RecentActive || !a.mesh.Connected(v.Node) {
			continue
		}
		if best == 0 || peer.Match > p.Peers[best].Match {
			best, node = v.Replica, v.Node
		}
	}
	return best, node, best != 0
}
