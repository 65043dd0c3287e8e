package shard

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// AddAbsent lets the shard answer for a replica that has no state yet.
func (s *Shard) AddAbsent(segment anchormesh.SegmentID, id anchormesh.ReplicaID) {
	s.absent[segment] = id
}

// answerAbsent makes a leader send a snapshot to a replica without state: an
// append is rejected with the hint that the log is empty, a heartbeat is
// answered so that the leader counts the replica as active.
func (s *Shard) answerAbsent(in Inbound) {
	m := in.Message
	id, ok := s.absent[in.Segment]
	if !ok || m.GetTo() != uint64(id) {
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
	default:
		return
	}
	s.frames.addTo(in.From, in.Segment, answer)
}
