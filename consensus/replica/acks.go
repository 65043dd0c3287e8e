package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/anchormesh/anchormesh"
)

// Acks says how many voters must have an entry on disk before its proposer is told. The
// zero value asks for nothing beyond Raft's majority.
type Acks struct {
	All   bool
	Count int
}

// wanted is how many of so many voters that is; 0 is no more than Raft asks for. There may
// be fewer voters than are wanted.
func (a Acks) wanted(voters int) int {
	switch {
	case a.All:
		return voters
	case a.Count > voters/2+1:
		return a.Count
	}
	return 0
}

// SetAcks says what is asked for from now on.
func (r *Replica) SetAcks(a Acks) { r.cfg.Acks = a }

// Gated reports whether proposers wait for more than a commit.
func (r *Replica) Gated() bool { return r.cfg.Acks != Acks{} }

// Gates reports whether a request's proposer waits for more than a commit, if any does.
func (r *Replica) Gates(payload []byte) bool { return r.cfg.Gates == nil || r.cfg.Gates(payload) }

// Acked returns the newest index that as many voters have on disk as are asked for; of a
// leader. It is below the commit index, or at it, or, where no more than a majority is asked
// for, as high as there is.
func (r *Replica) Acked() uint64 {
	var match []uint64
	r.node.WithProgress(func(_ uint64, _ raft.ProgressType, p tracker.Progress) {
		if !p.IsLearner {
			match = append(match, p.Match)
		}
	})
	want := r.cfg.Acks.wanted(len(match))
	switch {
	case want == 0:
		return ^uint64(0)
	case want > len(match):
		return 0
	}
	slices.Sort(match)
	return match[len(match)-want]
}

// Reach reports whether enough voters are reachable for what is asked for; of a leader.
func (r *Replica) Reach(reachable func(anchormesh.ReplicaID) bool) bool {
	voters, there := 0, 0
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if p.IsLearner {
			return
		}
		voters++
		if id == uint64(r.cfg.ID) || reachable(anchormesh.ReplicaID(id)) {
			there++
		}
	})
	return there >= r.cfg.Acks.wanted(voters)
}
