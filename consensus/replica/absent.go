package replica

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/anchormesh/anchormesh"
)

// forgot reports whether a message says that a replica has nothing, although it has
// acknowledged entries to this leader: an installation made it absent and was cut
// short. Raft knows no such replica. It would send the same append again for each
// rejection, as fast as the network goes, and never a snapshot. (A replica with a
// state never hints at index zero: groups begin above it.)
func (r *Replica) forgot(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgAppResp || !m.GetReject() || m.GetRejectHint() != 0 || !r.Leads() {
		return false
	}
	match := r.match(m.GetFrom())
	return match > 0 && m.GetIndex() >= match
}

func (r *Replica) match(id uint64) (match uint64) {
	r.node.WithProgress(func(other uint64, _ raft.ProgressType, p tracker.Progress) {
		if other == id {
			match = p.Match
		}
	})
	return match
}

// offer asks for a snapshot for a replica, if none is on its way and the durable
// state covers what the replica acknowledged: with less it would come back having
// forgotten an entry that its acknowledgement committed.
func (r *Replica) offer(id anchormesh.ReplicaID) {
	if r.out.offered[id] {
		return
	}
	snap, err := r.cfg.Storage.Snapshot()
	if err != nil || snap.GetMetadata().GetIndex() < r.match(uint64(id)) {
		return // the next rejection asks again
	}
	if r.out.offered == nil {
		r.out.offered = make(map[anchormesh.ReplicaID]bool)
	}
	r.out.offered[id] = true
	r.out.offers = append(r.out.offers, SnapshotRequest{To: id, Index: snap.GetMetadata().GetIndex()})
}
