package replica

import (
	"go.etcd.io/raft/v3"
)

// Rest is where a group stands when nothing is under way: its whole log is
// committed, and its last entry is the one at Index.
type Rest struct{ Term, Index uint64 }

// AtRest returns where the replica stands if it knows a leader (itself included)
// and nothing is under way in it: every entry of its log is synced, committed
// and known to be applied, and nobody waits for a proposal, a read, a transfer
// of leadership or a snapshot. It says nothing about other replicas.
func (r *Replica) AtRest() (Rest, bool) {
	p, rs := &r.proposals, &r.reads
	if len(p.queue)+len(p.inflight)+len(rs.waiting)+len(rs.rounds)+len(r.out.offers)+len(r.out.offered) > 0 || r.node.HasReady() {
		return Rest{}, false
	}
	s := r.node.BasicStatus()
	switch {
	case s.Lead == raft.None || s.LeadTransferee != raft.None:
		return Rest{}, false
	case s.RaftState == raft.StateLeader && r.out.committedTerm != s.GetTerm():
		return Rest{}, false // its own first entry is under way
	}
	last, err := r.cfg.Storage.LastIndex()
	if err != nil || last != s.GetCommit() || s.Applied != last {
		return Rest{}, false
	}
	return Rest{Term: s.GetTerm(), Index: last}, true
}

// Voters returns how many voters the configuration has, and whether it is joint.
// It copies much: not for hot paths.
func (r *Replica) Voters() (n int, joint bool) {
	voters := r.node.Status().Config.Voters
	return len(voters[0]), len(voters[1]) > 0
}

// Shrink gives back the memory that only a busy replica needs.
func (r *Replica) Shrink() {
	r.proposals.buf = nil
	if len(r.proposals.queue) == 0 {
		r.proposals.queue = nil
	}
	if len(r.reads.waiting) == 0 {
		r.reads.waiting = nil
	}
}
