package sim

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
)

// tended is what a leader's node remembers of a segment, as in package
// node/steward. Decisions are package recruit's.
type tended struct {
	recruiter *recruit.Recruiter
	term      uint64
	since     time.Time
	contact   map[anchormesh.ReplicaID]time.Time
	pending   bool
}

func (m *mesh) recruiting() recruit.Config {
	c := recruit.DefaultConfig()
	c.SettleAfter, c.RetryAfter, c.SurplusAfter = time.Second, 5*time.Second, 20*time.Second
	return c
}

func (p *process) steward() {
	for _, segment := range slices.Sorted(maps.Keys(p.groups)) {
		p.tend(p.groups[segment])
	}
}

func (p *process) tend(g *group) {
	if !g.leads() {
		delete(p.stewards, g.segment)
		return
	}
	term := g.status.Term
	t := p.stewards[g.segment]
	if t == nil || t.term != term {
		t = &tended{recruiter: recruit.New(p.mesh.recruiting()), term: term, since: p.now(), contact: make(map[anchormesh.ReplicaID]time.Time)}
		p.stewards[g.segment] = t
	}
	w := p.worker(g.segment)
	w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) {
		s.Look(g.segment, func(r *replica.Replica) {
			if !r.Leads() {
				return
			}
			commit := r.Status().Commit
			peers := make(map[anchormesh.ReplicaID]replica.PeerProgress)
			r.Progress(func(id anchormesh.ReplicaID, pr replica.PeerProgress) { peers[id] = pr })
			p.after(p.moment(), func() { p.decide(g, t, commit, peers) })
		})
	})
	w.kick()
}

func (p *process) decide(g *group, t *tended, commit uint64, peers map[anchormesh.ReplicaID]replica.PeerProgress) {
	now := p.now()
	state := g.machine.State()
	_, term := g.machine.Segment().Applied()
	s := recruit.Situation{
		Descriptor: state.Descriptor, Self: p.id, Commit: commit,
		Policy:  recruit.Policy{Anchors: state.Want, ReplaceAfter: p.mesh.cfg.Mesh.ReplaceAfter},
		Leading: term == t.term, LeaderSince: t.since, Pending: t.pending || state.Joint(),
	}
	for _, a := range state.Descriptor.Anchors {
		heard := peers[a.Replica].RecentActive
		if g.asleep { // what the group knows of the others is as old as its sleep
			heard = p.connected(a.Node)
		}
		if heard || a.Node == p.id {
			t.contact[a.Replica] = now
		}
		s.Progress = append(s.Progress, recruit.Progress{Replica: a.Replica, Match: peers[a.Replica].Match, LastContact: t.contact[a.Replica]})
	}
	s.Members = p.mesh.gossip(p, now)
	for _, e := range t.recruiter.Step(now, s).Effects {
		p.carryOut(g, t, e)
	}
}

// connected reports whether a connection to a node is open.
func (p *process) connected(id anchormesh.NodeID) bool {
	n := p.mesh.find(id)
	return n != nil && n.proc != nil && p.mesh.net.Open(p.idx, n.idx) && p.mesh.net.Open(n.idx, p.idx)
}

func (p *process) carryOut(g *group, t *tended, e recruit.Effect) {
	d := g.machine.Descriptor()
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
		}
		next.Anchors = slices.DeleteFunc(next.Anchors, func(a anchormesh.Anchor) bool { return slices.Contains(e.Remove, a.Replica) })
		for _, id := range e.Promote {
			changes = append(changes, single(raftpb.ConfChangeAddNode, id))
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

func (p *process) changeConf(g *group, t *tended, next *anchormesh.Descriptor, changes ...*raftpb.ConfChangeSingle) {
	t.pending = true
	p.mesh.stats.ConfChanges++
	p.with(g.segment, func(r *replica.Replica) {
		r.ProposeConfChange(next.Generation, &raftpb.ConfChangeV2{Changes: changes}, meshpb.EncodeDescriptor(next), func(replica.Result) {
			t.pending = false
			p.after(p.moment(), p.steward)
		})
	})
}

// invite asks a node, which accepts.
func (p *process) invite(t *tended, d *anchormesh.Descriptor, node anchormesh.NodeID) {
	to := p.mesh.find(node)
	p.mesh.net.Stream(p.idx, to.idx, func() {
		q := to.proc
		if q == nil {
			return
		}
		q.do(func() {
			ok, _ := recruit.Accept(recruit.Load{Mesh: meshID}, recruit.Invitation{Mesh: d.Mesh, Segment: d.Segment, From: p.id})
			p.mesh.net.Stream(to.idx, p.idx, func() {
				p.do(func() { t.recruiter.Answer(p.now(), node, ok) })
			})
		})
	})
}

// exchange asks somebody for descriptors.
func (p *process) exchange() {
	var others []*computer
	for _, n := range p.mesh.computers {
		if n.idx != p.idx && n.proc != nil {
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		p.ask(pick(p.rng, others...))
	}
}

// stranger asks a node that spoke to a replica which is not here.
func (p *process) stranger(from anchormesh.NodeID) {
	n := p.mesh.find(from)
	now := p.mesh.k.Now()
	if last, ok := p.asked[n.idx]; ok && now-last < 200*time.Millisecond {
		return
	}
	p.asked[n.idx] = now
	p.ask(n)
}

func (p *process) ask(n *computer) {
	p.mesh.net.Stream(p.idx, n.idx, func() {
		q := n.proc
		if q == nil {
			return
		}
		q.do(func() {
			told := slices.Clone(q.table.All())
			p.mesh.net.Stream(n.idx, p.idx, func() {
				p.do(func() {
					for _, d := range told {
						p.hint(d.Clone())
					}
				})
			})
		})
	})
}
