package approvals

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// ErrNotAgreed says that too few anchors answered, or that the segment changed meanwhile:
// nothing has happened, and they may be asked again.
var ErrNotAgreed = errors.New("the segment's anchors have not agreed yet")

// Agree asks the voters of a segment that this node leads about a change of its
// structure, in one round, and returns the command with their votes. The errors are
// machine.ErrRefused, with the rule and the anchor, and ErrNotAgreed.
func (a *Approvals) Agree(ctx context.Context, segment anchormesh.SegmentID, command []byte) ([]byte, error) {
	r, here := a.replicas.Get(segment)
	st, ok := a.engine.Status(segment)
	if !here || !ok || !st.Leads() {
		return nil, fmt.Errorf("%w: this node does not lead segment %s", ErrNotAgreed, segment)
	}
	applied, _ := r.Machine.Segment().Applied()
	in := r.Machine.ActInForce(applied+1, st.Term)
	q := approval.NewAct(approval.Question{
		Mesh: in.Mesh, Segment: in.Segment, Generation: in.Generation, Configuration: in.Configuration,
		Term: in.Term, Policy: in.Policy, Trust: in.Trust, Index: applied,
	}, command)
	poll := approval.NewPoll(&in)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Core.Patience)
	defer cancel()
	votes := a.poll(ctx, r, &q, in.Voters.Voters(), command)
	var last error
	for range in.Voters.Voters() {
		v := <-votes
		if v.err != nil {
			last = v.err
			continue
		}
		switch verdict, lost := poll.Count(v.vote); {
		case verdict.Admitted:
			return machine.Agreed(poll.Batch(q, command)), nil
		case lost:
			return nil, fmt.Errorf("%w: %s (refused by anchor %s)", machine.ErrRefused, verdict.Refusal.Rule, verdict.By)
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrNotAgreed, last)
}

// ballot is one voter's answer.
type ballot struct {
	vote *approval.Vote
	err  error
}

// poll asks all voters at once; each answers once.
func (a *Approvals) poll(ctx context.Context, r *host.Replica, q *approval.Question, voters []trust.Weight, command []byte) <-chan ballot {
	out := make(chan ballot, len(voters))
	shown := &approval.Shown{Question: *q, Requests: [][]byte{command}}
	body := approval.AppendQuestion(binary.AppendUvarint(nil, 0), q, shown.Requests)
	for _, v := range voters {
		go func() {
			vote, err := a.ask(ctx, v.Node, r, q, shown, body)
			out <- ballot{vote, err}
		}()
	}
	return out
}

// judgeAct signs this node's vote on a change of structure.
func (a *Approvals) judgeAct(ctx context.Context, r *host.Replica, q *approval.Question, command []byte) (*approval.Vote, error) {
	if err := a.reach(ctx, r, q, 0); err != nil {
		return nil, err
	}
	in := r.Machine.ActInForce(q.Index+1, q.Term)
	if !in.Holds(q) {
		return nil, approval.ErrStale
	}
	if in.Voters.Weight(a.cfg.Self) == 0 {
		return nil, errNoVote
	}
	v := &approval.Vote{Node: a.cfg.Self}
	if err := r.Machine.State().JudgeAct(command); err != nil {
		v.Refusals = []approval.Refusal{refused(0, err)}
	}
	statement := q.Statement(v)
	var err error
	if v.Signature, err = a.cfg.Sign(statement); err == nil {
		a.cfg.Verifier.Made(v.Node, statement, v.Signature)
	}
	return v, err
}
