package steward

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
)

// tended is what a leader's node remembers of a segment, as in package
// node/steward. Decisions are package recruit's.
type tended struct {
	recruiter *recruit.Recruiter
	forgot    map[anchormesh.ReplicaID]time.Time // by their nodes' word
	term      uint64
	since     time.Time
	contact   map[anchormesh.ReplicaID]time.Time
	pending   bool
}

func recruiting() recruit.Config {
	c := recruit.DefaultConfig()
	c.SettleAfter, c.RetryAfter, c.SurplusAfter = time.Second, 5*time.Second, 20*time.Second
	return c
}

func (p *steward) round() {
	for _, segment := range slices.Sorted(maps.Keys(p.Groups)) {
		p.tend(p.Groups[segment])
	}
}

func (p *steward) tend(g *node.Group) {
	if !g.Leads() {
		delete(p.tended, g.Segment)
		delete(p.wishes, g.Segment)
		return
	}
	term := g.Status.Term
	t := p.tended[g.Segment]
	if t == nil || t.term != term {
		t = &tended{recruiter: recruit.New(recruiting()), term: term, since: p.Now(), contact: make(map[anchormesh.ReplicaID]time.Time),
			forgot: make(map[anchormesh.ReplicaID]time.Time)}
		p.tended[g.Segment] = t
	}
	w := p.Worker(g.Segment)
	w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) {
		s.Look(g.Segment, func(r *replica.Replica) {
			if !r.Leads() {
				return
			}
			commit := r.Status().Commit
			peers := make(map[anchormesh.ReplicaID]replica.PeerProgress)
			r.Progress(func(id anchormesh.ReplicaID, pr replica.PeerProgress) { peers[id] = pr })
			p.After(p.Moment(), func() { p.decide(g, t, commit, peers) })
		})
	})
	w.Kick()
}

func (p *steward) decide(g *node.Group, t *tended, commit uint64, peers map[anchormesh.ReplicaID]replica.PeerProgress) {
	now := p.Now()
	state := g.Machine.State()
	_, term := g.Machine.Segment().Applied()
	if change, due := state.Seating(); due && term == t.term && !t.pending {
		p.seat(g, t, change)
		return
	}
	s := recruit.Situation{
		Descriptor: state.Descriptor, Self: p.ID, Commit: commit,
		Policy:  recruit.Policy{Anchors: state.Want, ReplaceAfter: p.Mesh.Cfg.Mesh.ReplaceAfter},
		Leading: term == t.term, LeaderSince: t.since, Pending: t.pending || state.Joint() || state.Merging(),
	}
	for _, id := range slices.Sorted(maps.Keys(t.forgot)) {
		if now.Sub(t.forgot[id]) < forgotKept {
			s.Forgot = append(s.Forgot, id)
		}
	}
	for _, a := range state.Descriptor.Anchors {
		heard := peers[a.Replica].RecentActive
		if g.Asleep { // what the group knows of the others is as old as its sleep
			heard = p.connected(a.Node)
		}
		if heard || a.Node == p.ID {
			t.contact[a.Replica] = now
		}
		s.Progress = append(s.Progress, recruit.Progress{Replica: a.Replica, Match: peers[a.Replica].Match, LastContact: t.contact[a.Replica]})
	}
	s.Members, s.Move = p.Mesh.Gossip(p.Process, now), p.wished(state.Descriptor)
	for _, e := range t.recruiter.Step(now, s).Effects {
		p.carryOut(g, t, e)
	}
}

// connected reports whether a connection to a node is open.
func (p *steward) connected(id anchormesh.NodeID) bool {
	n := p.Mesh.Find(id)
	return n != nil && n.Proc != nil && p.Mesh.Net.Open(p.Index, n.Index) && p.Mesh.Net.Open(n.Index, p.Index)
}

func (p *steward) carryOut(g *node.Group, t *tended, e recruit.Effect) {
	d := g.Machine.Descriptor()
	switch e.Kind {
	case recruit.Invite:
		p.invite(t, d, e.Node)
	case recruit.AddLearner:
		next := d.Clone()
		id := next.NextReplica
		next.NextReplica++
		next.Anchors = append(next.Anchors, anchormesh.Anchor{Node: e.Node, Replica: id, Role: anchormesh.Learner, Zone: e.Zone})
		p.changeConf(g, t, next, single(raftpb.ConfChangeAddLearnerNode, id))
	case recruit.Change:
		next := d.Clone()
		var changes []*raftpb.ConfChangeSingle
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
			changes = append(changes, single(raftpb.ConfChangeAddNode, id))
		}
		for _, id := range e.Demote {
			changes = append(changes, single(raftpb.ConfChangeAddLearnerNode, id))
		}
		for _, id := range e.Remove {
			changes = append(changes, single(raftpb.ConfChangeRemoveNode, id))
		}
		p.changeConf(g, t, next, changes...)
	}
}

func single(kind raftpb.ConfChangeType, id anchormesh.ReplicaID) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(uint64(id))}
}

func (p *steward) changeConf(g *node.Group, t *tended, next *anchormesh.Descriptor, changes ...*raftpb.ConfChangeSingle) {
	t.pending = true
	p.Mesh.Stats.ConfChanges++
	p.With(g.Segment, func(r *replica.Replica) {
		r.ProposeConfChange(next.Generation, &raftpb.ConfChangeV2{Changes: changes}, meshpb.EncodeDescriptor(next), func(res replica.Result) { p.ended(t, res) })
	})
}

// ended is node/steward's.
func (p *steward) ended(t *tended, res replica.Result) {
	t.pending = false
	if res.Err == nil {
		p.After(p.Moment(), p.round)
	}
}

// seat is node/steward's.
func (p *steward) seat(g *node.Group, t *tended, change uint64) {
	t.pending = true
	p.Submit(g.Segment, replica.Proposal{
		Generation: g.Machine.Descriptor().Generation, Term: t.term, Alone: true, Payload: machine.Seated(change),
		Done: func(res replica.Result) { p.ended(t, res) },
	})
}

// invite asks a node, which accepts.
func (p *steward) invite(t *tended, d *anchormesh.Descriptor, whom anchormesh.NodeID) {
	to := p.Mesh.Find(whom)
	p.Mesh.Net.Stream(p.Index, to.Index, func() {
		q := to.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			ok, _ := recruit.Accept(recruit.Load{Mesh: node.MeshID}, recruit.Invitation{Mesh: d.Mesh, Segment: d.Segment, From: p.ID})
			p.Mesh.Net.Stream(to.Index, p.Index, func() {
				p.Do(func() { t.recruiter.Answer(p.Now(), whom, ok) })
			})
		})
	})
}

// steward tends the segments that are led here.
type steward struct {
	node.Quiet
	*node.Process
	tended map[anchormesh.SegmentID]*tended
	wishes map[anchormesh.SegmentID]wish
}

// wish is an order to move a replica.
type wish struct {
	recruit.Move
	until time.Time
}

// wishFor is how long an order stands.
const wishFor = 30 * time.Second

// Move orders a replica of a segment to go to another node, if this one leads the segment.
func (p *steward) Move(segment anchormesh.SegmentID, replica anchormesh.ReplicaID, to anchormesh.NodeID) {
	if g := p.Groups[segment]; g != nil && g.Leads() {
		p.wishes[segment] = wish{recruit.Move{Replica: replica, To: to, Why: "ordered"}, p.Now().Add(wishFor)}
		p.tend(g)
	}
}

// wished is what was ordered of a segment, if that is not done yet; nil: nothing.
func (p *steward) wished(d *anchormesh.Descriptor) *recruit.Move {
	w, is := p.wishes[d.Segment]
	if _, here := d.Replica(w.Replica); !is || !here || p.Now().After(w.until) {
		delete(p.wishes, d.Segment)
		return nil
	}
	return &w.Move
}

func NewSteward(p *node.Process) node.Shell {
	return &steward{Process: p, tended: make(map[anchormesh.SegmentID]*tended), wishes: make(map[anchormesh.SegmentID]wish)}
}

func (p *steward) Booted() {
	p.Every(time.Second, p.round)
	p.Every(5*time.Second, p.Exchange)
}

func (p *steward) Follows(g *node.Group) {
	if g.Leads() {
		p.After(p.Moment(), p.round)
	}
}

// forgotKept is node/steward's.
const forgotKept = 30 * time.Second

// Forgot takes a node's word that its replica may have forgotten what it acknowledged.
func (p *steward) Forgot(from anchormesh.NodeID, segment anchormesh.SegmentID, replica anchormesh.ReplicaID) {
	g, t := p.Groups[segment], p.tended[segment]
	if g == nil {
		return
	}
	a, named := g.Machine.Descriptor().Replica(replica)
	switch {
	case !named || a.Node != from || from == p.ID:
	case !g.Leads():
		p.LeaderGone(segment, replica)
	case t != nil:
		t.forgot[replica] = p.Now()
		p.tend(g)
	}
}

// At returns a process's steward.
func At(p *node.Process) *steward { return node.Part[*steward](p) }
