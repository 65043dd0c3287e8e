package shard

import (
	"go.etcd.io/raft/v3"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// campaignsPerTick bounds the groups of a shard that begin an election in one tick
// because their leaders were lost: a node may have led thousands, and all at once
// they would hold up the appends of the others.
const campaignsPerTick = 128

// urgeTicks is the time between two tries of a new group.
const urgeTicks = 2

// orphan is a follower whose leader is lost.
type orphan struct {
	*group
	leader anchormesh.ReplicaID
}

// startClock lets a group be ticked.
func (s *Shard) startClock(g *group) {
	g.silence, g.sleep.since = 0, s.now
	if !g.ticked {
		g.ticked = true
		s.ticked = append(s.ticked, g)
	}
}

// tick moves the clocks of all groups that are awake.
func (s *Shard) tick() {
	s.now++
	s.forgetEarly()
	s.probe()
	s.wakeQueued()
	var orphans []orphan
	kept := s.ticked[:0]
	for _, g := range s.ticked {
		if g.gone || g.sleep.asleep {
			g.ticked = false
			continue
		}
		kept = append(kept, g)
		if s.fallsAsleep(g) {
			continue
		}
		g.replica.Tick()
		if leader, silent := g.listen(); silent {
			orphans = append(orphans, orphan{g, leader})
		}
		s.touch(g)
	}
	clear(s.ticked[len(kept):])
	s.ticked = kept
	s.elect(orphans)
	for _, g := range s.ticked {
		g.countDown()
	}
}

// countDown begins the elections that are due.
func (g *group) countDown() {
	if g.wake > 0 {
		if g.wake--; g.wake == 0 && g.replica.Status().Leader == 0 {
			g.replica.Campaign()
		}
	}
	if g.urge > 0 {
		g.urge--
		switch st := g.replica.Status(); {
		case st.Leader != 0:
			g.urge = 0
		case g.urge%urgeTicks == 0 && st.Role != raft.StateCandidate: // whose votes are being written
			g.replica.Campaign()
		}
	}
}

// Urge makes a new group elect this replica at once. Other nodes may not have
// started theirs, and their answers be lost: it tries again every few ticks, for an
// election timeout, while no leader is known. Nothing is disturbed by it if there is one
// (PreVote), and of those that are urged on several nodes the first wins.
func (s *Shard) Urge(segment anchormesh.SegmentID) {
	s.With(segment, func(r *replica.Replica) {
		r.Campaign()
		s.groups[segment].urge = r.ElectionTicks()
	})
}

// NodeLost tells every group that a node is gone. Followers of leaders there forget
// them, which lifts the guard against elections that CheckQuorum puts up, and
// campaign in an order: see elect. It wakes them, and also those leaders that sleep
// and have no majority of nodes left: they are to find out that they lead no more. A
// leader that has one sleeps on: it owes a lost follower nothing until something is
// written, and hears of it again when it comes back.
func (s *Shard) NodeLost(node anchormesh.NodeID) {
	s.nodes.lost[node] = s.now
	for _, a := range s.absent {
		if a.leader == node {
			a.leader = ""
		}
	}
	var orphans []orphan
	for _, g := range s.order {
		switch leader := g.replica.Status().Leader; {
		case leader == g.replica.ID():
			if g.sleep.asleep && !s.majorityLeft(g) {
				s.stir(g)
			}
		case leader != 0 && g.peers.has(leader, node):
			orphans = append(orphans, orphan{g, leader})
		}
	}
	s.succeed(orphans)
}

// LeaderGone tells one group that a replica leads no more, whatever its node does: as
// NodeLost does to the groups of a whole node.
func (s *Shard) LeaderGone(segment anchormesh.SegmentID, leader anchormesh.ReplicaID) {
	g := s.groups[segment]
	if g != nil && leader != g.replica.ID() && g.replica.Status().Leader == leader {
		s.succeed([]orphan{{g, leader}})
	}
}

// succeed has followers elect in the places of leaders that are gone.
func (s *Shard) succeed(orphans []orphan) {
	for _, o := range orphans {
		s.stir(o.group)
	}
	s.elect(orphans)
	for _, o := range orphans {
		s.touch(o.group)
	}
}

// elect prepares campaigns for the places of lost leaders: of each group's followers
// the one of rank zero first, the others two ticks apart behind the last of those,
// in case that one is gone, too. A tick takes so many campaigns and no more.
func (s *Shard) elect(orphans []orphan) {
	last := len(orphans) / campaignsPerTick // tick in which the last one of rank zero begins, about
	first, later := 0, 0
	for _, o := range orphans {
		rank := o.rank(o.leader)
		o.replica.ForgetLeader()
		o.silence, o.sleep.nudge = 0, false
		if rank == 0 {
			o.wake = 1 + first/campaignsPerTick
			first++
		} else {
			o.wake = 1 + last + 2*rank + later/campaignsPerTick
			later++
		}
	}
}

// listen counts how long the leader has been silent. After an election timeout
// the followers campaign in order, as when its node is known to be gone; Raft's
// own random delay, up to another timeout, is only what remains if that fails.
func (g *group) listen() (leader anchormesh.ReplicaID, silent bool) {
	leader = g.replica.Leader()
	if leader == 0 || leader == g.replica.ID() {
		g.silence = 0
		return 0, false
	}
	g.silence++
	return leader, g.silence >= g.replica.ElectionTicks()
}

// rank is the replica's place among the group's replicas without the lost one. The
// order begins at another one for each segment, so that the groups of a lost node do not
// all end up on one other.
func (g *group) rank(lost anchormesh.ReplicaID) int {
	before, others := 0, 0
	for _, p := range g.peers {
		if p.id == lost {
			continue
		}
		others++
		if p.id < g.replica.ID() {
			before++
		}
	}
	if others == 0 {
		return 0
	}
	return (before + int((uint64(g.segment)-1)%uint64(others))) % others
}
