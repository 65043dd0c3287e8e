package approvals

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/stamps"
)

// Approvals runs the approvals of a process.
type Approvals struct {
	node.Quiet
	p         *node.Process
	leaders   map[anchormesh.SegmentID]*leader
	approvers map[anchormesh.SegmentID]*approval.Approver
}

// write is a client's write on its way.
type write struct{ done func(consensus.Result) }

// leader is one segment that is led here.
type leader struct {
	a     *Approvals
	r     *node.ReplicaHere
	core  *approval.Leader[*write]
	state *machine.State // that the seat was taken from
}

// New returns a process's approvals.
func New(p *node.Process) node.Shell {
	return &Approvals{p: p, leaders: make(map[anchormesh.SegmentID]*leader), approvers: make(map[anchormesh.SegmentID]*approval.Approver)}
}

// At returns a process's approvals.
func At(p *node.Process) *Approvals { return node.Part[*Approvals](p) }

// Wants reports whether a command needs the approvals of a segment's voters.
func Wants(m *machine.Machine, command []byte) bool {
	_, wanted := m.State().Approvals()
	return wanted && keyspace.Writes(command)
}

// Submit takes a write for a segment that is led here.
func (a *Approvals) Submit(segment anchormesh.SegmentID, generation anchormesh.Generation, command []byte, done func(consensus.Result)) {
	l := a.leader(segment)
	if l == nil || l.core.Seat().Generation != generation {
		done(consensus.Result{Err: consensus.ErrDropped})
		return
	}
	if err := l.core.Submit(approval.Request[*write]{Command: command, Tag: &write{done}}); err != nil {
		done(consensus.Result{Err: err})
	}
	l.settle()
}

// Propose puts a write that takes a stamp into the log of a segment that is led here, with
// approvals if it needs them.
func (a *Approvals) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	if r := a.p.Host.Held[d.Segment]; r != nil && Wants(r.Machine, command) {
		a.Submit(d.Segment, d.Generation, command, done)
		return
	}
	stamps.LinesAt(a.p).Propose(d, command, done)
}

// Follows and Changed notice that a segment's leader, or its record, is another.
func (a *Approvals) Follows(g *node.Group) { a.look(g.Segment) }

// Changed implements node.Shell.
func (a *Approvals) Changed(_ *node.ReplicaHere, c machine.Change) {
	id := c.State.Descriptor.Segment
	a.p.After(a.p.Moment(), func() { a.look(id) })
}

func (a *Approvals) look(segment anchormesh.SegmentID) {
	if a.leaders[segment] == nil {
		return
	}
	if l := a.leader(segment); l != nil {
		l.settle()
	}
}

// leader returns the core of a segment that is led here, in the seat that holds now.
func (a *Approvals) leader(segment anchormesh.SegmentID) *leader {
	l, r, g := a.leaders[segment], a.p.Host.Held[segment], a.p.Groups[segment]
	leads := r != nil && g != nil && g.Leads()
	if l != nil && (!leads || l.r != r) {
		l.depose()
		l = nil
	}
	if !leads {
		return nil
	}
	state := r.Machine.State()
	threshold, wanted := state.Approvals()
	if !wanted || state.Frozen() {
		if l != nil {
			l.yield()
		}
		return nil
	}
	if l == nil {
		cfg := approval.DefaultConfig()
		cfg.BatchRequests = max(2, a.p.Mesh.Cfg.Mesh.BatchRequests)
		l = &leader{a: a, r: r, core: approval.NewLeader[*write](cfg)}
		a.leaders[segment] = l
	}
	seat, term := l.core.Seat(), g.Status.Term
	if l.state == state && seat.Term == term {
		return l
	}
	d := state.Descriptor
	if seat.Term != 0 && (seat.Term != term || seat.Generation != d.Generation) {
		l.core.Deposed()
	}
	l.state = state
	l.core.Lead(approval.Seat{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, Configuration: d.Changed, Term: term,
		Policy: d.Policy, Trust: state.Trust.Version(), Threshold: threshold, Voters: r.Machine.Electorate(),
	})
	return l
}

// yield gives back what waits, and keeps the core, whose sequences go on in this term.
func (l *leader) yield() {
	l.core.Deposed()
	l.settle()
}

// depose is yield, and forgets the core.
func (l *leader) depose() {
	delete(l.a.leaders, l.r.Machine.Descriptor().Segment)
	l.yield()
}

// settle carries out what the core wants.
func (l *leader) settle() {
	now := time.Unix(0, 0).Add(l.a.p.Mesh.K.Now())
	l.core.Tick(now)
	fx := l.core.Take(now)
	for i := range fx.Ready {
		l.propose(&fx.Ready[i])
	}
	for _, r := range fx.Refused {
		r.Tag.done(consensus.Result{Err: machine.RefusalOf(r.Verdict)})
	}
	for _, w := range fx.Back {
		w.done(consensus.Result{Err: fx.BackErr})
	}
	if fx.Show != nil {
		l.show(fx.Show)
	}
	if !fx.Next.IsZero() {
		l.a.p.After(max(fx.Next.Sub(now), time.Microsecond), l.settleIfLed)
	}
}

func (l *leader) settleIfLed() {
	if l.a.leaders[l.r.Machine.Descriptor().Segment] == l {
		l.settle()
	}
}

// show asks the voters.
func (l *leader) show(s *approval.Shown) {
	a, q := l.a, s.Question
	q.Index, _ = l.r.Machine.Segment().Applied()
	l.core.Judged(q.Sequence, q.Index)
	a.ask(&q, s, l.core.Seat().Voters.Voters(), func(by anchormesh.NodeID, vote *approval.Vote) {
		if a.leaders[q.Segment] == l && l.core.Seat().Term == q.Term {
			l.core.Voted(q.Sequence, by, vote)
			l.settle()
		}
	})
}

// ask puts a question to all voters; each is heard once, nil is an abstention.
func (a *Approvals) ask(q *approval.Question, s *approval.Shown, voters []trust.Weight, heard func(by anchormesh.NodeID, vote *approval.Vote)) {
	for _, v := range voters {
		if v.Node == a.p.ID {
			a.p.After(a.p.Moment(), func() { a.judge(q, s.Behind, s.Requests, func(vote *approval.Vote) { heard(v.Node, vote) }) })
			continue
		}
		a.p.Call(v.Node, func(p *node.Process, answer func(func())) {
			At(p).answer(a.p.ID, q, s, func(vote *approval.Vote) { answer(func() { heard(v.Node, vote) }) })
		}, func() { heard(v.Node, nil) })
	}
}

// propose puts a batch into the log, behind the stamps that its writes need.
func (l *leader) propose(r *approval.Ready[*write]) {
	batch := &approval.Batch{Question: r.Question, Votes: r.Votes, Slots: make([]approval.Slot, len(r.Requests))}
	admitted := 0
	doctored := l.a.p.Mesh.Cfg.Plant == plan.PlantDoctoredLeader || l.a.p.Mesh.Cfg.Plant == plan.PlantUnapproved
	for i := range r.Requests {
		if r.Verdicts[i].Admitted || doctored {
			batch.Slots[i].Bytes = r.Requests[i].Command
			admitted++
		} else {
			batch.Slots[i].Sum = r.Sums[i]
		}
	}
	if doctored {
		batch.Votes = nil
		for _, v := range l.core.Seat().Voters.Voters() {
			batch.Votes = append(batch.Votes, approval.Vote{Node: v.Node, Signature: []byte("mine")})
		}
	}
	done := func(res consensus.Result) { l.ended(r, res) }
	if l.state.Line != 0 {
		stamps.LinesAt(l.a.p).ProposeBatch(l.state.Descriptor, admitted, func(numbers []anchormesh.Revision) []byte {
			stamp(batch, numbers)
			return batch.Append([]byte{byte(machine.OpApproved)})
		}, done)
		return
	}
	l.a.p.Submit(r.Question.Segment, replica.Proposal{
		Generation: r.Question.Generation, Term: r.Question.Term, Alone: true,
		Payload: batch.Append([]byte{byte(machine.OpApproved)}), Done: done,
	})
}

// stamp puts the stamps in front of what was admitted.
func stamp(b *approval.Batch, numbers []anchormesh.Revision) {
	for i := range b.Slots {
		if s := &b.Slots[i]; s.Bytes != nil {
			s.Bytes, s.Prefix, numbers = stamps.Stamp(numbers[0], s.Bytes), keyspace.StampBytes, numbers[1:]
		}
	}
}

// ended tells the writers of a batch how it ended.
func (l *leader) ended(r *approval.Ready[*write], res replica.Result) {
	for i := range r.Requests {
		out := consensus.Result{Index: res.Index, Term: res.Term, Err: res.Err}
		if res.Err == nil {
			out.Response, out.Err = res.Parts[i].Response, res.Parts[i].Err
		}
		r.Requests[i].Tag.done(out)
	}
	l.a.p.After(l.a.p.Moment(), func() {
		if l.core.Term() == r.Question.Term {
			l.core.Ended(r.Question.Sequence, res.Err == nil)
			l.settle()
		}
	})
}
