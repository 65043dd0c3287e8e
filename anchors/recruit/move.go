package recruit

import (
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
)

// moving is a wanted move that may go on.
type moving struct {
	Move
	learner *seat // the replica on To, once there is one
}

// move returns the situation's move if the group can do without repair for it.
func (g *group) move(s *Situation) *moving {
	if s.Move == nil || g.need() > 0 || g.sick() != "" {
		return nil
	}
	leaves := false
	for _, t := range g.voters {
		leaves = leaves || t.Replica == s.Move.Replica && t.Node != s.Self
		if t.Node == s.Move.To {
			return nil // it is there already
		}
	}
	if !leaves {
		return nil
	}
	m := &moving{Move: *s.Move}
	for i := range g.learners {
		if g.learners[i].Node == m.To {
			m.learner = &g.learners[i]
		}
	}
	return m
}

func (m *moving) status() string {
	what := fmt.Sprintf(", voter %d moves to %s: ", m.Replica, m.To.Short())
	switch {
	case m.learner == nil:
		return what + "waiting for its answer"
	case !m.learner.ready:
		return what + "waiting for it to catch up"
	}
	return what + "it has caught up"
}

// inviteMoved asks the node that the move is to.
func (r *Recruiter) inviteMoved(now time.Time, g *group, m *moving) []Effect {
	if _, ok := g.candidate(m.To); !ok || m.learner != nil || r.asked[m.To].state != 0 {
		return nil
	}
	r.asked[m.To] = invited{waiting, now.Add(r.config.InviteTimeout)}
	return []Effect{{Kind: Invite, Node: m.To, Optional: m.Balance, Why: m.Why}}
}

// candidate returns the zone of a node that may be invited.
func (g *group) candidate(node anchormesh.NodeID) (zone string, ok bool) {
	for i := range g.candidates {
		if g.candidates[i].Node == node {
			return g.candidates[i].Zone, true
		}
	}
	return "", false
}

// seatMoved makes the node a learner once it has accepted.
func (r *Recruiter) seatMoved(g *group, m *moving) (Effect, bool) {
	if m == nil || m.learner != nil || r.asked[m.To].state != accepted {
		return Effect{}, false
	}
	zone, ok := g.candidate(m.To)
	return Effect{Kind: AddLearner, Node: m.To, Zone: zone, Why: m.Why}, ok
}

// finish gives the learner its vote and takes the other's, in one joint change.
func (m *moving) finish() (Effect, bool) {
	if m == nil || m.learner == nil || !m.learner.ready {
		return Effect{}, false
	}
	return Effect{
		Kind: Change, Promote: []anchormesh.ReplicaID{m.learner.Replica}, Remove: []anchormesh.ReplicaID{m.Replica}, Why: m.Why,
	}, true
}
