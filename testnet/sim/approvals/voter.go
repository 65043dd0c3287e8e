package approvals

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/keyspace/rules"
)

// answer votes for another node; nil is an abstention.
func (a *Approvals) answer(from anchormesh.NodeID, q *approval.Question, s *approval.Shown, done func(*approval.Vote)) {
	g := a.p.Groups[q.Segment]
	if g == nil || g.Status.Term > q.Term || g.Status.Term == q.Term && g.Status.Leader != "" && g.Status.Leader != from {
		done(nil)
		return
	}
	a.judge(q, s.Behind, s.Requests, done)
}

// judge waits for the place that the question names, judges the requests there and signs.
func (a *Approvals) judge(q *approval.Question, behind uint64, requests [][]byte, done func(*approval.Vote)) {
	r, g := a.p.Host.Held[q.Segment], a.p.Groups[q.Segment]
	if r == nil || g == nil {
		done(nil)
		return
	}
	deadline := a.p.Mesh.K.Now() + approval.DefaultConfig().Patience
	var wait func()
	wait = func() {
		admitted, cancel := r.Machine.Admitted(q.Term, behind)
		defer cancel()
		applied, _ := r.Machine.Segment().Applied()
		late := behind > 0
		if late {
			select {
			case <-admitted:
				late = false
			default:
			}
		}
		switch {
		case a.p.Mesh.K.Now() > deadline || a.p.Host.Held[q.Segment] != r:
			done(nil)
		case late || applied < q.Index:
			a.p.After(2*time.Millisecond, wait)
		case q.Act():
			done(a.voteOnAct(q, requests[0]))
		default:
			done(a.vote(q, requests))
		}
	}
	wait()
}

func (a *Approvals) vote(q *approval.Question, requests [][]byte) *approval.Vote {
	m := a.p.Host.Held[q.Segment].Machine
	in := m.InForce(q.Index+1, q.Term)
	if in.Mesh != q.Mesh || in.Generation != q.Generation || in.Configuration != q.Configuration || in.Policy != q.Policy ||
		in.Trust != q.Trust || in.Sequence >= q.Sequence || in.Voters.Weight(a.p.ID) == 0 {
		return nil
	}
	v := &approval.Vote{Node: a.p.ID}
	for i, refusal := range m.Space().Judge(requests) {
		if refusal != nil {
			var by *rules.Refusal
			v.Refusals = append(v.Refusals, approval.Refusal{Request: i, Rule: refusal.Error(), Denied: errors.As(refusal, &by) && by.Denied})
		}
	}
	p := a.approvers[q.Segment]
	if p == nil {
		p = &approval.Approver{}
		a.approvers[q.Segment] = p
	}
	if p.May(q) != nil {
		return nil
	}
	v.Signature = a.p.Sign(q.Statement(v))
	return v
}
