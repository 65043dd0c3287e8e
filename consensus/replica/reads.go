package replica

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// reads gathers linearizable reads into rounds. A round serves only reads that
// arrived before it began.
type reads struct {
	waiting []ReadWaiter
	rounds  map[uint64][]ReadWaiter // by context; nil before the first
	context uint64                  // the last one used; never reused in this run
	age     int                     // ticks since the oldest round began
}

// maxReadRounds bounds the rounds under way at once. With one, a read waits for
// at most two rounds and all that wait share the second; a second one at once
// was measured to cost 5 % more CPU per read at 100 clients, at no better
// latency.
const maxReadRounds = 1

// maxWaitingReads bounds the reads that wait for a round; beyond it ReadIndex
// answers ErrOverloaded.
const maxWaitingReads = 1 << 16

// ReadIndex asks for an index that, once applied, makes a local read
// linearizable.
func (r *Replica) ReadIndex(done ReadWaiter) {
	if len(r.reads.waiting) >= maxWaitingReads {
		done(0, ErrOverloaded)
		return
	}
	r.reads.waiting = append(r.reads.waiting, done)
	r.out.touched = true
}

// early reports whether a message asks for a read index that raft would name too soon. A leader
// that has committed nothing in its term does not know yet how far its predecessor had, which
// may have been itself; raft lets such questions wait, but not where the leader is the only
// voter and a learner asks. Who is not answered asks again.
func (r *Replica) early(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgReadIndex {
		return false
	}
	s := r.node.BasicStatus()
	return s.RaftState == raft.StateLeader && r.out.committedTerm != s.GetTerm() && len(r.node.Status().Config.Voters.IDs()) == 1
}

// startRound begins a round for all reads that wait, if one may begin.
func (r *Replica) startRound() {
	rs := &r.reads
	if len(rs.waiting) == 0 || len(rs.rounds) >= maxReadRounds || r.last.Leader == 0 {
		return
	}
	if r.Leads() && r.out.committedTerm != r.last.Term {
		return
	}
	rs.context++
	if len(rs.rounds) == 0 {
		rs.age = 0
	}
	if rs.rounds == nil {
		rs.rounds = make(map[uint64][]ReadWaiter)
	}
	rs.rounds[rs.context] = rs.waiting
	rs.waiting = nil
	ctx := binary.LittleEndian.AppendUint64(make([]byte, 0, 24), rs.context)
	// The replica ID keeps two followers' contexts apart on their leader.
	ctx = binary.LittleEndian.AppendUint64(ctx, uint64(r.cfg.ID))
	r.node.ReadIndex(binary.LittleEndian.AppendUint64(ctx, r.cfg.Boot))
}

// confirmed takes the waiters of a round.
func (rs *reads) confirmed(ctx []byte, boot uint64) []ReadWaiter {
	if len(ctx) != 24 || binary.LittleEndian.Uint64(ctx[16:]) != boot {
		return nil
	}
	id := binary.LittleEndian.Uint64(ctx)
	waiters := rs.rounds[id]
	delete(rs.rounds, id)
	rs.age = 0
	return waiters
}

// restart throws all rounds away and lets their reads wait for a new one: used
// when leader or term changed, or when an answer seems lost.
func (rs *reads) restart() {
	for id := rs.context; len(rs.rounds) > 0; id-- {
		if waiters, ok := rs.rounds[id]; ok {
			rs.waiting = append(rs.waiting, waiters...)
			delete(rs.rounds, id)
		}
	}
	rs.age = 0
}

// tick restarts rounds whose answer did not come within half an election
// timeout: messages get lost.
func (rs *reads) tick(electionTicks int) {
	if len(rs.rounds) == 0 {
		return
	}
	rs.age++
	if rs.age > electionTicks/2 {
		rs.restart()
	}
}

func (rs *reads) failAll(err error) {
	rs.restart()
	waiting := rs.waiting
	rs.waiting = nil
	for _, done := range waiting {
		done(0, err)
	}
}
