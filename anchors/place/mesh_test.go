package place

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// mesh is a whole mesh on virtual time: nodes with a Planner each, segments with
// a Recruiter each at their leaders, summaries that arrive late, invitations that
// are declined, learners that take their time, logs that apply what is proposed.
type mesh struct {
	rng      *rand.Rand
	now      time.Time
	cfg      Config
	nodes    []*node
	segments []*segment
	anchors  int
	orders   []Order
	late     time.Duration // the latest that summaries arrive
	broken   error         // the first rule that was broken

	moves, transfers, declined int
	causes                     [ByRoom + 1]int
	lastMove                   time.Time
}

type node struct {
	recruit.Member
	leaving  bool
	size     int // replicas it can hold
	planner  *Planner
	promises recruit.Promises
	past     []Node // its summaries, newest last
	current  Node   // at the beginning of this tick
	died     time.Time
}

type segment struct {
	d         *anchormesh.Descriptor
	load      uint64
	child     bool
	leader    anchormesh.NodeID
	ledSince  time.Time
	since     time.Time
	recruiter *recruit.Recruiter
	wish      *recruit.Move
	cause     Cause
	degraded  string
	invited   []anchormesh.NodeID
	pending   *recruit.Effect
	moving    Cause                              // pending is the end of a move
	ready     map[anchormesh.ReplicaID]time.Time // when a learner will have caught up
}

// tick is the length of a step.
const tick = 10 * time.Second

func newMesh(seed uint64) *mesh {
	return &mesh{
		rng: rand.New(rand.NewPCG(seed, 5)), now: time.Unix(1_000_000, 0).UTC(), cfg: DefaultConfig(),
		anchors: 3, late: 20 * time.Second,
	}
}

func (m *mesh) join(zone string, size int) *node {
	n := &node{size: size, planner: New(m.cfg)}
	n.Member = recruit.Member{Node: anchormesh.NodeID(fmt.Sprintf("n%02d", len(m.nodes)+1)), Alive: true, Since: m.now, Zone: zone}
	m.nodes = append(m.nodes, n)
	return n
}

// seed makes segments on the given nodes, led by the first.
func (m *mesh) seed(count int, load func(i int) uint64, on ...*node) {
	for i := range count {
		s := &segment{
			d: &anchormesh.Descriptor{Segment: anchormesh.SegmentID(len(m.segments) + 1), Generation: 1, NextReplica: 1}, load: load(i),
			leader: on[0].Node, ledSince: m.now, since: m.now,
			recruiter: recruit.New(recruit.DefaultConfig()), ready: make(map[anchormesh.ReplicaID]time.Time),
		}
		for _, n := range on {
			s.d.Anchors = append(s.d.Anchors, anchormesh.Anchor{Node: n.Node, Replica: s.d.NextReplica, Role: anchormesh.Voter, Zone: n.Zone})
			s.d.NextReplica++
		}
		m.segments = append(m.segments, s)
	}
}

func (m *mesh) node(id anchormesh.NodeID) *node {
	for _, n := range m.nodes {
		if n.Node == id {
			return n
		}
	}
	return nil
}

func (m *mesh) alive(n *node, alive bool) {
	n.Alive, n.Since, n.died = alive, m.now, m.now
	if alive {
		n.planner = New(m.cfg)
	}
}

// own is what a node says of itself.
func (m *mesh) own(n *node) Node {
	out := Node{Member: n.Member, Leaving: n.leaving, Heard: m.now}
	for _, s := range m.segments {
		if _, has := s.d.AnchorOn(n.Node); has {
			out.Replicas++
		}
		if s.leader == n.Node {
			out.Leaders++
			out.Load += s.load
		}
	}
	out.Room = uint32(max(n.size-out.Replicas, 0))
	return out
}

// sees is the world as a node knows it: each other node as it was some time ago.
func (m *mesh) sees(n *node) []Node {
	var out []Node
	for i, o := range m.nodes {
		if len(o.past) == 0 {
			continue
		}
		if o == n {
			out = append(out, n.current)
			continue
		}
		late := int((m.late / tick)) * ((i*7+int(m.now.Unix()/30)*3+len(n.Node))%5 + 1) / 5
		seen := o.past[max(len(o.past)-1-late, 0)]
		// Deaths are seen after ten seconds.
		if m.now.Sub(o.Since) >= 10*time.Second {
			seen.Alive, seen.Since = o.Alive, o.Since
		} else {
			seen.Alive = !o.Alive
		}
		out = append(out, seen)
	}
	return out
}

func (m *mesh) run(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); {
		m.now = m.now.Add(tick)
		m.summarize()
		for _, s := range m.segments {
			m.settle(s)
		}
		for _, n := range m.nodes {
			if n.Alive {
				m.act(n)
			}
		}
	}
}

// summarize notes what every node says of itself.
func (m *mesh) summarize() {
	by := make(map[anchormesh.NodeID]*Node, len(m.nodes))
	for _, n := range m.nodes {
		n.current = Node{Member: n.Member, Leaving: n.leaving, Heard: m.now}
		by[n.Node] = &n.current
	}
	for _, s := range m.segments {
		for _, a := range s.d.Anchors {
			by[a.Node].Replicas++
		}
		if s.leader != "" {
			by[s.leader].Leaders++
			by[s.leader].Load += s.load
		}
	}
	for _, n := range m.nodes {
		n.current.Room = uint32(max(n.size-n.current.Replicas, 0))
		if n.Alive {
			n.past = append(n.past[max(len(n.past)-10, 0):], n.current)
		}
	}
}

// settle applies what is pending and elects.
func (m *mesh) settle(s *segment) {
	up, voters := []anchormesh.NodeID{}, s.d.Voters()
	for _, a := range voters {
		if m.node(a.Node).Alive {
			up = append(up, a.Node)
		}
	}
	if 2*len(up) <= len(voters) {
		s.leader = ""
		return
	}
	if s.leader == "" || !m.node(s.leader).Alive {
		m.lead(s, up[m.rng.IntN(len(up))])
	}
	if e := s.pending; e != nil {
		s.pending = nil
		m.apply(s, *e)
	}
}

func (m *mesh) lead(s *segment, to anchormesh.NodeID) {
	s.leader, s.ledSince, s.since = to, m.now, m.now
	s.recruiter, s.wish, s.invited, s.pending = recruit.New(recruit.DefaultConfig()), nil, nil, nil
}

// act is what a node does for the segments it leads.
func (m *mesh) act(n *node) {
	w := World{Self: n.Node, Nodes: m.sees(n), Orders: m.orders}
	led := make(map[anchormesh.SegmentID]*segment)
	members := make([]recruit.Member, len(w.Nodes))
	for i, o := range w.Nodes {
		if members[i] = o.Member; o.Leaving {
			members[i].Room = 0
		}
	}
	for _, s := range m.segments {
		if s.leader != n.Node {
			continue
		}
		// A group at rest, with nothing wanted of it, is looked at twice a minute.
		if s.wish != nil || s.pending != nil || len(s.invited) > 0 || !m.whole(s) || (int(m.now.Unix())/int(tick.Seconds())+int(s.d.Segment))%3 == 0 {
			m.recruit(n, s, &w, members)
		}
		led[s.d.Segment] = s
		w.Segments = append(w.Segments, Segment{
			Descriptor: s.d, Degraded: s.degraded, Load: s.load, Since: s.since, Child: s.child,
		})
		s.wish = nil
	}
	for _, mv := range n.planner.Step(m.now, w).Moves {
		s := led[mv.Segment]
		if mv.Kind == Transfer {
			m.check(s, "transfer")
			m.transfers++
			m.lastMove = m.now
			m.lead(s, mv.To)
			continue
		}
		s.wish, s.cause = mv.Wish(), mv.Cause
	}
}

// whole reports whether the group has its voters, and all of them are up.
func (m *mesh) whole(s *segment) bool {
	return s.degraded == "" && len(s.d.Anchors) == m.anchors && m.now.Sub(s.since) > time.Minute &&
		!slices.ContainsFunc(s.d.Anchors, func(a anchormesh.Anchor) bool { return !m.node(a.Node).Alive })
}

// recruit steps a segment's recruiter and carries its effects out.
func (m *mesh) recruit(n *node, s *segment, w *World, members []recruit.Member) {
	for _, to := range s.invited {
		yes := m.asked(s, to, s.wish != nil && s.wish.To == to && s.wish.Balance)
		if s.recruiter.Answer(m.now, to, yes); !yes {
			m.declined++
			n.planner.Declined(m.now, s.d.Segment, to)
		}
	}
	s.invited = nil
	situation := recruit.Situation{
		Descriptor: s.d, Policy: recruit.Policy{Anchors: m.anchors, ReplaceAfter: time.Minute}, Self: n.Node,
		Leading: true, LeaderSince: s.ledSince, Commit: 1000, Members: members, Move: s.wish,
	}
	for _, a := range s.d.Anchors {
		p := recruit.Progress{Replica: a.Replica, Match: 1000, LastContact: m.now}
		if o := m.node(a.Node); !o.Alive {
			p.LastContact = o.died
		}
		if m.now.Before(s.ready[a.Replica]) {
			p.Match = 0
		}
		situation.Progress = append(situation.Progress, p)
	}
	plan := s.recruiter.Step(m.now, situation)
	s.degraded = plan.Degraded
	for _, e := range plan.Effects {
		if e.Kind == recruit.Invite {
			s.invited = append(s.invited, e.Node)
			continue
		}
		s.pending, s.moving = &e, 0
		if s.wish != nil && e.Why == s.wish.Why && e.Kind == recruit.Change {
			s.moving = s.cause
		}
	}
}

// asked is a node's answer to an invitation.
func (m *mesh) asked(s *segment, to anchormesh.NodeID, optional bool) bool {
	n := m.node(to)
	if !n.Alive {
		return false
	}
	own, installing := m.own(n), 0
	here := map[anchormesh.SegmentID]bool{}
	for _, o := range m.segments {
		if a, has := o.d.AnchorOn(to); has {
			here[o.d.Segment] = true
			if m.now.Before(o.ready[a.Replica]) {
				installing++
			}
		}
	}
	yes, _ := recruit.Accept(recruit.Load{
		Leaving: n.leaving, Replicas: own.Replicas, ReplicasMax: n.size, Installing: installing, InstallingMax: 2,
		Promised: n.promises.Count(m.now, s.d.Segment, func(id anchormesh.SegmentID) bool { return here[id] }),
		Even:     Even(m.cfg, m.now, m.sees(n), to), FreeBytes: 1,
	}, recruit.Invitation{Segment: s.d.Segment, Optional: optional})
	if yes {
		n.promises.Give(s.d.Segment, m.now.Add(20*time.Second))
	}
	return yes
}

// apply does to the descriptor what the log would, and counts.
func (m *mesh) apply(s *segment, e recruit.Effect) {
	if e.Kind == recruit.AddLearner {
		if m.node(e.Node).Alive {
			s.ready[s.d.NextReplica] = m.now.Add(time.Duration(5+m.rng.IntN(20)) * time.Second)
			s.d = s.d.Clone()
			s.d.Anchors = append(s.d.Anchors, anchormesh.Anchor{Node: e.Node, Replica: s.d.NextReplica, Role: anchormesh.Learner, Zone: e.Zone})
			s.d.NextReplica++
		}
		return
	}
	before := zoneCost(s.d, 0, nil)
	if s.moving != 0 {
		m.check(s, "replace")
		m.moves++
		m.causes[s.moving]++
		m.lastMove = m.now
	}
	s.d = s.d.Clone()
	s.d.Anchors = slices.DeleteFunc(s.d.Anchors, func(a anchormesh.Anchor) bool { return slices.Contains(e.Remove, a.Replica) })
	for i := range s.d.Anchors {
		if slices.Contains(e.Promote, s.d.Anchors[i].Replica) {
			s.d.Anchors[i].Role = anchormesh.Voter
		}
	}
	s.since, s.child = m.now, false
	if after := zoneCost(s.d, 0, nil); s.moving > ByDrain && after > before && m.broken == nil {
		m.broken = fmt.Errorf("%v: segment %v moved for %v from zones that cost %d to %d", m.elapsed(), s.d.Segment, s.moving, before, after)
	}
}

// check sees that nothing optional happens to a group with a dead voter, as far
// as its leader can know, or with a voter too few for its size.
func (m *mesh) check(s *segment, what string) {
	for _, a := range s.d.Voters() {
		n := m.node(a.Node)
		if !n.Alive && m.now.Sub(n.died) > recruit.DefaultConfig().ContactWithin+tick && m.broken == nil {
			m.broken = fmt.Errorf("%v: %s of segment %v while voter %d on %s is dead", m.elapsed(), what, s.d.Segment, a.Replica, a.Node)
		}
	}
}

func (m *mesh) elapsed() time.Duration { return m.now.Sub(time.Unix(1_000_000, 0)) }

// table shows every node as it is.
func (m *mesh) table() string {
	var b strings.Builder
	for _, n := range m.nodes {
		o, state := m.own(n), ""
		if !n.Alive {
			state = " dead"
		}
		if n.leaving {
			state += " leaves"
		}
		fmt.Fprintf(&b, "  %s %-2s replicas %4d %-24s leads %3d load %5d %s%s\n", n.Node, n.Zone, o.Replicas, bar(o.Replicas, m.most(func(n Node) int { return n.Replicas })),
			o.Leaders, o.Load, bar(int(o.Load)+10*o.Leaders, m.most(func(n Node) int { return int(n.Load) + 10*n.Leaders })), state)
	}
	return b.String()
}

func (m *mesh) most(of func(Node) int) (most int) {
	for _, n := range m.nodes {
		most = max(most, of(m.own(n)))
	}
	return max(most, 1)
}

func bar(n, most int) string { return strings.Repeat("#", n*20/most) }

// uneven says how far the worst node is from its share of its zone's replicas (one
// replica more or less is no imbalance), and from the mean load led, in thousandths.
func (m *mesh) uneven() (replicas, leads int) {
	w := World{}
	for _, n := range m.nodes {
		if n.Alive {
			w.Nodes = append(w.Nodes, m.own(n))
		}
	}
	v := look(&m.cfg, m.now, &w)
	abs := func(x int64) int64 { return max(x, -x) }
	for _, n := range v.nodes {
		if n.Leaving {
			continue
		}
		zone := v.zone(n)
		replicas = max(replicas, int(max(abs(zone.surplus(n))-1000, 0)*1000/max(zone.even(n), 1)))
		leads = max(leads, int(abs(int64(v.score(n))-int64(v.mean))*1000/int64(max(v.mean, 1))))
	}
	return replicas, leads
}

// zonesMissed counts segments that could have their voters in more zones.
func (m *mesh) zonesMissed() (missed int) {
	zones := map[string]bool{}
	for _, n := range m.nodes {
		if n.Alive && !n.leaving {
			zones[n.Zone] = true
		}
	}
	for _, s := range m.segments {
		has := map[string]bool{}
		for _, a := range s.d.Voters() {
			has[a.Zone] = true
		}
		if len(has) < min(len(zones), len(s.d.Voters())) {
			missed++
		}
	}
	return missed
}
