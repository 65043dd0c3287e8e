package replica

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/anchormesh/anchormesh"
)

// PeerProgress is the leader's view of one replica.
type PeerProgress struct {
	Match uint64
	// RecentActive: the leader heard of it within an election timeout.
	RecentActive bool
	Learner      bool
	// Snapshot is set while the replica waits for a snapshot.
	Snapshot bool
}

// contacts remembers when a leader heard of the others. raft forgets all of them at once, each
// time an election timeout has passed, and knows them again with their next answers. Who looks
// about as often as that may look between the two every time, and take everybody for silent.
type contacts struct {
	clock uint64 // ticks
	heard []contact
}

type contact struct {
	id anchormesh.ReplicaID
	at uint64 // by the clock
}

// note takes a message as a word of its sender, if this replica leads and is meant.
func (r *Replica) note(m *raftpb.Message) {
	if !r.Leads() || m.GetTerm() != r.last.Term {
		return
	}
	c, from := &r.contacts, anchormesh.ReplicaID(m.GetFrom())
	kept := c.heard[:0]
	for _, h := range c.heard {
		if h.id != from && r.lately(h.at) {
			kept = append(kept, h)
		}
	}
	c.heard = append(kept, contact{from, c.clock})
}

// lately reports whether a moment is at most an election timeout ago.
func (r *Replica) lately(at uint64) bool { return r.contacts.clock-at <= uint64(r.cfg.ElectionTicks) }

// active reports whether a leader heard of a replica lately.
func (r *Replica) active(id anchormesh.ReplicaID) bool {
	for _, h := range r.contacts.heard {
		if h.id == id {
			return r.lately(h.at)
		}
	}
	return false
}

func (r *Replica) visitProgress(visit func(anchormesh.ReplicaID, PeerProgress)) {
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		other := anchormesh.ReplicaID(id)
		visit(other, PeerProgress{
			Match:        pr.Match,
			RecentActive: pr.RecentActive || r.active(other),
			Learner:      pr.IsLearner,
			Snapshot:     pr.State == tracker.StateSnapshot,
		})
	})
}
