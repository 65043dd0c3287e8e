package shard

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// absentee is a replica of this node that has no state yet.
type absentee struct {
	id    anchormesh.ReplicaID
	peers map[anchormesh.ReplicaID]anchormesh.NodeID
	quiet int // ticks since anybody spoke to it, or it to them
}

// knockTicks is how long an absent replica waits for a word before it says one itself.
const knockTicks = 20

// AddAbsent lets the shard answer for a replica that has no state yet. The others of the
// group, as far as they are known, hear of it: a leader that sleeps has left out whoever was
// silent, and would never offer a snapshot to one that only waits to be asked.
func (s *Shard) AddAbsent(segment anchormesh.SegmentID, id anchormesh.ReplicaID, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	a := &absentee{id: id, peers: peers}
	s.absent[segment] = a
	s.knock(segment, a)
}

// knocks lets those absent replicas say a word to whom nobody speaks.
func (s *Shard) knocks() {
	if len(s.absent) == 0 {
		return
	}
	for _, segment := range slices.Sorted(maps.Keys(s.absent)) {
		a := s.absent[segment]
		if a.quiet++; a.quiet >= knockTicks {
			s.knock(segment, a)
		}
	}
}

// knock tells the others that a replica is there. To Raft it is an answer to a heartbeat, of
// no term since it knows none: a leader sends what the replica lacks, others ignore it.
func (s *Shard) knock(segment anchormesh.SegmentID, a *absentee) {
	a.quiet = 0
	for _, to := range slices.Sorted(maps.Keys(a.peers)) {
		if to != a.id {
			s.frames.addTo(a.peers[to], segment, &raftpb.Message{
				Type: raftpb.MsgHeartbeatResp.Enum(), To: new(uint64(to)), From: new(uint64(a.id)), Term: new(uint64(0)),
			})
		}
	}
}

// answerAbsent makes a leader send a snapshot to a replica without state: an
// append is rejected with the hint that the log is empty, a heartbeat is
// answered so that the leader counts the replica as active.
func (s *Shard) answerAbsent(in Inbound) {
	m := in.Message
	a := s.absent[in.Segment]
	if a == nil || m.GetTo() != uint64(a.id) {
		s.stranger(in)
		return
	}
	a.quiet = 0
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
