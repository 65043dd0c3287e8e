package approvals

import (
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// ErrNotAgreed: too few anchors answered, or they refused; nothing has happened.
var ErrNotAgreed = errors.New("sim: the segment's anchors have not agreed")

// Agree is node/approvals's: it asks the voters of a segment led here about a change of its
// structure, and ends with the command and their votes.
func (a *Approvals) Agree(segment anchormesh.SegmentID, command []byte, done func([]byte, error)) {
	r, g := a.p.Host.Held[segment], a.p.Groups[segment]
	if r == nil || g == nil || !g.Leads() {
		done(nil, ErrNotAgreed)
		return
	}
	applied, _ := r.Machine.Segment().Applied()
	in := r.Machine.ActInForce(applied+1, g.Status.Term)
	q := approval.NewAct(approval.Question{
		Mesh: in.Mesh, Segment: in.Segment, Generation: in.Generation, Configuration: in.Configuration,
		Term: in.Term, Policy: in.Policy, Trust: in.Trust, Index: applied,
	}, command)
	switch a.p.Mesh.Cfg.Plant {
	case plan.PlantUnasked:
		done(command, nil)
		return
	case plan.PlantDoctoredAct, plan.PlantForgedAct:
		done(machine.Agreed(doctored(&in, q, command)), nil)
		return
	}
	poll, over := approval.NewPoll(&in), false
	end := func(command []byte, err error) {
		if !over {
			over = true
			done(command, err)
		}
	}
	left := len(in.Voters.Voters())
	a.ask(&q, &approval.Shown{Question: q, Requests: [][]byte{command}}, in.Voters.Voters(), func(_ anchormesh.NodeID, vote *approval.Vote) {
		left--
		if vote != nil {
			switch verdict, lost := poll.Count(vote); {
			case verdict.Admitted:
				end(machine.Agreed(poll.Batch(q, command)), nil)
			case lost:
				end(nil, fmt.Errorf("%w: %s", ErrNotAgreed, verdict.Refusal.Rule))
			}
		}
		if left == 0 {
			end(nil, ErrNotAgreed)
		}
	})
}

// doctored is an act with votes that a leader made up.
func doctored(in *approval.InForce, q approval.Question, command []byte) *approval.Batch {
	b := &approval.Batch{Question: q, Slots: []approval.Slot{{Bytes: command}}}
	for _, v := range in.Voters.Voters() {
		b.Votes = append(b.Votes, approval.Vote{Node: v.Node, Signature: []byte("mine")})
	}
	return b
}

// voteOnAct is this node's vote on a change of structure; nil is an abstention.
func (a *Approvals) voteOnAct(q *approval.Question, command []byte) *approval.Vote {
	m := a.p.Host.Held[q.Segment].Machine
	in := m.ActInForce(q.Index+1, q.Term)
	if !in.Holds(q) || in.Voters.Weight(a.p.ID) == 0 {
		return nil
	}
	v := &approval.Vote{Node: a.p.ID}
	if err := m.State().JudgeAct(command); err != nil {
		v.Refusals = []approval.Refusal{{Rule: err.Error()}}
	}
	v.Signature = a.p.Sign(q.Statement(v))
	return v
}
