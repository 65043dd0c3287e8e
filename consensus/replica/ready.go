package replica

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// Ready returns what is to be done after the calls since the last one; false if
// there is nothing.
func (r *Replica) Ready() (Ready, bool) {
	if !r.out.touched {
		return Ready{}, false
	}
	r.out.touched = false
	r.noteStatus(nil)
	r.flush()
	r.startRound()
	out := Ready{Snapshots: r.out.offers}
	r.out.offers = nil
	if !r.node.HasReady() {
		return out, len(out.Snapshots) > 0
	}
	rd := r.node.Ready()
	for _, rs := range rd.ReadStates {
		for _, done := range r.reads.confirmed(rs.RequestCtx, r.cfg.Boot) {
			out.Reads = append(out.Reads, Read{Index: rs.Index, Done: done})
		}
	}
	if len(out.Reads) > 0 && len(r.reads.waiting) > 0 {
		r.out.touched = true // the next round may begin
	}
	r.sort(rd.Messages, &out)
	r.noteStatus(&out)
	if out.Apply != nil && (len(r.proposals.queue) > 0 || len(r.reads.waiting) > 0) {
		r.out.touched = true // entries left flight: the next batch or round may go
	}
	return out, true
}

// Pending reports whether another call of Ready would do something.
func (r *Replica) Pending() bool { return r.out.touched }

// noteStatus reports a change of leader, role or term, and restarts what was
// bound to the old one.
func (r *Replica) noteStatus(out *Ready) {
	now := r.Status()
	old := r.last
	r.last = now
	changed := now.Leader != old.Leader || now.Role != old.Role || now.Term != old.Term
	if changed {
		r.reads.restart()
		r.contacts.heard = nil
		r.out.touched = r.out.touched || len(r.reads.waiting) > 0
		if now.Role != raft.StateLeader || now.Term != old.Term {
			r.proposals.failQueued(ErrNotLeader)
		}
	}
	if out == nil {
		r.out.statusChanged = r.out.statusChanged || changed
		return
	}
	if changed || r.out.statusChanged {
		r.out.statusChanged = false
		out.Status = &now
	}
}

// sort deals raft's messages out to where they go.
func (r *Replica) sort(msgs []*raftpb.Message, out *Ready) {
	out.Messages = make([]*raftpb.Message, 0, len(msgs))
	for _, m := range msgs {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			out.Append = r.appendOf(m)
		case raft.LocalApplyThread:
			out.Apply = &Apply{Entries: r.committed(m.GetEntries()), Response: m.GetResponses()[0]}
		default:
			if m.GetType() == raftpb.MsgSnap {
				out.Snapshots = append(out.Snapshots, SnapshotRequest{
					To:    anchormesh.ReplicaID(m.GetTo()),
					Index: m.GetSnapshot().GetMetadata().GetIndex(),
				})
				continue
			}
			out.Messages = append(out.Messages, m)
		}
	}
}

// DropOvertaken removes messages that a later one to the same replica makes
// superfluous: an append that only carries a commit index, behind which another
// append tells at least as much, and a heartbeat (or its answer) behind which
// another one confirms all that it would, since the contexts of read rounds
// count up within a term. Fewer messages and fewer answers per batch; Raft
// allows any message to be lost. The messages are one replica's, in order; the
// slice is reused.
func DropOvertaken(msgs []*raftpb.Message) []*raftpb.Message {
	kept := msgs[:0]
	for i, m := range msgs {
		if superfluous(m, msgs[i+1:]) {
			continue
		}
		kept = append(kept, m)
	}
	return kept
}

func superfluous(m *raftpb.Message, later []*raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp:
		if len(m.GetEntries()) > 0 {
			return false
		}
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
	default:
		return false
	}
	for _, l := range later {
		if l.GetTo() == m.GetTo() && l.GetType() == m.GetType() && l.GetTerm() == m.GetTerm() && l.GetCommit() >= m.GetCommit() &&
			(len(l.GetContext()) > 0 || len(m.GetContext()) == 0) {
			return true
		}
	}
	return false
}

func (r *Replica) appendOf(m *raftpb.Message) *Append {
	a := &Append{Entries: m.GetEntries()}
	if m.Term != nil {
		a.HardState = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	promised := r.voteChanged(a.HardState)
	a.Sync = len(a.Entries) > 0 || promised
	a.Memory = r.cfg.Light && a.Sync && !promised && !r.keepsAny(a.Entries)
	for _, resp := range m.GetResponses() {
		if resp.GetTo() == uint64(r.cfg.ID) {
			a.Local = append(a.Local, resp)
		} else {
			a.Remote = append(a.Remote, resp)
		}
	}
	r.dropKnown(a)
	return a
}

// voteChanged reports whether the hard state changes term or vote against the
// last one that was handed out: those must be on disk before anything is said.
func (r *Replica) voteChanged(hs *raftpb.HardState) bool {
	if hs == nil {
		return false
	}
	changed := hs.GetTerm() != r.out.term || hs.GetVote() != r.out.vote
	r.out.term, r.out.vote = hs.GetTerm(), hs.GetVote()
	return changed
}
