package approvals

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
)

// Why a voter says nothing.
var (
	errNoReplica = errors.New("this node holds no replica of the segment")
	errNoVote    = errors.New("this node has no vote in the segment")
	errLeader    = errors.New("this node knows another leader of the segment")
	errBusy      = errors.New("this node judges too many batches already")
	errMalformed = errors.New("the batch cannot be read")
)

// codeAbstain is the failure of a voter that says nothing.
const codeAbstain = 1

// Serve answers a leader; it does not block.
func (a *Approvals) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	behind, n := binary.Uvarint(payload)
	if n <= 0 {
		to.Fail(codeAbstain, errMalformed.Error())
		return
	}
	select {
	case a.serving <- struct{}{}:
	default:
		to.Fail(codeAbstain, errBusy.Error())
		return
	}
	go func() {
		defer func() { <-a.serving }()
		vote, err := a.answer(from, behind, payload[n:], to.Deadline())
		if err != nil {
			to.Fail(codeAbstain, err.Error())
			return
		}
		to.Reply(approval.AppendVote(nil, vote))
	}()
}

func (a *Approvals) answer(from anchormesh.NodeID, behind uint64, body []byte, deadline time.Time) (*approval.Vote, error) {
	q, requests, err := approval.ParseQuestion(body)
	if err != nil {
		return nil, err
	}
	r, here := a.replicas.Get(q.Segment)
	if !here {
		return nil, errNoReplica
	}
	if st, ok := a.engine.Status(q.Segment); ok && (st.Term > q.Term || st.Term == q.Term && st.Leader != "" && st.Leader != from) {
		return nil, errLeader
	}
	if deadline.IsZero() {
		deadline = time.Now().Add(a.cfg.Core.Patience)
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return a.judge(ctx, r, q, behind, requests)
}

// judge waits for the place that the question names, judges the requests there and
// signs. An error is an abstention.
func (a *Approvals) judge(ctx context.Context, r *host.Replica, q *approval.Question, behind uint64, requests [][]byte) (v *approval.Vote, err error) {
	defer func() {
		if f := a.cfg.Listener.Voted; f != nil && err != nil {
			f(0, true)
		} else if f != nil {
			f(len(v.Refusals), false)
		}
	}()
	if q.Act() {
		return a.judgeAct(ctx, r, q, requests[0])
	}
	if err := a.reach(ctx, r, q, behind); err != nil {
		return nil, err
	}
	if err := a.fits(r, q); err != nil {
		return nil, err
	}
	v = &approval.Vote{Node: a.cfg.Self}
	for i, refusal := range r.Machine.Space().Judge(requests) {
		if refusal != nil {
			v.Refusals = append(v.Refusals, refused(i, refusal))
		}
	}
	if err := a.may(q); err != nil {
		return nil, err
	}
	statement := q.Statement(v)
	if v.Signature, err = a.cfg.Sign(statement); err != nil {
		return nil, err
	}
	a.cfg.Verifier.Made(v.Node, statement, v.Signature)
	return v, nil
}

// refused words a refusal as it is signed.
func refused(request int, err error) approval.Refusal {
	var by *rules.Refusal
	text := err.Error()
	if len(text) > approval.RuleBytesMax {
		text = strings.ToValidUTF8(text[:approval.RuleBytesMax], "")
	}
	return approval.Refusal{Request: request, Rule: text, Denied: errors.As(err, &by) && by.Denied}
}

// reach waits until everything is applied here that the batch is judged behind.
func (a *Approvals) reach(ctx context.Context, r *host.Replica, q *approval.Question, behind uint64) error {
	if applied, _ := r.Machine.Segment().Applied(); applied < q.Index {
		done := make(chan error, 1)
		a.engine.WhenApplied(q.Segment, q.Index, func(err error) { done <- err })
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("index %d is not applied here: %w", q.Index, ctx.Err())
		}
	}
	if behind == 0 {
		return nil
	}
	admitted, cancel := r.Machine.Admitted(q.Term, behind)
	defer cancel()
	select {
	case <-admitted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("batch %d is not applied here: %w", behind, ctx.Err())
	}
}

// fits reports whether the question is about the state that holds here: else a vote on
// it would serve nothing.
func (a *Approvals) fits(r *host.Replica, q *approval.Question) error {
	in := r.Machine.InForce(q.Index+1, q.Term)
	switch {
	case in.Mesh != q.Mesh, in.Segment != q.Segment, in.Generation != q.Generation, in.Configuration != q.Configuration,
		in.Policy != q.Policy, in.Trust != q.Trust, in.Sequence >= q.Sequence:
		return approval.ErrStale
	case in.Voters.Weight(a.cfg.Self) == 0:
		return errNoVote
	}
	return nil
}
