package shard

import (
	"bytes"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// absent is a replica without state. What it voted and acknowledged while it had one is in
// its log, and there its vote counts: were it silent until it has a state again, the
// loss of one other replica of three would end the group for good, for only a leader sends
// a state.
type absent struct {
	id     anchormesh.ReplicaID
	log    replica.VoterLog // nil: hushed
	voter  *replica.Voter   // nil: nobody asked yet
	leader anchormesh.NodeID
	heard  uint64 // tick of the leader's last word
	guard  uint64 // ticks after it in which nobody else is voted for
}

// AddAbsent lets the shard answer for a replica that has no state yet, and vote for it by
// its log, which nobody may write until Hush, Add or Remove. It may be repeated.
func (s *Shard) AddAbsent(segment anchormesh.SegmentID, id anchormesh.ReplicaID, log replica.VoterLog, electionTicks int) {
	if a := s.absent[segment]; a == nil || a.id != id || a.log == nil {
		s.absent[segment] = &absent{id: id, log: log, guard: uint64(electionTicks)}
	}
}

// Hush ends the votes for a replica without state; it is answered for as before. Its
// group is about to start, and reads from the log whom it has voted for: what was handed
// out before has to be written first.
func (s *Shard) Hush(segment anchormesh.SegmentID) {
	if a := s.absent[segment]; a != nil {
		a.log, a.voter = nil, nil
	}
}

// Forget ends everything that is said for a replica without state: its log is about to go,
// and with it whom it voted for.
func (s *Shard) Forget(segment anchormesh.SegmentID) { delete(s.absent, segment) }

// answerAbsent makes a leader send a snapshot to a replica without state: an
// append is rejected with the hint that the log is empty, a heartbeat is
// answered so that the leader counts the replica as active.
func (s *Shard) answerAbsent(in Inbound) {
	m := in.Message
	a, ok := s.absent[in.Segment]
	if !ok || m.GetTo() != uint64(a.id) {
		s.stranger(in)
		return
	}
	answer := &raftpb.Message{To: m.From, From: m.To, Term: m.Term}
	switch m.GetType() {
	case raftpb.MsgApp:
		answer.Type = raftpb.MsgAppResp.Enum()
		answer.Index, answer.Reject, answer.RejectHint = m.Index, new(true), new(uint64(0))
	case raftpb.MsgHeartbeat:
		answer.Type = raftpb.MsgHeartbeatResp.Enum()
	case raftpb.MsgPreVote, raftpb.MsgVote:
		s.vote(a, in)
		return
	default:
		return
	}
	a.leader, a.heard = in.From, s.now
	s.frames.addTo(in.From, in.Segment, answer)
}

// campaignTransfer is raft's mark on a request for a vote that the leader itself wants.
var campaignTransfer = []byte("CampaignTransfer")

// vote answers a request for a vote for a replica without state. As long as its leader was
// heard lately there is no reason to elect another one.
func (s *Shard) vote(a *absent, in Inbound) {
	led := a.leader != "" && a.leader != in.From && s.now-a.heard < a.guard
	if a.log == nil || led && !bytes.Equal(in.Message.GetContext(), campaignTransfer) {
		return
	}
	if a.voter == nil {
		var err error
		if a.voter, err = replica.NewVoter(a.id, a.log); err != nil {
			return // the log has failed, and says so to whoever writes it
		}
	}
	answer, save := a.voter.Judge(in.Message)
	switch {
	case answer == nil:
	case save == nil:
		s.frames.addTo(in.From, in.Segment, answer)
	default:
		var later frames
		later.addTo(in.From, in.Segment, answer)
		s.out.Appends = append(s.out.Appends, Append{
			Segment: in.Segment, Append: &replica.Append{HardState: save, Sync: true, Remote: []*raftpb.Message{answer}}, Frames: later.list,
			Done: Appended{Segment: in.Segment, Replica: a.id},
		})
	}
}
