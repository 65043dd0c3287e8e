package shard

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
)

// early is a request for a vote in a group that is not here yet.
type early struct {
	Inbound
	tick uint64
}

// earlyMax bounds the votes that are kept; earlyTicks is for how long. One that is
// dropped is asked for again: see Urge.
const (
	earlyMax   = 1024
	earlyTicks = 10
)

// keepEarly keeps a request for a vote for a group that may be about to start: the
// children of a split start on each node when it has applied and stored the split,
// one tens of milliseconds after the other. Raft allows any message to be late.
func (s *Shard) keepEarly(in Inbound) {
	if t := in.Message.GetType(); t != raftpb.MsgPreVote && t != raftpb.MsgVote {
		return
	}
	for i := range s.early {
		e := &s.early[i]
		if e.Segment == in.Segment && e.From == in.From {
			*e = early{in, s.now}
			return
		}
	}
	if len(s.early) < earlyMax {
		s.early = append(s.early, early{in, s.now})
	}
}

// receiveEarly delivers what came before the group.
func (s *Shard) receiveEarly(g *group) {
	kept := s.early[:0]
	for _, e := range s.early {
		if e.Segment != g.segment {
			kept = append(kept, e)
		} else if e.Message.GetTo() == uint64(g.replica.ID()) && g.peers.has(anchormesh.ReplicaID(e.Message.GetFrom()), e.From) {
			s.deliver(g, e.Inbound)
		}
	}
	clear(s.early[len(kept):])
	s.early = kept
}

// forgetEarly drops what no group came for.
func (s *Shard) forgetEarly() {
	kept := s.early[:0]
	for _, e := range s.early {
		if s.now-e.tick <= earlyTicks {
			kept = append(kept, e)
		}
	}
	clear(s.early[len(kept):])
	s.early = kept
}

func (s *Shard) receive(in Inbound) {
	s.heard(in.From)
	g := s.groups[in.Segment]
	if g == nil {
		s.keepEarly(in)
		s.answerAbsent(in)
		return
	}
	if in.Message.GetTo() != uint64(g.replica.ID()) {
		s.stranger(in)
		return
	}
	// A replica speaks from its own node only. One that is not known here yet may
	// have been added by an entry that is still on its way.
	from := anchormesh.ReplicaID(in.Message.GetFrom())
	switch node, known := g.node(from); {
	case !known:
		g.welcome(from, in.From)
	case node != in.From:
		return
	}
	s.deliver(g, in)
}

// deliver hands a message to the replica it is for.
func (s *Shard) deliver(g *group, in Inbound) {
	fromLeader := in.Message.GetFrom() == uint64(g.replica.Leader())
	if fromLeader && resigned(g, in.Message) {
		g.replica.ForgetLeader() // and let it have this vote
	} else if fromLeader {
		g.silence = 0
	}
	switch in.Message.GetType() {
	case message.Sleep:
		s.asked(g, in)
		return
	case message.Slept:
		s.agreed(g, in.Message)
		return
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp: // what keeps a group awake is not something that happens to it
		if g.sleep.asleep || g.sleep.deserted(in.Message) {
			s.stir(g)
		}
	default:
		s.stir(g)
	}
	if fromLeader {
		g.sleep.nudge = false // it is awake
	}
	g.replica.Step(in.Message)
	s.touch(g)
}

// resigned reports whether a leader's own message says that it leads no more: it asks for
// votes for a later term. It was started again, and that was not noticed.
func resigned(g *group, m *raftpb.Message) bool {
	t := m.GetType()
	return (t == raftpb.MsgPreVote || t == raftpb.MsgVote) && m.GetTerm() > g.replica.Status().Term
}

func (s *Shard) stranger(in Inbound) {
	for _, known := range s.out.Strangers {
		if known.Segment == in.Segment && known.From == in.From {
			return
		}
	}
	s.out.Strangers = append(s.out.Strangers, Stranger{in.Segment, in.From})
}
