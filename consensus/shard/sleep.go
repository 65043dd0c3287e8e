package shard

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// rests is what a shard knows of sleeping.
type rests struct {
	after  int    // ticks without an event after which a leader asks; 0 is never
	asks   uint64 // questions so far; numbers them
	asleep int    // groups that sleep
}

// sleeper is what a group knows of it. Sleeping is about ticks only: nothing that is
// safe depends on who sleeps, and whatever happens to a group wakes it.
type sleeper struct {
	asleep bool
	shown  bool // asleep, as the last effects said
	whole  bool // every replica sleeps, or was asked to: nobody lacks an entry
	queued bool // to be woken in its turn
	nudge  bool // tell the leader, who may sleep, that this follower does not
	since  uint64
	quiet  int // ticks since the last event
	tries  int // questions in a row that not all agreed to

	// A leader's question.
	ask     uint64 // its number; 0: none is open
	left    int    // ticks until it is given up
	at      replica.Rest
	pending []anchormesh.ReplicaID // who has not agreed yet
	without []anchormesh.NodeID    // nodes that are silent and were not asked
}

// maxTries bounds how much rarer the questions become: 2^maxTries times.
const maxTries = 4

// Sleep says that a group fell asleep or woke. When Whole is set, no replica of it
// lacks an entry of the log.
type Sleep struct {
	Segment       anchormesh.SegmentID
	Asleep, Whole bool
}

// SleepAfter lets groups sleep when nothing has happened to them for so many ticks; zero
// keeps them awake.
func (s *Shard) SleepAfter(ticks int) { s.rests.after = ticks }

// Asleep returns how many groups sleep.
func (s *Shard) Asleep() int { return s.rests.asleep }

// stir notes that something happened to a group. A sleeping one wakes.
func (s *Shard) stir(g *group) {
	p := &g.sleep
	p.quiet, p.tries, p.ask = 0, 0, 0
	if !p.asleep {
		return
	}
	s.rests.asleep--
	p.asleep, p.nudge, p.without = false, true, nil
	s.startClock(g)
	s.touch(g)
}

// fallAsleep stops a group's clock.
func (s *Shard) fallAsleep(g *group, whole bool) {
	s.rests.asleep++
	p := &g.sleep
	p.asleep, p.whole, p.nudge, p.ask, p.pending = true, whole, false, 0, nil
	g.replica.Shrink()
	s.touch(g)
}

// showSleep says what changed since the last time, and tells the leader of a follower
// that woke for another reason than the leader's word: it may sleep, and would be taken for
// dead. To Raft that is an answer to a heartbeat.
func (s *Shard) showSleep(g *group) {
	p := &g.sleep
	if p.shown != p.asleep {
		p.shown = p.asleep
		s.out.Sleeps = append(s.out.Sleeps, Sleep{g.segment, p.asleep, p.asleep && p.whole})
	}
	if !p.nudge {
		return
	}
	p.nudge = false
	if st := g.replica.Status(); st.Role == raft.StateFollower && st.Leader != 0 {
		s.frames.add(g, word(raftpb.MsgHeartbeatResp, g, st.Leader, st.Term))
	}
}

func word(t raftpb.MessageType, g *group, to anchormesh.ReplicaID, term uint64) *raftpb.Message {
	return &raftpb.Message{Type: &t, To: new(uint64(to)), From: new(uint64(g.replica.ID())), Term: &term}
}

// fallsAsleep is a leader's tick on its way to sleep. It reports whether the clock
// stands: while a question is open there are no heartbeats, which would wake those who
// have agreed. The others are asked again, which is a heartbeat to them.
func (s *Shard) fallsAsleep(g *group) bool {
	p := &g.sleep
	if s.rests.after == 0 {
		return false
	}
	if p.ask != 0 {
		if p.left--; p.left > 0 {
			s.question(g)
			return true
		}
		p.notNow()
		return false
	}
	p.quiet++
	if !g.replica.Leads() || p.quiet < s.rests.after<<p.tries {
		return false
	}
	if !s.ask(g) {
		p.notNow()
		return false
	}
	return true
}

// notNow lets the next question wait, longer each time.
func (p *sleeper) notNow() {
	p.ask, p.quiet, p.pending = 0, 0, nil
	p.tries = min(p.tries+1, maxTries)
}

// ask asks all replicas to sleep: those that have everything. If one has not, the
// group stays awake, for it is to catch up; but a node that has been silent for long
// is left out as long as a majority agrees, so that a dead one does not keep thousands
// of groups awake. Its first word wakes them.
func (s *Shard) ask(g *group) bool {
	at, ok := g.replica.AtRest()
	voters, joint := g.replica.Voters()
	if !ok || joint {
		return false
	}
	p := &g.sleep
	p.pending, p.without = nil, nil
	agree := 1
	g.replica.Progress(func(id anchormesh.ReplicaID, other replica.PeerProgress) {
		node, known := g.peers.node(id)
		switch {
		case id == g.replica.ID():
		case known && s.silent(node, g):
			p.without = append(p.without, node)
		case known && s.fresh(node, g) && other.Match == at.Index && !other.Snapshot:
			p.pending = append(p.pending, id)
			if !other.Learner {
				agree++
			}
		default:
			ok = false
		}
	})
	if !ok || agree <= voters/2 {
		return false
	}
	if len(p.pending) == 0 {
		s.sleepAll(g)
		return true
	}
	s.rests.asks++
	p.ask, p.at = s.rests.asks, at
	p.left = max(1, g.replica.ElectionTicks()/2)
	s.question(g)
	return true
}

// question puts the open question to all who have not agreed.
func (s *Shard) question(g *group) {
	p := &g.sleep
	for _, id := range p.pending {
		m := word(message.Sleep, g, id, p.at.Term)
		m.Index, m.RejectHint, m.Vote = &p.at.Index, &p.ask, new(uint64(len(p.without)))
		s.frames.add(g, m)
	}
}

// sleepAll lets a leader sleep to whose question all have agreed.
func (s *Shard) sleepAll(g *group) {
	for _, node := range g.sleep.without {
		s.nodes.missed[node] = true
	}
	s.fallAsleep(g, len(g.sleep.without) == 0)
}

// asked is a follower's answer. It agrees only if it stands exactly where the leader
// does and nothing is under way here; else the question is a heartbeat. A leader of a node that
// has just been lost is not believed: its words may be older than the loss, and no second
// loss would wake this group.
func (s *Shard) asked(g *group, in Inbound) {
	m := in.Message
	if g.replica.Pending() {
		s.run(g) // what came before it in this step
	}
	leader := anchormesh.ReplicaID(m.GetFrom())
	at, ok := g.replica.AtRest()
	st := g.replica.Status()
	agrees := ok && s.rests.after > 0 && st.Role == raft.StateFollower && st.Leader == leader &&
		at == (replica.Rest{Term: m.GetTerm(), Index: m.GetIndex()}) && g.wake == 0 && !s.justLost(in.From, g)
	if !agrees {
		if g.sleep.asleep {
			s.stir(g)
		}
		g.sleep.nudge = false
		g.replica.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: m.From, To: m.To, Term: m.Term})
		s.touch(g)
		return
	}
	if !g.sleep.asleep {
		s.fallAsleep(g, m.GetVote() == 0)
	}
	answer := word(message.Slept, g, leader, m.GetTerm())
	answer.Index, answer.RejectHint = m.Index, m.RejectHint
	s.frames.add(g, answer)
}

// agreed is told to a leader. To Raft it is an answer to a heartbeat: the replica lives,
// and CheckQuorum is not to depose the leader that wakes.
func (s *Shard) agreed(g *group, m *raftpb.Message) {
	p := &g.sleep
	from := anchormesh.ReplicaID(m.GetFrom())
	if p.ask == 0 || m.GetRejectHint() != p.ask || m.GetTerm() != p.at.Term || !slices.Contains(p.pending, from) {
		return // to an earlier question, or once more
	}
	g.replica.Step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: m.From, To: m.To, Term: m.Term})
	s.touch(g)
	p.pending = slices.DeleteFunc(p.pending, func(id anchormesh.ReplicaID) bool { return id == from })
	if len(p.pending) == 0 {
		s.sleepAll(g)
	}
}

// deserted reports whether a heartbeat's answer comes from a replica that had agreed to
// the open question: it is awake again.
func (p *sleeper) deserted(m *raftpb.Message) bool {
	return p.ask != 0 && m.GetType() == raftpb.MsgHeartbeatResp && !slices.Contains(p.pending, anchormesh.ReplicaID(m.GetFrom()))
}

// nodes is what a shard knows of other nodes, whichever group they speak for.
type nodes struct {
	heard  map[anchormesh.NodeID]uint64 // tick of the last word
	lost   map[anchormesh.NodeID]uint64 // tick of the loss, until they are heard an election timeout later
	missed map[anchormesh.NodeID]bool   // some group here sleeps without them
	last   anchormesh.NodeID            // who was heard last, and when
	lastAt uint64
}

func newNodes() nodes {
	return nodes{
		heard: make(map[anchormesh.NodeID]uint64), lost: make(map[anchormesh.NodeID]uint64), missed: make(map[anchormesh.NodeID]bool),
	}
}

// heard notes a node's word. Groups that sleep without it wake, in turn: its replicas may
// lack entries.
func (s *Shard) heard(node anchormesh.NodeID) {
	n := &s.nodes
	if n.last == node && n.lastAt == s.now && len(n.missed) == 0 {
		return
	}
	n.last, n.lastAt, n.heard[node] = node, s.now, s.now
	if at, ok := n.lost[node]; ok && s.now-at > earlyTicks {
		delete(n.lost, node)
	}
	if !n.missed[node] {
		return
	}
	delete(n.missed, node)
	for _, g := range s.order {
		if g.sleep.asleep && slices.Contains(g.sleep.without, node) {
			s.rouse(g)
		}
	}
}

// probeTicks is the time between two words to a node that groups sleep without.
const probeTicks = 20

// probe says a word to each node that groups here sleep without, as one of their leaders.
// When such a node can be heard again, nobody there may have a reason to speak: its
// replicas sleep, too, under a leader of before, or wait without a state to be asked. Its
// answer wakes all groups that lack it.
func (s *Shard) probe() {
	if len(s.nodes.missed) == 0 || s.now%probeTicks != 0 {
		return
	}
	probed := make(map[anchormesh.NodeID]bool, len(s.nodes.missed))
	for _, g := range s.order {
		if !g.sleep.asleep || len(probed) == len(s.nodes.missed) {
			continue
		}
		for _, node := range g.sleep.without {
			if !probed[node] {
				probed[node] = s.ping(g, node)
			}
		}
	}
}

// ping sends a heartbeat that says nothing but that the group's leader is here.
func (s *Shard) ping(g *group, node anchormesh.NodeID) bool {
	for _, p := range g.peers {
		if p.node == node {
			s.frames.add(g, word(raftpb.MsgHeartbeat, g, p.id, g.replica.Status().Term))
			return true
		}
	}
	return false
}

// silent reports whether a node has said nothing for two election timeouts although it
// was sent heartbeats of the group.
func (s *Shard) silent(node anchormesh.NodeID, g *group) bool {
	return s.now-max(s.nodes.heard[node], g.sleep.since) > 2*uint64(g.replica.ElectionTicks())
}

// fresh reports whether a node was heard lately. One that was not is no use asking, and
// while a leader asks CheckQuorum waits.
func (s *Shard) fresh(node anchormesh.NodeID, g *group) bool {
	return s.now-s.nodes.heard[node] <= uint64(g.replica.ElectionTicks()/2)
}

// justLost reports whether what comes from a node may be older than its loss.
func (s *Shard) justLost(node anchormesh.NodeID, g *group) bool {
	at, ok := s.nodes.lost[node]
	return ok && s.now-at <= uint64(g.replica.ElectionTicks())
}

// majorityLeft reports whether a majority of a group's nodes is not known to be lost.
func (s *Shard) majorityLeft(g *group) bool {
	left := 0
	for _, p := range g.peers {
		if _, lost := s.nodes.lost[p.node]; !lost && !slices.Contains(g.sleep.without, p.node) {
			left++
		}
	}
	return left > len(g.peers)/2
}
