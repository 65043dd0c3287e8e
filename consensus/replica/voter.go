package replica

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// VoterLog is what a vote needs of a log; raft's storages are such.
type VoterLog interface {
	InitialState() (*raftpb.HardState, *raftpb.ConfState, error)
	LastIndex() (uint64, error)
	Term(index uint64) (uint64, error)
}

// Voter votes for a replica whose state machine is not here, by Raft's rules: nothing
// that such a vote promises depends on the state, only on what the log holds and whom
// the replica voted for before. One that nothing is stored of has promised nothing and
// votes for anybody.
//
// It does not run elections, and takes nobody's entries. Nobody else may write the log
// while it votes.
type Voter struct {
	id                 anchormesh.ReplicaID
	term, vote, commit uint64
	index, logTerm     uint64 // where the log ends
}

// NewVoter returns the voter of a replica with this log.
func NewVoter(id anchormesh.ReplicaID, log VoterLog) (*Voter, error) {
	hs, _, err := log.InitialState()
	if err != nil {
		return nil, err
	}
	v := &Voter{id: id, term: hs.GetTerm(), vote: hs.GetVote(), commit: hs.GetCommit()}
	if v.index, err = log.LastIndex(); err != nil {
		return nil, err
	}
	if v.logTerm, err = log.Term(v.index); err != nil {
		return nil, err
	}
	if v.term < v.logTerm { // the log was restarted behind a snapshot of a later term
		v.term, v.vote = v.logTerm, 0
	}
	return v, nil
}

// Judge answers a request for a vote; nil: not at all. What it returns to save must be on
// disk before the answer leaves.
func (v *Voter) Judge(m *raftpb.Message) (answer *raftpb.Message, save *raftpb.HardState) {
	pre := m.GetType() == raftpb.MsgPreVote
	kind := raftpb.MsgVoteResp
	if pre {
		kind = raftpb.MsgPreVoteResp
	}
	answer = &raftpb.Message{Type: &kind, To: m.From, From: new(uint64(v.id)), Term: m.Term}
	switch {
	case m.GetTerm() < v.term && !pre:
		return nil, nil
	case m.GetTerm() > v.term && !pre:
		v.term, v.vote = m.GetTerm(), 0
	}
	switch {
	case m.GetTerm() < v.term, !v.free(m), m.GetLogTerm() < v.logTerm, m.GetLogTerm() == v.logTerm && m.GetIndex() < v.index:
		answer.Reject = new(true)
		if pre {
			answer.Term = new(v.term)
		}
		return answer, nil
	case pre: // promises nothing
		return answer, nil
	}
	v.vote = m.GetFrom()
	return answer, &raftpb.HardState{Term: new(v.term), Vote: new(v.vote), Commit: new(v.commit)}
}

// free reports whether the vote of a message's term is not given to somebody else.
func (v *Voter) free(m *raftpb.Message) bool {
	return m.GetTerm() > v.term || v.vote == 0 || v.vote == m.GetFrom()
}
