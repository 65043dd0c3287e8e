package recruit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Recruiter is the core for one segment on its leader's node. What it remembers
// is its invitations and since when a learner is too many; both are lost with
// leadership, at no harm.
type Recruiter struct {
	config  Config
	asked   map[anchormesh.NodeID]invited
	surplus time.Time              // since when there is a learner too many; zero: there is none
	parting []anchormesh.ReplicaID // learners that were voters and go next
}

// invited is where an invitation stands until it is forgotten.
type invited struct {
	state invitation
	until time.Time
}

type invitation uint8

const (
	waiting invitation = iota + 1
	accepted
	resting // declined or silent: not asked again for a while
)

// New returns a Recruiter; config must be valid.
func New(config Config) *Recruiter {
	return &Recruiter{config: config, asked: make(map[anchormesh.NodeID]invited)}
}

// Answer takes the reply to an invitation. A reply nobody waits for is ignored.
func (r *Recruiter) Answer(now time.Time, node anchormesh.NodeID, yes bool) {
	if r.asked[node].state != waiting {
		return
	}
	if yes {
		r.asked[node] = invited{accepted, now.Add(r.config.InviteTimeout)}
	} else {
		r.asked[node] = invited{resting, now.Add(r.config.RetryAfter)}
	}
}

// Step says what to do now. It is called whenever something of the situation
// changed, and about once a second; asking twice in the same situation gives the
// same proposals and no second invitation.
func (r *Recruiter) Step(now time.Time, s Situation) Plan {
	if !s.Leading {
		clear(r.asked)
		r.surplus, r.parting = time.Time{}, nil
		return Plan{Status: "not the leader", Degraded: "not the leader"}
	}
	g := survey(now, r.config, &s)
	if !g.majority() {
		const status = "no majority of the voters is in contact: nothing can be changed"
		return Plan{Status: status, Degraded: status}
	}
	r.expire(now, &g)
	need, mv := g.need(), g.move(&s)
	p := Plan{Status: g.status(), Degraded: g.sick()}
	p.Effects = r.invite(now, s.Descriptor.Segment, &g, need)
	if mv != nil {
		p.Status += mv.status()
		p.Effects = append(p.Effects, r.inviteMoved(now, &g, mv)...)
	}
	if s.Pending {
		p.Degraded = "a change of the anchors is under way"
		return p
	}
	if e, ok := r.change(now, &g, need, mv); ok {
		p.Effects = append(p.Effects, e)
	}
	return p
}

// change is the one change to propose, most urgent first.
func (r *Recruiter) change(now time.Time, g *group, need int, mv *moving) (Effect, bool) {
	for _, try := range []func() (Effect, bool){
		g.dropForgetful, g.swap, g.shrink, g.release, g.grow, g.dropDeadLearner,
		func() (Effect, bool) { return r.dropParting(g, need) },
		func() (Effect, bool) { return r.seatAccepted(g, need) },
		mv.finish,
		func() (Effect, bool) { return r.seatMoved(g, mv) },
		func() (Effect, bool) { return r.dropSurplus(now, g, need, mv) },
	} {
		if e, ok := try(); ok {
			if len(e.Demote) > 0 {
				r.parting = e.Demote
			}
			return e, true
		}
	}
	return Effect{}, false
}

// excess is how many dead voters may go without replacement: those above the size
// wanted, as long as an odd number stays.
func (g *group) excess() int {
	n := min(len(g.dead()), len(g.voters)-g.want)
	if n > 0 && (len(g.voters)-n)%2 == 0 {
		n--
	}
	return max(n, 0)
}

// step is how many votes the next growth adds: to the next odd number.
func (g *group) step() int {
	if len(g.voters) >= g.want {
		return 0
	}
	return 1 + len(g.voters)%2
}

// need is how many learners the next changes take.
func (g *group) need() int {
	if dead := len(g.dead()); dead > 0 {
		if len(g.voters) > g.want {
			return 0 // dead ones leave without replacement
		}
		return dead
	}
	return g.step()
}

// ready returns up to n learners that may get a vote, spread over zones.
func (g *group) ready(n int) (out []anchormesh.ReplicaID) {
	zones := make(map[string]int)
	for _, t := range g.voters {
		if !t.dead {
			zones[t.Zone]++
		}
	}
	left := slices.DeleteFunc(slices.Clone(g.learners), func(t seat) bool { return !t.ready })
	for ; n > 0 && len(left) > 0; n-- {
		best := slices.MinFunc(left, func(a, b seat) int {
			return cmp.Or(cmp.Compare(zones[a.Zone], zones[b.Zone]), cmp.Compare(a.Replica, b.Replica))
		})
		zones[best.Zone]++
		out = append(out, best.Replica)
		left = slices.DeleteFunc(left, func(t seat) bool { return t.Replica == best.Replica })
	}
	slices.Sort(out)
	return out
}

// swap replaces the voter that is dead longest by a learner that is ready.
func (g *group) swap() (Effect, bool) {
	dead, ready := g.dead(), g.ready(1)
	if len(dead) == 0 || len(ready) == 0 || len(g.voters) > g.want {
		return Effect{}, false
	}
	worst := slices.MaxFunc(dead, func(a, b seat) int {
		return cmp.Or(cmp.Compare(a.silent, b.silent), cmp.Compare(b.Replica, a.Replica))
	})
	e := Effect{Kind: Change, Promote: ready, Remove: []anchormesh.ReplicaID{worst.Replica}}
	e.Why = fmt.Sprintf("voter %d on %s was silent for %v: learner %d takes its place",
		worst.Replica, worst.Node.Short(), worst.silent.Round(time.Second), ready[0])
	return e, g.electable(e.Remove, e.Promote)
}

// dropForgetful drops the replicas that may have forgotten something, all at once. Who
// counts for nothing costs nothing by going, and its node can be invited then.
func (g *group) dropForgetful() (Effect, bool) {
	e := Effect{Kind: Change}
	voters := 0
	for _, t := range slices.Concat(g.voters, g.learners) {
		if t.forgot {
			e.Remove = append(e.Remove, t.Replica)
			if t.Role == anchormesh.Voter {
				voters++
			}
		}
	}
	e.Why = fmt.Sprintf("replicas %v may have forgotten what they acknowledged: they go", e.Remove)
	contact := count(g.voters, func(t seat) bool { return t.contact })
	return e, len(e.Remove) > 0 && 2*contact > len(g.voters)-voters
}

// shrink drops dead voters above the size wanted.
func (g *group) shrink() (Effect, bool) {
	n := g.excess()
	if n == 0 {
		return g.shrinkWithOne()
	}
	e := Effect{Kind: Change, Why: fmt.Sprintf("%d voters, %d wanted: dead ones go", len(g.voters), g.want)}
	for _, t := range g.dead()[:n] {
		e.Remove = append(e.Remove, t.Replica)
	}
	return e, g.electable(e.Remove, nil)
}

// shrinkWithOne drops a dead voter above the size wanted that would leave an even number,
// and with it a living one: nobody replaces the dead one, and the group would be degraded
// until another died. All others must be well, and the leader stays.
func (g *group) shrinkWithOne() (Effect, bool) {
	dead := g.dead()
	if len(dead) != 1 || len(g.voters) < g.want+2 {
		return Effect{}, false
	}
	left := slices.DeleteFunc(slices.Clone(g.voters), func(t seat) bool { return t.dead || t.Node == g.self })
	if len(left) == 0 || count(left, func(t seat) bool { return t.contact && t.ready && !t.forgot }) < len(left) {
		return Effect{}, false
	}
	zones := g.zones()
	also := slices.MaxFunc(left, func(a, b seat) int {
		return cmp.Or(cmp.Compare(zones[a.Zone], zones[b.Zone]), cmp.Compare(a.Replica, b.Replica))
	})
	e := Effect{Kind: Change, Remove: []anchormesh.ReplicaID{dead[0].Replica, also.Replica}}
	e.Why = fmt.Sprintf("%d voters, %d wanted: the dead one goes, and one more", len(g.voters), g.want)
	slices.Sort(e.Remove)
	return g.gently(e), true
}

// release takes the votes of living voters above the size wanted, of a group that is
// well: the leader stays, and as many zones as can.
func (g *group) release() (Effect, bool) {
	n := len(g.voters) - g.want
	if n <= 0 || g.sick() != "" {
		return Effect{}, false
	}
	zones := g.zones()
	left := slices.DeleteFunc(slices.Clone(g.voters), func(t seat) bool { return t.Node == g.self })
	e := Effect{Kind: Change, Why: fmt.Sprintf("%d voters, %d wanted", len(g.voters), g.want)}
	for ; n > 0 && len(left) > 0; n-- {
		next := slices.MaxFunc(left, func(a, b seat) int {
			return cmp.Or(cmp.Compare(zones[a.Zone], zones[b.Zone]), cmp.Compare(a.Replica, b.Replica))
		})
		zones[next.Zone]--
		e.Remove = append(e.Remove, next.Replica)
		left = slices.DeleteFunc(left, func(t seat) bool { return t.Replica == next.Replica })
	}
	slices.Sort(e.Remove)
	return g.gently(e), n == 0
}

// gently lets living voters that are to go become learners first, where those that stay
// are no majority of all. Whoever has to elect before it knows that the change is
// committed, after a power cut, needs a majority of both sides, and a replica that goes
// forgets everything. Learners vote. Once they go, the log of all that stay says so.
func (g *group) gently(e Effect) Effect {
	if 2*(len(g.voters)-len(e.Remove)) > len(g.voters) {
		return e
	}
	for _, t := range g.voters {
		if slices.Contains(e.Remove, t.Replica) && !t.dead {
			e.Demote = append(e.Demote, t.Replica)
		}
	}
	e.Remove = slices.DeleteFunc(e.Remove, func(id anchormesh.ReplicaID) bool { return slices.Contains(e.Demote, id) })
	slices.Sort(e.Demote)
	return e
}

// grow gives learners their votes, so many at once that the number stays odd.
func (g *group) grow() (Effect, bool) {
	n := g.step()
	if n == 0 || len(g.dead()) > 0 {
		return Effect{}, false
	}
	ready := g.ready(n)
	if len(ready) < n {
		return Effect{}, false
	}
	why := fmt.Sprintf("learners caught up: from %d to %d voters of %d wanted", len(g.voters), len(g.voters)+n, g.want)
	return Effect{Kind: Change, Promote: ready, Why: why}, true
}

func (g *group) dropDeadLearner() (Effect, bool) {
	for _, t := range g.learners {
		if t.dead {
			why := fmt.Sprintf("learner %d on %s was silent for %v", t.Replica, t.Node.Short(), t.silent.Round(time.Second))
			return Effect{Kind: Change, Remove: []anchormesh.ReplicaID{t.Replica}, Why: why}, true
		}
	}
	return Effect{}, false
}

// seatAccepted adds a node that accepted, if learners still lack.
func (r *Recruiter) seatAccepted(g *group, need int) (Effect, bool) {
	if len(g.learners) >= need {
		return Effect{}, false
	}
	for _, m := range g.candidates {
		if r.asked[m.Node].state == accepted {
			why := fmt.Sprintf("node %s accepted: it becomes a learner", m.Node.Short())
			return Effect{Kind: AddLearner, Node: m.Node, Zone: m.Zone, Why: why}, true
		}
	}
	return Effect{}, false
}

// dropParting removes the learners that gave their votes up, if no vote lacks by now.
// After a change of leaders they are surplus as any other.
func (r *Recruiter) dropParting(g *group, need int) (Effect, bool) {
	e := Effect{Kind: Change}
	for _, t := range g.learners {
		if slices.Contains(r.parting, t.Replica) {
			e.Remove = append(e.Remove, t.Replica)
		}
	}
	e.Why = fmt.Sprintf("learners %v have given their votes up: they go", e.Remove)
	return e, need == 0 && len(e.Remove) > 0
}

// dropSurplus removes the newest learner if there was one too many for long. The
// one that a move brought is not too many while the move is wanted.
func (r *Recruiter) dropSurplus(now time.Time, g *group, need int, mv *moving) (Effect, bool) {
	spare := g.learners
	if mv != nil {
		spare = slices.DeleteFunc(slices.Clone(spare), func(t seat) bool { return t.Node == mv.To })
	}
	if len(spare) <= need {
		r.surplus = time.Time{}
		return Effect{}, false
	}
	if r.surplus.IsZero() {
		r.surplus = now
	}
	if now.Sub(r.surplus) < r.config.SurplusAfter {
		return Effect{}, false
	}
	t := spare[len(spare)-1]
	why := fmt.Sprintf("learner %d on %s was not needed for %v", t.Replica, t.Node.Short(), r.config.SurplusAfter)
	return Effect{Kind: Change, Remove: []anchormesh.ReplicaID{t.Replica}, Why: why}, true
}

// expire moves invitations on as time passes, and forgets those of nodes that
// became anchors.
func (r *Recruiter) expire(now time.Time, g *group) {
	for _, t := range slices.Concat(g.voters, g.learners) {
		delete(r.asked, t.Node)
	}
	for _, node := range slices.Sorted(maps.Keys(r.asked)) {
		in := r.asked[node]
		switch {
		case now.Before(in.until):
		case in.state == waiting:
			r.asked[node] = invited{resting, now.Add(r.config.RetryAfter)}
		default:
			delete(r.asked, node)
		}
	}
}

// invite asks as many nodes as learners lack, best first.
func (r *Recruiter) invite(now time.Time, segment anchormesh.SegmentID, g *group, need int) (out []Effect) {
	zones := g.zones()
	lack := need - len(g.learners)
	var free []Member
	for _, m := range g.candidates {
		switch r.asked[m.Node].state {
		case waiting, accepted:
			lack--
			zones[m.Zone]++
		case resting:
		default:
			free = append(free, m)
		}
	}
	free = g.inZones(free, zones)
	for _, m := range pick(segment, free, zones, lack) {
		r.asked[m.Node] = invited{waiting, now.Add(r.config.InviteTimeout)}
		why := fmt.Sprintf("%d of %d learners", len(g.learners), need)
		out = append(out, Effect{Kind: Invite, Node: m.Node, Why: why})
	}
	return out
}

// inZones keeps the candidates with which a group that lacks so many learners can still
// reach the zones that it wants: where every place is needed for another zone, only
// those that bring one. In the place of a dead voter any is better than none.
func (g *group) inZones(free []Member, zones map[string]int) []Member {
	have := 0
	for _, n := range zones {
		if n > 0 {
			have++
		}
	}
	if missing := g.wantZones - have; missing <= 0 || len(g.dead()) > 0 || g.want-len(g.voters)-len(g.learners) > missing {
		return free
	}
	seen := make(map[string]bool)
	return slices.DeleteFunc(free, func(m Member) bool {
		old := zones[m.Zone] > 0 || seen[m.Zone]
		seen[m.Zone] = true
		return old
	})
}

// status says in one sentence how the group stands.
func (g *group) status() string {
	dead := g.dead()
	have := fmt.Sprintf("%d of %d voters", len(g.voters), g.want)
	if n := len(g.learners); n > 0 {
		have += fmt.Sprintf(", %d learner", n)
		if n > 1 {
			have += "s"
		}
	}
	if len(dead) > 0 {
		have += fmt.Sprintf(", %d dead", len(dead))
	}
	lack := g.need() - len(g.learners)
	switch {
	case lack > 0 && len(g.candidates) < lack:
		return have + fmt.Sprintf(": waiting for nodes, %d more needed", lack-len(g.candidates))
	case lack > 0:
		return have + ": recruiting"
	case g.need() > 0:
		return have + ": waiting for learners to catch up"
	}
	return have
}
