package steward

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// tended is what the steward remembers of a segment while this node leads it.
type tended struct {
	recruiter *recruit.Recruiter
	term      uint64
	since     time.Time // led since
	contact   map[anchormesh.ReplicaID]time.Time
	pending   atomic.Bool // a change was proposed and has not ended
	again     atomic.Bool // one has just ended
	settled   bool        // nothing goes on, as far as the anchors' nodes are concerned
	changed   uint64      // of the descriptor when it was looked at
	calm      time.Time   // led, and its range and anchors unchanged, since
	next      time.Time   // when to look again if nothing happens
	status    string
	degraded  string
	intact    judgement
}

// whole reports whether all anchors' nodes are alive. It is asked of every sleeping group
// at every look, so it is found out again only when nodes or anchors have changed.
func (t *tended) whole(l *look, d *anchormesh.Descriptor) bool {
	if now := (judgement{l.changes, d.Changed, true}); t.intact != now {
		if !l.alive(d) {
			return false
		}
		t.intact = now
	}
	return true
}

// judgement is what was so when all anchors' nodes were alive.
type judgement struct {
	nodes, anchors uint64
	whole          bool
}

// due reports whether a segment is to be looked at now.
func (s *Steward) due(l *look, id anchormesh.SegmentID) bool {
	st, ok := s.engine.Status(id)
	r, here := s.host.Get(id)
	if !ok || !here || !st.Leads() {
		s.forget(id)
		return false
	}
	t, d := s.tended[id], r.Machine.Descriptor()
	if t == nil || t.term != st.Term || t.changed != d.Changed || t.again.Swap(false) {
		return true
	}
	if _, wished := s.wishes[id]; wished || len(s.forgotten(l.now, id)) > 0 {
		return true
	}
	if st.Asleep && t.settled && t.degraded == "" && t.whole(l, d) {
		return false
	}
	return !l.now.Before(t.next)
}

// tend looks at one segment and carries out what is decided.
func (s *Steward) tend(ctx context.Context, l *look, id anchormesh.SegmentID) {
	st, ok := s.engine.Status(id)
	r, here := s.host.Get(id)
	if !ok || !here || !st.Leads() {
		s.forget(id)
		return
	}
	t := s.tended[id]
	if t == nil || t.term != st.Term {
		t = &tended{
			recruiter: recruit.New(s.cfg.Recruit), term: st.Term, since: l.now, calm: l.now,
			contact: make(map[anchormesh.ReplicaID]time.Time), changed: r.Machine.Descriptor().Changed,
		}
		s.tended[id] = t
	}
	situation, ok := s.situation(l, t, r, st.Asleep)
	if !ok {
		return
	}
	if t.changed != situation.Descriptor.Changed {
		t.changed, t.calm = situation.Descriptor.Changed, l.now
	}
	if s.seat(t, r, &situation) {
		return
	}
	plan := recruit.Plan{Status: waitsForTurn, Degraded: waitsForTurn}
	if s.mayTry(l, id, &situation) {
		plan = t.recruiter.Step(l.now, situation)
	}
	idle := situation.Leading && !situation.Pending && !lacks(l, &situation) &&
		len(situation.Descriptor.Voters()) <= situation.Policy.Anchors &&
		len(situation.Descriptor.Voters()) == len(situation.Descriptor.Anchors)
	t.settled = idle && plan.Degraded == "" && t.heardOf(l.now, situation.Descriptor)
	t.next = l.now
	if t.settled || idle && !l.alive(situation.Descriptor) {
		t.next = l.now.Add(settledEvery - interval/2)
	}
	s.publish(t, id, &situation, &plan)
	for _, e := range plan.Effects {
		s.carryOut(ctx, t, situation.Descriptor, e)
	}
}

// heardOf reports whether all anchors were heard of just now.
func (t *tended) heardOf(now time.Time, d *anchormesh.Descriptor) bool {
	return !slices.ContainsFunc(d.Anchors, func(a anchormesh.Anchor) bool { return !t.contact[a.Replica].Equal(now) })
}

// waitsForTurn is how a group stands that others are repaired before.
const waitsForTurn = "it lacks an anchor and waits for its turn: others are repaired first"

// lacks reports whether recruit will look for nodes: the group is too small, or a
// voter's node has been dead for long enough.
func lacks(l *look, s *recruit.Situation) bool {
	voters := s.Descriptor.Voters()
	return len(voters) < s.Policy.Anchors || slices.ContainsFunc(voters, func(a anchormesh.Anchor) bool {
		m, known := l.by[a.Node]
		return !known || !m.Alive && l.now.Sub(m.Since) >= s.Policy.ReplaceAfter
	})
}

// mayTry reports whether a group may be worked on: it lacks nothing, has a learner
// that will do, or has its turn.
func (s *Steward) mayTry(l *look, id anchormesh.SegmentID, situation *recruit.Situation) bool {
	learners := len(situation.Descriptor.Anchors) > len(situation.Descriptor.Voters())
	if !lacks(l, situation) || learners || situation.Pending {
		delete(s.turns, id)
		return true
	}
	for other, until := range s.turns {
		if !l.now.Before(until) {
			delete(s.turns, other)
		}
	}
	if _, has := s.turns[id]; has {
		return true
	}
	if len(s.turns) >= RepairsMax {
		return false
	}
	s.turns[id], s.cursor = l.now.Add(turn), id
	return true
}

// publish keeps for others how a group stands.
func (s *Steward) publish(t *tended, id anchormesh.SegmentID, situation *recruit.Situation, p *recruit.Plan) {
	if p.Status != t.status {
		s.cfg.Logger.Debug("anchor group", "segment", id, "status", p.Status)
	}
	t.status, t.degraded = p.Status, p.Degraded
	learners := len(situation.Descriptor.Anchors) > len(situation.Descriptor.Voters())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing[id] = Standing{
		Status: p.Status, Degraded: p.Degraded,
		Changing: situation.Pending || learners || situation.Move != nil,
	}
}

// situation gathers what the decision looks at.
func (s *Steward) situation(l *look, t *tended, r *host.Replica, asleep bool) (recruit.Situation, bool) {
	// First whether a change has ended and how far the log was applied, then what
	// that left: the other way round a change that ends in between would be proposed
	// again.
	pending := t.pending.Load()
	_, term := r.Machine.Segment().Applied()
	state := r.Machine.State()
	id := state.Descriptor.Segment
	commit, peers, leading := s.engine.Progress(id)
	if !leading {
		return recruit.Situation{}, false
	}
	out := recruit.Situation{
		Descriptor: state.Descriptor, Self: s.cfg.Self, Commit: commit,
		Policy:  wanted(state, s.cfg.ReplaceAfter),
		Leading: term == t.term, LeaderSince: t.since, Pending: pending || state.Joint() || state.Merging(), Members: trusted(state, l.members, s.weight),
		Forgot: s.forgotten(l.now, id),
	}
	if m, wished := s.wishes[id]; wished {
		if wish := m.Wish(); !wish.Balance || settled(state, wish.Replica) {
			out.Move = wish
		}
	}
	for _, a := range state.Descriptor.Anchors {
		p := peers[a.Replica]
		heard := p.RecentActive
		if asleep { // what the group knows of the others is as old as its sleep
			heard = s.mesh.Connected(a.Node)
		}
		if heard || a.Node == s.cfg.Self {
			t.contact[a.Replica] = l.now
		}
		out.Progress = append(out.Progress, recruit.Progress{Replica: a.Replica, Match: p.Match, LastContact: t.contact[a.Replica]})
	}
	return out, true
}

// wanted is what the policy in force asks of the group.
func wanted(s *machine.State, replaceAfter time.Duration) recruit.Policy {
	p := recruit.Policy{Anchors: s.Want, ReplaceAfter: replaceAfter}
	if s.Policy != nil {
		p.Zones = s.Policy.Anchors.Zones
	}
	return p
}

// trusted takes the room from members that the policy in force does not trust enough to
// be anchors; those that are stay until they are replaced. weight is what a member weighs
// in the scope.
func trusted(s *machine.State, members []recruit.Member, weight func(scope []byte, node anchormesh.NodeID) uint32) []recruit.Member {
	if s.Policy == nil || s.Policy.Anchors.MinTrust == 0 {
		return members
	}
	out := slices.Clone(members)
	for i := range out {
		if weight(s.Descriptor.Scope, out[i].Node) < uint32(s.Policy.Anchors.MinTrust) {
			out[i].Room = 0
		}
	}
	return out
}

// weight is the most that a node weighs in any of a scope's segments here: what it has
// earned in one speaks for it in the others. It is a hint for who is invited, no more.
func (s *Steward) weight(scope []byte, node anchormesh.NodeID) (most uint32) {
	most = trust.Newcomer
	known := false
	for _, id := range s.host.Segments() {
		r, here := s.host.Get(id)
		if !here {
			continue
		}
		state := r.Machine.State()
		if !bytes.Equal(state.Descriptor.Scope, scope) || !state.Trust.Known(node) {
			continue
		}
		if w := state.Trust.Weight(node); !known || w > most {
			most, known = w, true
		}
	}
	return most
}

// settled reports whether a voter may leave for balance alone: a group does not take in
// one newcomer after the other, faster than they earn the trust of those who leave. Who
// is not trusted himself may always go.
func settled(s *machine.State, leaves anchormesh.ReplicaID) bool {
	fresh, proven := false, false
	for _, v := range s.Descriptor.Voters() {
		if below := s.Trust.Weight(v.Node) < trust.Floor; below && v.Replica == leaves {
			return true
		} else if below {
			fresh = true
		} else {
			proven = true
		}
	}
	return !fresh || !proven
}

// carryOut does what was decided about the group as the descriptor has it.
func (s *Steward) carryOut(ctx context.Context, t *tended, d *anchormesh.Descriptor, e recruit.Effect) {
	s.cfg.Logger.Info("anchor group decision", "segment", d.Segment, "why", e.Why)
	switch e.Kind {
	case recruit.Invite:
		go s.invite(ctx, d, e)
	case recruit.AddLearner:
		next, cc := addLearner(d, e)
		s.propose(t, d, next, cc, func() {})
	case recruit.Change:
		next, cc := change(d, e)
		move, wished := s.wishes[d.Segment]
		s.propose(t, d, next, cc, func() {
			if wished && slices.Contains(e.Remove, move.Replica) {
				tell(s.cfg.Listener.Moved, move.Cause.String())
			}
		})
	}
}

func tell(f func(string), word string) {
	if f != nil {
		f(word)
	}
}

// addLearner gives a node the next replica ID.
func addLearner(d *anchormesh.Descriptor, e recruit.Effect) (*anchormesh.Descriptor, *raftpb.ConfChangeV2) {
	next := d.Clone()
	id := next.NextReplica
	next.NextReplica++
	next.Anchors = append(next.Anchors, anchormesh.Anchor{Node: e.Node, Replica: id, Role: anchormesh.Learner, Zone: e.Zone})
	return next, &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{single(raftpb.ConfChangeAddLearnerNode, id)}}
}

// change promotes, demotes and removes in one step; Raft makes it joint where it needs to
// be and leaves the joint configuration by itself.
func change(d *anchormesh.Descriptor, e recruit.Effect) (*anchormesh.Descriptor, *raftpb.ConfChangeV2) {
	next, cc := d.Clone(), &raftpb.ConfChangeV2{}
	for i := range next.Anchors {
		if slices.Contains(e.Promote, next.Anchors[i].Replica) {
			next.Anchors[i].Role = anchormesh.Voter
		}
		if slices.Contains(e.Demote, next.Anchors[i].Replica) {
			next.Anchors[i].Role = anchormesh.Learner
		}
	}
	next.Anchors = slices.DeleteFunc(next.Anchors, func(a anchormesh.Anchor) bool { return slices.Contains(e.Remove, a.Replica) })
	for _, id := range e.Promote {
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeAddNode, id))
	}
	for _, id := range e.Demote {
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeAddLearnerNode, id))
	}
	for _, id := range e.Remove {
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeRemoveNode, id))
	}
	return next, cc
}

func single(kind raftpb.ConfChangeType, id anchormesh.ReplicaID) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(uint64(id))}
}

// propose has a change decided by the log; done is called once it is applied.
func (s *Steward) propose(t *tended, d, next *anchormesh.Descriptor, cc *raftpb.ConfChangeV2, done func()) {
	t.pending.Store(true)
	s.engine.ChangeConf(d.Segment, d.Generation, cc, meshpb.EncodeDescriptor(next), func(res consensus.Result) {
		if res.Err == nil {
			done()
		}
		s.ended(t, d.Segment, res)
	})
}

// seat has the log note that a change of voters is over, if one is behind its joint
// configuration and this node has applied it as the leader. It reports whether it did so.
func (s *Steward) seat(t *tended, r *host.Replica, situation *recruit.Situation) bool {
	state := r.Machine.State()
	change, due := state.Seating()
	if !due || !situation.Leading || t.pending.Load() {
		return false
	}
	t.pending.Store(true)
	s.engine.Submit(state.Descriptor.Segment, consensus.Proposal{
		Generation: state.Descriptor.Generation, Term: t.term, Alone: true, Payload: machine.Seated(change),
		Done: func(res consensus.Result) { s.ended(t, state.Descriptor.Segment, res) },
	})
	return true
}

// ended takes in how a proposal of the steward's ended. What failed is tried again at the
// next look: a leader that hands over drops all of them, for as long as that takes.
func (s *Steward) ended(t *tended, id anchormesh.SegmentID, res consensus.Result) {
	if res.Err != nil {
		s.cfg.Logger.Warn("change of the anchor group did not happen", "segment", id, "err", res.Err)
	}
	t.pending.Store(false)
	t.again.Store(true)
	if res.Err == nil {
		s.Kick()
	}
}

// child reports whether a segment came from a split as the right side, and has not
// changed since.
func child(d *anchormesh.Descriptor) bool {
	return d.Generation > 1 && d.Changed == machine.BirthIndex
}

// segment is a led segment as the planner sees it.
func (s *Steward) segment(l *look, id anchormesh.SegmentID, t *tended) (place.Segment, bool) {
	r, here := s.host.Get(id)
	if !here || t.status == "" {
		return place.Segment{}, false
	}
	d := r.Machine.Descriptor()
	out := place.Segment{Descriptor: d, Degraded: t.degraded, Since: t.calm, Child: child(d)}
	out.Load, _ = s.cfg.Measured(id)
	s.mu.Lock()
	out.Busy = s.splitting[id] > 0 || l.now.Before(s.held[id])
	s.mu.Unlock()
	switch {
	case t.degraded == "" && !l.alive(d):
		out.Degraded = "an anchor's node is dead"
	case t.changed != d.Changed:
		out.Busy = true // it has just changed, and was not looked at since
	}
	return out, true
}
