package replica

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// answered is what this replica has told the leader of a term that it has.
type answered struct {
	term, index uint64
	commit      uint64 // of the last hard state
}

// dropKnown takes out of an append the answers that tell nothing new: to a message that
// only brought news of a commit, when the leader has been told before, in this term, of
// all that they name. It saves a message per follower and batch.
//
// Raft's leaders need such an answer only where the one before it was lost. Then they ask
// again with their heartbeats, without news of a commit, and get it: an answer is only
// dropped if the commit index moved.
func (r *Replica) dropKnown(a *Append) {
	known := &r.out.answered
	news := a.HardState != nil && a.HardState.GetCommit() > known.commit
	if a.HardState != nil {
		known.commit = a.HardState.GetCommit()
	}
	if news && !a.Sync {
		a.Remote = slices.DeleteFunc(a.Remote, func(m *raftpb.Message) bool {
			return tells(m) && m.GetTerm() == known.term && m.GetIndex() <= known.index
		})
	}
	for _, m := range a.Remote {
		switch {
		case !tells(m) || m.GetTerm() < known.term:
		case m.GetTerm() > known.term:
			known.term, known.index = m.GetTerm(), m.GetIndex()
		default:
			known.index = max(known.index, m.GetIndex())
		}
	}
}

// tells reports whether a message acknowledges a place of the log.
func tells(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgAppResp && !m.GetReject() }
