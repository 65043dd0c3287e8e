package approvals

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// leader is one segment that this node leads. Its methods run on the goroutine of Run.
type leader struct {
	a       *Approvals
	replica *host.Replica
	core    *approval.Leader[*write]
	state   *machine.State // that the seat was taken from
	since   time.Time      // the batch that is shown
}

// leader returns the core of a segment that is led here, in the seat that holds now; nil
// if it is not led, or its policy wants no approvals any more.
func (a *Approvals) leader(now time.Time, segment anchormesh.SegmentID) *leader {
	l := a.leaders[segment]
	r, here := a.replicas.Get(segment)
	st, ok := a.engine.Status(segment)
	if l != nil && (!here || !ok || !st.Leads() || l.replica != r) {
		l.depose(now)
		l = nil
	}
	if !here || !ok || !st.Leads() {
		return nil
	}
	state := r.Machine.State()
	threshold, wanted := state.Approvals()
	if !wanted || state.Frozen() {
		l.yield(now)
		return nil
	}
	if l == nil {
		l = &leader{a: a, replica: r, core: approval.NewLeader[*write](a.cfg.Core)}
		a.leaders[segment] = l
	}
	a.stirred[l] = true
	seat := l.core.Seat()
	if l.state == state && seat.Term == st.Term {
		return l
	}
	d := state.Descriptor
	if seat.Term != 0 && (seat.Term != st.Term || seat.Generation != d.Generation) {
		l.core.Deposed() // what waits was meant for what the segment was
	}
	l.state = state
	l.core.Lead(approval.Seat{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, Configuration: d.Changed, Term: st.Term,
		Policy: d.Policy, Trust: state.Trust.Version(), Threshold: threshold, Voters: r.Machine.Electorate(),
	})
	return l
}

// yield gives back what waits. The core stays: the segment may want it again in the same term,
// and sequences must not begin anew in one.
func (l *leader) yield(now time.Time) {
	if l == nil {
		return
	}
	l.core.Deposed()
	l.carryOut(now)
}

// depose is yield, and forgets the core.
func (l *leader) depose(now time.Time) {
	if l == nil {
		return
	}
	l.yield(now)
	delete(l.a.stirred, l)
	for segment, other := range l.a.leaders {
		if other == l {
			delete(l.a.leaders, segment)
		}
	}
}

// carryOut does what the core wants.
func (l *leader) carryOut(now time.Time) (next time.Time) {
	fx := l.core.Take(now)
	for i := range fx.Ready {
		l.propose(now, &fx.Ready[i])
	}
	for _, r := range fx.Refused {
		r.Tag.done(consensus.Result{Err: machine.RefusalOf(r.Verdict)})
	}
	if n := len(fx.Refused); n > 0 {
		l.a.decided(n, n, now.Sub(l.since))
	}
	if n := len(fx.Back); n > 0 {
		if f := l.a.cfg.Listener.Thrown; f != nil {
			f(n)
		}
		for _, w := range fx.Back {
			w.done(consensus.Result{Err: translate(fx.BackErr)})
		}
	}
	if fx.Show != nil {
		l.since = now
		l.show(fx.Show)
	}
	return fx.Next
}

func (a *Approvals) decided(requests, refused int, took time.Duration) {
	if f := a.cfg.Listener.Decided; f != nil {
		f(requests, refused, took)
	}
}

// show asks the voters.
func (l *leader) show(s *approval.Shown) {
	a, q := l.a, s.Question
	q.Index, _ = l.replica.Machine.Segment().Applied()
	l.core.Judged(q.Sequence, q.Index)
	body := approval.AppendQuestion(binary.AppendUvarint(nil, s.Behind), &q, s.Requests)
	for _, v := range l.core.Seat().Voters.Voters() {
		go func() {
			vote, err := a.ask(context.Background(), v.Node, l.replica, &q, s, body)
			if err != nil {
				a.cfg.Logger.Debug("an anchor does not vote", "segment", q.Segment, "node", v.Node.Short(),
					"sequence", q.Sequence, "err", err)
			}
			a.do(func(time.Time) {
				if a.leaders[q.Segment] == l && l.core.Seat().Term == q.Term {
					a.stirred[l] = true
					l.core.Voted(q.Sequence, v.Node, vote)
				}
			})
		}()
	}
}

// ask returns a voter's verified vote.
func (a *Approvals) ask(ctx context.Context, node anchormesh.NodeID, r *host.Replica, q *approval.Question, s *approval.Shown, body []byte) (*approval.Vote, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Core.Patience)
	defer cancel()
	if node == a.cfg.Self {
		return a.judge(ctx, r, q, s.Behind, s.Requests)
	}
	answer, err := a.caller.Call(ctx, node, Method, body)
	if err != nil {
		return nil, err
	}
	v, err := approval.ParseVote(answer)
	if err == nil {
		v.Node = node
		if !a.cfg.Verifier.Verify(node, q.Statement(v), v.Signature) {
			err = approval.ErrForged
		}
	}
	if err != nil {
		if f := a.cfg.Listener.Invalid; f != nil {
			f(q.Segment, node)
		}
		return nil, err
	}
	return v, nil
}

// propose puts a batch into the log, behind the stamps that its writes need.
func (l *leader) propose(now time.Time, r *approval.Ready[*write]) {
	batch := &approval.Batch{Question: r.Question, Votes: r.Votes, Slots: make([]approval.Slot, len(r.Requests))}
	admitted, bytes := 0, 0
	for i := range r.Requests {
		if r.Verdicts[i].Admitted {
			batch.Slots[i].Bytes = r.Requests[i].Command
			admitted++
			bytes += len(r.Requests[i].Command) + keyspace.StampBytes
		} else {
			batch.Slots[i].Sum = r.Sums[i]
		}
	}
	l.a.decided(len(r.Requests), len(r.Requests)-admitted, now.Sub(l.since))
	buf := make([]byte, 0, 512+16*len(r.Requests)+bytes+256*len(r.Votes))
	done := func(res consensus.Result) { l.ended(r, res) }
	d := l.state.Descriptor // as of the question: else the entry takes effect nowhere
	if l.state.Line != 0 {
		l.a.lines.ProposeBatch(d, admitted, func(stamps []anchormesh.Revision) []byte {
			stamp(batch, stamps)
			return batch.Append(append(buf, byte(machine.OpApproved)))
		}, done)
		return
	}
	l.a.engine.Submit(d.Segment, consensus.Proposal{
		Generation: r.Question.Generation, Term: r.Question.Term, Alone: true,
		Payload: batch.Append(append(buf, byte(machine.OpApproved))), Done: done,
	})
}

// stamp puts the stamps in front of what was admitted.
func stamp(b *approval.Batch, stamps []anchormesh.Revision) {
	for i := range b.Slots {
		if s := &b.Slots[i]; s.Bytes != nil {
			s.Bytes = append(keyspace.AppendStamp(make([]byte, 0, keyspace.StampBytes+len(s.Bytes)), stamps[0]), s.Bytes...)
			s.Prefix, stamps = keyspace.StampBytes, stamps[1:]
		}
	}
}

// ended tells the writers of a batch how it ended. It runs on any goroutine.
func (l *leader) ended(r *approval.Ready[*write], res consensus.Result) {
	if res.Err == nil && len(res.Parts) != len(r.Requests) {
		panic("approvals: an entry gave outcomes for other requests")
	}
	if errors.Is(res.Err, approval.ErrForged) {
		l.a.cfg.Logger.Error("this leader's approved batch was refused in apply", "segment", r.Question.Segment,
			"sequence", r.Question.Sequence, "err", res.Err)
	}
	for i := range r.Requests {
		out := consensus.Result{Index: res.Index, Term: res.Term, Err: res.Err}
		if res.Err == nil {
			out.Response, out.Err = res.Parts[i].Response, res.Parts[i].Err
		}
		r.Requests[i].Tag.done(out)
	}
	l.a.do(func(time.Time) {
		if l.core.Term() == r.Question.Term {
			l.a.stirred[l] = true
			l.core.Ended(r.Question.Sequence, res.Err == nil)
		}
	})
}
