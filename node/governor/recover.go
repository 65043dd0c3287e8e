package governor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// aliveWait is how long a group may take to show that it works.
const aliveWait = 2 * time.Second

// arbiter returns the scope in whose home a segment's recovery is decided: its own, or
// for a home the one around it; of a light segment the nearest that is not light, which
// also decides without an operator.
func (g *Governor) arbiter(segment anchormesh.SegmentID) ([]byte, error) {
	d, ok := g.table.Segment(segment)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: this node knows no segment %s", ErrRefused, segment)
	case d.Class == anchormesh.Light:
		o, err := g.keeperOf(d)
		if err != nil {
			return nil, err
		}
		return o.Scope, nil
	case !d.Home():
		return d.Scope, nil
	case len(d.Scope) == 0:
		return nil, fmt.Errorf("%w: segment %s is the home of the root scope, and nobody is above it: recover it on the surviving node itself", ErrRefused, segment)
	}
	outer := g.around(d.Scope)
	if len(outer) == 0 {
		return nil, fmt.Errorf("%w: no scope is known around %q", ErrUnavailable, d.Scope)
	}
	return outer[0], nil
}

// judgeRecovery looks whether the survivor is an anchor, and the group does not work.
func (g *Governor) judgeRecovery(ctx context.Context, p *scope.Proposal) error {
	d, ok := g.table.Segment(p.Segment)
	if !ok {
		return fmt.Errorf("%w: this node knows no segment %s", ErrRefused, p.Segment)
	}
	if _, anchor := d.AnchorOn(p.Survivor); !anchor {
		return fmt.Errorf("%w: node %s is no anchor of segment %s", ErrRefused, p.Survivor.Short(), p.Segment)
	}
	ctx, cancel := context.WithTimeout(ctx, aliveWait)
	defer cancel()
	_, err := g.askLeader(ctx, d, &question{kind: askAlive, segment: p.Segment})
	if err == nil {
		return fmt.Errorf("%w: segment %s has its majority, and nothing is to be recovered", ErrRefused, p.Segment)
	}
	return nil
}

// recover has the surviving node begin anew.
func (g *Governor) recover(ctx context.Context, h home, p *scope.Proposal) error {
	answer, err := g.call(ctx, p.Survivor, &question{
		kind: askRecover, segment: p.Segment, id: h.Scope.Recoveries, text: []byte(p.Operator), body: append(p.Entry[:], h.Descriptor.Scope...),
	})
	if errors.Is(err, ErrRefused) {
		return g.finish(ctx, h, p, scope.Abandoned, err.Error())
	}
	if err != nil {
		return err
	}
	d, err := meshpb.DecodeDescriptor(answer)
	if err != nil {
		return err
	}
	g.table.Learn(d)
	if d.Class == anchormesh.Light { // of what is reported of the old generation nothing is to come any more
		if _, err := g.propose(ctx, h, machine.Begun(d.Segment, d.Generation)); err != nil {
			return err
		}
	}
	return g.finish(ctx, h, p, scope.Decided, "")
}

// giveUp ends a recovery that is being carried out, because an operator says so: its
// survivor is gone, too, or cannot. Should it have begun anew, or do so yet, the next
// recovery is of a higher generation.
func (g *Governor) giveUp(ctx context.Context, h home, p *scope.Proposal, by string) error {
	g.cfg.Logger.Warn("a recovery that was decided is given up", "segment", p.Segment, "survivor", p.Survivor.Short(), "proposal", p.ID, "operator", by)
	return g.finish(ctx, h, p, scope.Abandoned, "withdrawn by "+by)
}

// RecoverHere lets a segment begin anew on this node's replica, by an operator's order
// alone: for the home of the root scope, above which nobody decides. It is his to make
// sure that no other node is told the same. The errors are ErrRefused, ErrUnavailable and
// the context's.
func (g *Governor) RecoverHere(ctx context.Context, segment anchormesh.SegmentID, operator string) (*anchormesh.Descriptor, error) {
	return g.beginAnew(ctx, segment, host.Order{Why: lineage.Evidence{Reason: lineage.Recovery, Operator: operator}})
}

// ordered begins anew by the decision of a scope's home.
func (g *Governor) ordered(ctx context.Context, q *question) ([]byte, error) {
	o, err := terms(q)
	if err != nil {
		return nil, err
	}
	d, err := g.beginAnew(ctx, q.segment, o)
	if err != nil {
		return nil, err
	}
	return meshpb.EncodeDescriptor(d), nil
}

func (g *Governor) beginAnew(ctx context.Context, segment anchormesh.SegmentID, o host.Order) (*anchormesh.Descriptor, error) {
	state, _, ok := g.host.Reach(segment)
	if !ok {
		return nil, fmt.Errorf("%w: this node has no replica of segment %s", ErrRefused, segment)
	}
	if !o.Rule.Decision.IsZero() && state.RecoveredBy(o.Rule.Decision) {
		return state.Descriptor, nil
	}
	if o.Generation == 0 { // an operator may be mistaken
		alive, cancel := context.WithTimeout(ctx, aliveWait)
		defer cancel()
		if g.readIndex(alive, segment) == nil {
			return nil, fmt.Errorf("%w: segment %s has its majority, and nothing is to be recovered", ErrRefused, segment)
		}
	}
	var err error
	if o.Above, err = g.above(ctx, state.Descriptor); err != nil {
		return nil, err
	}
	d, err := g.cfg.Recover(segment, o)
	if errors.Is(err, machine.ErrRefused) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return d, err
}
