package governor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// keeperOf returns the home of the nearest scope around a segment that is not light, nor
// that segment itself.
func (g *Governor) keeperOf(d *anchormesh.Descriptor) (*anchormesh.Descriptor, error) {
	for n := len(d.Scope); n >= 0; n-- {
		if d.Range.Contains(d.Scope[:n]) {
			continue // its own
		}
		o, ok := g.table.Lookup(d.Scope[:n])
		if !ok {
			return nil, fmt.Errorf("%w: this node does not know yet who holds %q", ErrUnavailable, d.Scope[:n])
		}
		if o.Home() && len(o.Scope) == n && o.Class != anchormesh.Light {
			return o, nil
		}
	}
	return nil, fmt.Errorf("%w: no scope around segment %s keeps its replicas", ErrRefused, d.Segment)
}

// ReportDead tells the keeper of a segment that the replica here may have forgotten what
// it acknowledged; what the keeper knows already is no error. It may be repeated.
func (g *Governor) ReportDead(ctx context.Context, f host.Forgetful) error {
	d, err := g.keeperOf(f.State.Descriptor)
	if err != nil {
		return err
	}
	first, err := g.host.ReportTo(f.Segment, d.Segment)
	if err != nil {
		return err
	}
	if d, _ = g.table.Segment(first); d == nil {
		return fmt.Errorf("%w: this node does not know segment %s, which hears of segment %s", ErrUnavailable, first, f.Segment)
	}
	rep, err := g.host.Obituary(f)
	if err != nil {
		return err
	}
	_, err = g.askLeader(ctx, d, &question{kind: askDead, segment: first, body: rep.Encode()})
	return err
}

// hearDead enters a report.
func (g *Governor) hearDead(ctx context.Context, from anchormesh.NodeID, h home, body []byte) error {
	rep, err := keeper.DecodeReport(body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if rep.Node != from {
		return fmt.Errorf("%w: node %s speaks for node %s", ErrRefused, from.Short(), rep.Node.Short())
	}
	if c, is := h.Keeper.Case(rep.Segment); rep.Generation < h.Keeper.Floor(rep.Segment) || is && c.Knows(rep.Replica) {
		return nil
	}
	if _, err = g.propose(ctx, h, machine.ReportDead(&rep)); err == nil {
		g.cfg.Logger.Info("a replica is reported dead: it may have forgotten what it acknowledged", "segment", rep.Segment,
			"generation", rep.Generation, "replica", rep.Replica, "node", rep.Node.Short(), "term", rep.Left.Term, "index", rep.Left.Index)
	}
	return err
}

// lost names a case as a task of its home.
func lost(h home, c *keeper.Case) task {
	return task{home: h.segment, term: h.term, lost: c.Segment}
}

// keep goes on with the losses that a home led here knows of.
func (g *Governor) keep(h home) {
	if h.Keeper == nil {
		return
	}
	for i := range h.Keeper.Cases {
		c := &h.Keeper.Cases[i]
		switch {
		case !c.Decided() && g.mended(c):
			g.run(lost(h, c), func(ctx context.Context) {
				if _, err := g.propose(ctx, h, machine.Unheard(c.Segment)); err != nil {
					g.rest(ctx)
				}
			})
		case c.Decided():
			g.run(lost(h, c), func(ctx context.Context) {
				if err := g.reopen(ctx, h, c); err != nil && ctx.Err() == nil {
					g.cfg.Logger.Info("a light segment that lost its majority has not begun anew yet", "segment", c.Segment, "err", err)
					g.rest(ctx)
				}
			})
		}
	}
}

// mended reports whether a segment has gone on without the replicas that were reported,
// or is no more.
func (g *Governor) mended(c *keeper.Case) bool {
	d, ok := g.table.Segment(c.Segment)
	if !ok || d.Generation >= c.Generation()+machine.RecoveredGenerations {
		return true
	}
	return !slices.ContainsFunc(c.Reports, func(rep keeper.Report) bool {
		_, named := d.Replica(rep.Replica)
		return named
	})
}

// reopen has a lost segment begin anew: on whoever has the most of those that answer.
func (g *Governor) reopen(ctx context.Context, h home, c *keeper.Case) error {
	if (c.Chosen == keeper.Holder{}) {
		best, has, err := g.most(ctx, c)
		if err != nil {
			return err
		}
		_, err = g.propose(ctx, h, machine.Choose(c.Segment, best, has))
		return err
	}
	if err := g.readIndex(ctx, h.segment); err != nil {
		return err // somebody else may lead the home by now, and have ended the case
	}
	least := c.Best().Left
	answer, err := g.call(ctx, c.Chosen.Node, &question{
		kind: askRecover, segment: c.Segment, generation: c.Generation(), flag: true, text: []byte(machine.KeeperOperator),
		body: append(fields.AppendNumbers(slices.Clone(c.Entry[:]), least.Term, least.Index), h.Descriptor.Scope...),
	})
	if errors.Is(err, ErrRefused) {
		g.cfg.Logger.Error("a light segment does not begin anew by itself: an operator has to recover it", "segment", c.Segment,
			"node", c.Chosen.Node.Short(), "err", err)
		_, err = g.propose(ctx, h, machine.Begun(c.Segment, c.Generation()+machine.RecoveredGenerations-1))
		return err
	}
	if err != nil {
		return err
	}
	d, err := meshpb.DecodeDescriptor(answer)
	if err != nil {
		return err
	}
	g.table.Learn(d)
	g.cfg.Logger.Warn("a light segment that lost its majority has begun anew", "segment", c.Segment, "generation", d.Generation,
		"node", c.Chosen.Node.Short(), "reported", len(c.Reports))
	_, err = g.propose(ctx, h, machine.Begun(c.Segment, d.Generation))
	return err
}

// most asks all whom a reporter knows how far they have come.
func (g *Governor) most(ctx context.Context, c *keeper.Case) (best keeper.Holder, has keeper.Position, err error) {
	holders := c.Holders()
	reach := make([]keeper.Position, len(holders))
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i, o := range holders {
		all.Go(func() error {
			one, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			answer, err := g.call(one, o.Node, &question{kind: askReach, segment: c.Segment, id: uint64(o.Replica)})
			if err != nil {
				return nil // who does not answer is not chosen
			}
			r := reader{fields.Reader{Rest: answer}}
			p := keeper.Position{Term: r.Number(), Index: r.Number()}
			if r.end() == nil {
				reach[i] = p
			}
			return nil
		})
	}
	_ = all.Wait()
	for i, p := range reach {
		if has.Less(p) {
			best, has = holders[i], p
		}
	}
	if has.Less(c.Best().Left) {
		return best, has, fmt.Errorf("%w: nobody who answers has as much as node %s had", errNotYet, c.Best().Node.Short())
	}
	return best, has, nil
}

// reach answers how far a replica here has come.
func (g *Governor) reach(q *question) ([]byte, error) {
	state, has, ok := g.host.Reach(q.segment)
	if !ok || state.Peers()[anchormesh.ReplicaID(q.id)] != g.cfg.Self {
		return nil, fmt.Errorf("%w: node %s has no replica %d of segment %s", ErrUnavailable, g.cfg.Self.Short(), q.id, q.segment)
	}
	return fields.AppendNumbers(nil, has.Term, has.Index), nil
}

// terms reads on what terms a segment is to begin anew here.
func terms(q *question) (host.Order, error) {
	o := host.Order{Times: q.id, Why: lineage.Evidence{Reason: lineage.Recovery, Operator: string(q.text)}}
	r := reader{fields.Reader{Rest: q.body}}
	copy(o.Rule.Decision[:], r.Take(uint64(len(o.Rule.Decision))))
	if q.flag {
		o.Generation, o.Least = q.generation, keeper.Position{Term: r.Number(), Index: r.Number()}
	}
	if r.Bad || q.flag && o.Generation == 0 {
		return o, fmt.Errorf("%w: %w", ErrRefused, errMalformed)
	}
	o.Rule.Scope = r.Rest
	o.Rule.From = o.Rule.Scope
	return o, nil
}

// numberWait is how long the line of a segment that begins anew may take to give a number.
const numberWait = 2 * time.Second

// above returns a number of the segment's line that is above all that it gave before now.
func (g *Governor) above(ctx context.Context, d *anchormesh.Descriptor) (anchormesh.Revision, error) {
	if d.LineHome() {
		return 0, nil // it finds its own
	}
	ctx, cancel := context.WithTimeout(ctx, numberWait)
	defer cancel()
	n, err := g.cfg.Number(ctx, d.Line)
	if err != nil {
		return 0, fmt.Errorf("%w: the segment at %q, whose line of revisions segment %s is on, gives no number: %w", ErrUnavailable, d.Line, d.Segment, err)
	}
	return n, nil
}
