package recruit

import (
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Situation is everything Step looks at.
type Situation struct {
	Descriptor *anchormesh.Descriptor // as applied by the leader
	Policy     Policy
	Self       anchormesh.NodeID
	// Leading: this node leads the group and has applied an entry of its own term.
	Leading     bool
	LeaderSince time.Time // replicas not heard from since count as silent from here
	// Pending: a change of the configuration is proposed and not applied, or the
	// configuration is joint.
	Pending  bool
	Commit   uint64   // the group's commit index
	Members  []Member // in a fixed order, so that equal situations give equal plans
	Progress []Progress
	// Forgot are replicas that may have forgotten what they acknowledged, as their own
	// nodes say. They vote and acknowledge no more.
	Forgot []anchormesh.ReplicaID
	// Move is a healthy voter's replacement, decided elsewhere (package place); nil:
	// none. It is given anew with every Step as long as it is wanted.
	Move *Move
}

// Move asks for a voter's place to go to another node.
type Move struct {
	Replica anchormesh.ReplicaID // the voter that leaves, never the leader's own
	To      anchormesh.NodeID
	Balance bool   // the node may decline because it holds its even share
	Why     string // one sentence
}

// Member is what gossip says of a node. It is a hint.
type Member struct {
	Node  anchormesh.NodeID
	Alive bool
	Since time.Time // when Alive last changed
	Zone  string
	Room  uint32 // how many more replicas the node can take; 0: none
}

// Progress is what the leader knows of a replica first hand.
type Progress struct {
	Replica     anchormesh.ReplicaID
	Match       uint64    // highest log index known to be on its disk
	LastContact time.Time // last message from it; zero: none in this term
}

// Kind says what an Effect asks for.
type Kind uint8

const (
	// Invite asks Node whether it takes a replica; the reply comes back by Answer.
	Invite Kind = iota + 1
	// AddLearner proposes to add Node as a learner.
	AddLearner
	// Change proposes, as one change (a joint one if it touches several
	// replicas), to make voters of the learners Promote, learners of the voters Demote,
	// and to drop Remove.
	Change
)

// Effect is one thing to do.
type Effect struct {
	Kind    Kind
	Node    anchormesh.NodeID // Invite, AddLearner
	Zone    string            // AddLearner
	Promote []anchormesh.ReplicaID
	Demote  []anchormesh.ReplicaID
	Remove  []anchormesh.ReplicaID
	// Optional: an Invite that the node may decline because it holds its even share.
	Optional bool
	Why      string // one sentence for the log and the lineage
}

// Plan is the outcome of a Step: at most one AddLearner or Change, any number of
// Invites.
type Plan struct {
	Effects []Effect
	Status  string // one sentence: how the group stands and what it waits for
	// Degraded says why nothing optional may happen to the group; empty: it is whole
	// and no change of it is under way.
	Degraded string
}

// seat is one anchor with everything known about it.
type seat struct {
	anchormesh.Anchor
	contact bool          // answered the leader lately
	dead    bool          // silent and reported dead, both for the policy's limit
	ready   bool          // in contact, and caught up
	forgot  bool          // counts for nothing, and its node is free for another
	silent  time.Duration // since the leader heard from it
}

// group is the situation, sorted out.
type group struct {
	voters, learners []seat
	candidates       []Member
	want             int
	wantZones        int
	self             anchormesh.NodeID
}

// survey sorts the situation out. Seats are in the order of their replica IDs.
func survey(now time.Time, c Config, s *Situation) group {
	g := group{want: s.Policy.Anchors, wantZones: min(s.Policy.Zones, s.Policy.Anchors), self: s.Self}
	members := make(map[anchormesh.NodeID]Member, len(s.Members))
	for _, m := range s.Members {
		members[m.Node] = m
		if _, anchor := s.Descriptor.AnchorOn(m.Node); !anchor &&
			m.Alive && m.Room > 0 && now.Sub(m.Since) >= c.SettleAfter {
			g.candidates = append(g.candidates, m)
		}
	}
	progress := make(map[anchormesh.ReplicaID]Progress, len(s.Progress))
	for _, p := range s.Progress {
		progress[p.Replica] = p
	}
	for _, a := range s.Descriptor.Anchors {
		t := judge(now, c, s, a, progress[a.Replica], members)
		if a.Role == anchormesh.Voter {
			g.voters = append(g.voters, t)
		} else {
			g.learners = append(g.learners, t)
		}
	}
	return g
}

func judge(now time.Time, c Config, s *Situation, a anchormesh.Anchor, p Progress, members map[anchormesh.NodeID]Member) seat {
	t := seat{Anchor: a}
	if a.Node == s.Self {
		t.contact, t.ready = true, true
		return t
	}
	if slices.Contains(s.Forgot, a.Replica) {
		t.forgot = true
		return t
	}
	heard := p.LastContact
	if heard.Before(s.LeaderSince) {
		heard = s.LeaderSince
	} else {
		t.contact = now.Sub(heard) < c.ContactWithin
	}
	t.silent = now.Sub(heard)
	// A replica without a match may have no state at all yet, however short the log.
	t.ready = t.contact && p.Match > 0 && p.Match+c.CatchUpEntries >= s.Commit
	m, known := members[a.Node]
	reported := !known || (!m.Alive && now.Sub(m.Since) >= s.Policy.ReplaceAfter)
	t.dead = reported && t.silent >= s.Policy.ReplaceAfter
	return t
}

// majority reports whether most voters are in contact, the leader included.
func (g *group) majority() bool {
	return 2*count(g.voters, func(t seat) bool { return t.contact }) > len(g.voters)
}

// sick says which voter is dead, silent or behind; empty: all are well.
func (g *group) sick() string {
	for _, t := range g.voters {
		switch {
		case t.forgot:
			return fmt.Sprintf("voter %d on %s may have forgotten what it acknowledged", t.Replica, t.Node.Short())
		case !t.contact:
			return fmt.Sprintf("voter %d on %s is silent", t.Replica, t.Node.Short())
		case !t.ready:
			return fmt.Sprintf("voter %d on %s lags", t.Replica, t.Node.Short())
		}
	}
	return ""
}

// electable reports whether the voters left by a change are mostly in contact.
func (g *group) electable(remove, promote []anchormesh.ReplicaID) bool {
	left := len(g.voters) - len(remove) + len(promote)
	contact := count(g.voters, func(t seat) bool { return t.contact }) + len(promote) // removed ones are silent
	return 2*contact > left
}

func (g *group) dead() (out []seat) {
	for _, t := range g.voters {
		if t.dead {
			out = append(out, t)
		}
	}
	return out
}

// zones counts the group's living anchors by zone.
func (g *group) zones() map[string]int {
	n := make(map[string]int)
	for _, seats := range [][]seat{g.voters, g.learners} {
		for _, t := range seats {
			if !t.dead {
				n[t.Zone]++
			}
		}
	}
	return n
}

func count(seats []seat, yes func(seat) bool) (n int) {
	for _, t := range seats {
		if yes(t) {
			n++
		}
	}
	return n
}
