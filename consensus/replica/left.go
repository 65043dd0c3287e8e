package replica

import (
	"math"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// asLeft is a request for a vote as a replica has to take it that votes no more by the
// configuration that it knows to be committed. What it has beyond that counts nowhere:
// majorities are of those that stay. Yet one of them that does not know that the change is
// committed needs votes of those that left, which would refuse it for entries that nobody
// else has.
//
// That is safe. Whoever has what this replica knows to be committed has the change in its
// log, and wins no election without a majority of those that stay, who judge logs in full.
// And this replica does not count again without knowing it: that would be by a change in its
// log, of which there is none. (Raft's paper has servers use the newest configuration in
// their log; raft the library, the newest that is applied.)
func (r *Replica) asLeft(m *raftpb.Message) *raftpb.Message {
	if kind := m.GetType(); kind != raftpb.MsgVote && kind != raftpb.MsgPreVote {
		return m
	}
	st := r.node.Status()
	if !left(&st, m.GetFrom()) || r.conf > st.Applied {
		return m
	}
	term, err := r.cfg.Storage.Term(st.GetCommit())
	if err != nil || m.GetLogTerm() < term || m.GetLogTerm() == term && m.GetIndex() < st.GetCommit() {
		return m
	}
	return &raftpb.Message{
		Type: m.Type, To: m.To, From: m.From, Term: m.Term, Context: m.Context,
		LogTerm: m.Term, Index: new(uint64(math.MaxUint64)), // at or above whatever is here
	}
}

// left reports whether a replica does not vote by its own configuration, and another does.
func left(st *raft.Status, other uint64) bool {
	voters := st.Config.Voters.IDs()
	_, votes := voters[st.ID]
	_, stays := voters[other]
	return !votes && stays && len(st.Config.Voters[1]) == 0
}

// noteConf remembers the last change of the configuration in the log. One that was cut off
// again is remembered, too: then votes are as strict as Raft's.
func (r *Replica) noteConf(entries []*raftpb.Entry) {
	for _, e := range entries {
		if t := e.GetType(); t == raftpb.EntryConfChange || t == raftpb.EntryConfChangeV2 {
			r.conf = max(r.conf, e.GetIndex())
		}
	}
}

// recallConf does so at a start, of all that is not applied yet: a voter may be let go by one
// of these entries, and count again by a later one.
func (r *Replica) recallConf() error {
	first, err := r.cfg.Storage.FirstIndex()
	if err != nil {
		return err
	}
	last, err := r.cfg.Storage.LastIndex()
	for next := max(first, r.cfg.Applied+1); err == nil && next <= last; {
		var entries []*raftpb.Entry
		if entries, err = r.cfg.Storage.Entries(next, last+1, r.cfg.MaxMessageBytes); err == nil {
			r.noteConf(entries)
			next += uint64(max(1, len(entries)))
		}
	}
	return err
}
