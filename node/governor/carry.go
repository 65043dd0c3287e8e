package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
)

// atOnce is how many segments are asked at a time.
const atOnce = 8

// errNotYet says that a step has to wait; it is tried again.
var errNotYet = errors.New("not yet")

// carryOut goes on with what a home has decided. What cannot be done now is tried again
// with the next look.
func (g *Governor) carryOut(ctx context.Context, h home, p *scope.Proposal) {
	var err error
	switch p.Kind {
	case scope.Create:
		err = g.create(ctx, h, p)
	case scope.Delete:
		err = g.delete(ctx, h, p)
	case scope.Recover:
		err = g.recover(ctx, h, p)
	case scope.Split, scope.Merge, scope.Move:
		err = g.order(ctx, h, p)
	}
	if err != nil && ctx.Err() == nil {
		g.cfg.Logger.Debug("a change of a scope is not done yet", "scope", string(h.Descriptor.Scope), "proposal", p.ID,
			"kind", p.Kind.String(), "subject", string(p.Subject), "err", err)
	}
	g.rest(ctx)
}

// rest keeps a task from being begun again at once.
func (g *Governor) rest(ctx context.Context) {
	select {
	case <-time.After(interval):
	case <-ctx.Done():
	}
}

func (g *Governor) finish(ctx context.Context, h home, p *scope.Proposal, o scope.Outcome, note string) error {
	_, err := g.propose(ctx, h, machine.Finish(p.ID, o, note))
	if err == nil {
		g.cfg.Logger.Info("a change of a scope was carried out", "scope", string(h.Descriptor.Scope), "proposal", p.ID,
			"kind", p.Kind.String(), "subject", string(p.Subject), "outcome", o.String(), "why", note)
	}
	return err
}

// create makes the scope that a home has decided: cuts, then its home, which has the
// others adopt. It is done once they have.
func (g *Governor) create(ctx context.Context, h home, p *scope.Proposal) error {
	v, err := g.Show(ctx, p.Subject)
	begun := err == nil
	switch {
	case begun && !born(v, p):
		return g.finish(ctx, h, p, scope.Abandoned, "the scope exists")
	case begun && v.Record.InForce > 0:
		return g.finish(ctx, h, p, scope.Decided, "")
	}
	a, err := g.adoption(h, p.Entry, p.Policy, p.Anchors)
	if err != nil {
		return err
	}
	// Also once the scope has its home: until those behind that have adopted it too, a merge
	// may undo the boundary at its end.
	d, err := g.cutOut(ctx, anchormesh.PrefixRange(p.Subject), a.Proof)
	switch {
	case err != nil:
		return err
	case begun:
		return fmt.Errorf("%w: not all segments have adopted it", errNotYet)
	}
	_, err = g.adopt(ctx, d, a)
	return err
}

// born reports whether a scope came of a proposal.
func born(v *View, p *scope.Proposal) bool {
	first := v.Record.Versions
	if len(first) == 0 {
		return false
	}
	// Versions are forgotten in time; by then the creation is long done.
	return first[0].Number > 1 || first[0].Proposal == p.ID && first[0].AtMillis == p.AtMillis &&
		scope.PolicyHash(first[0].Policy) == scope.PolicyHash(p.Policy)
}

// cutOut makes the ends of a range boundaries of segments, by the proof of the decision
// that wants them, and returns the first one in it.
func (g *Governor) cutOut(ctx context.Context, keys anchormesh.KeyRange, proof *lineage.Proof) (*anchormesh.Descriptor, error) {
	for _, at := range [][]byte{keys.Start, keys.End} {
		d, ok := g.table.Lookup(at)
		if !ok {
			return nil, fmt.Errorf("%w: this node does not know who holds %q", errNotYet, at)
		}
		if len(at) == 0 || bytes.Equal(d.Range.Start, at) {
			continue
		}
		now, err := g.askSegment(ctx, d, &question{kind: askCut, text: at, body: proof.Encode()})
		if err != nil {
			return nil, err
		}
		g.table.Learn(now)
		if now.Range.Contains(at) {
			return nil, fmt.Errorf("%w: segment %s changed meanwhile", errNotYet, d.Segment)
		}
	}
	d, ok := g.table.Lookup(keys.Start)
	if !ok || !bytes.Equal(d.Range.Start, keys.Start) || !keys.Covers(d.Range) {
		return nil, fmt.Errorf("%w: the cuts have not been heard of here", errNotYet)
	}
	return d, nil
}

// askSegment puts a question about one generation of a segment to its leader, and
// returns what the segment is then.
func (g *Governor) askSegment(ctx context.Context, d *anchormesh.Descriptor, q *question) (*anchormesh.Descriptor, error) {
	q.segment, q.generation = d.Segment, d.Generation
	answer, err := g.askLeader(ctx, d, q)
	if err != nil {
		return nil, err
	}
	return meshpb.DecodeDescriptor(answer)
}

// adoption is what puts a decision in force elsewhere; it waits for the proof.
func (g *Governor) adoption(h home, entry anchormesh.Hash, p *policy.Policy, anchors int) (*machine.Adoption, error) {
	proof := g.cfg.Proof(h.segment, entry)
	if proof == nil {
		g.affirm(h, entry)
		return nil, fmt.Errorf("%w: the decision's proof is not complete", errNotYet)
	}
	return &machine.Adoption{Proof: proof, Policy: p, Anchors: anchors}, nil
}

// affirm has a decision signed anew if its proof does not come: those who applied it may
// be gone, or have it from a snapshot.
func (g *Governor) affirm(h home, entry anchormesh.Hash) {
	id := uint64(0)
	if h.Scope.Doing != nil && h.Scope.Doing.Entry == entry {
		id = h.Scope.Doing.ID
	}
	u := unproven{h.segment, entry}
	g.mu.Lock()
	since, ok := g.unproven[u]
	if !ok {
		g.unproven[u] = time.Now()
	}
	g.mu.Unlock()
	if ok && time.Since(since) >= affirmAfter {
		g.cfg.Logger.Info("a decision is entered again: its proof does not come", "scope", string(h.Descriptor.Scope), "proposal", id)
		g.submit(h, machine.Affirm(id))
	}
}

func (g *Governor) adopt(ctx context.Context, d *anchormesh.Descriptor, a *machine.Adoption) (*anchormesh.Descriptor, error) {
	now, err := g.askSegment(ctx, d, &question{kind: askAdopt, body: a.Command()})
	if err == nil {
		g.table.Learn(now)
	}
	return now, err
}

// spread has every segment of a scope adopt the newest version, and notes that all have.
func (g *Governor) spread(ctx context.Context, h home) {
	newest, own := h.Scope.Newest(), h.Descriptor.Scope
	err := g.everywhere(ctx, h, newest.Entry, newest.Policy, 0, func(d *anchormesh.Descriptor) bool {
		return bytes.Equal(d.Scope, own) && d.Policy >= newest.Number || len(d.Scope) > len(own)
	})
	if err == nil && h.Scope.InForce < newest.Number {
		if _, err = g.propose(ctx, h, machine.InForce(newest.Number)); err == nil {
			g.cfg.Logger.Info("a policy is in force in all segments", "scope", string(own), "version", newest.Number)
		}
	}
	if err != nil && ctx.Err() == nil {
		g.cfg.Logger.Debug("not all segments have adopted a policy", "scope", string(own), "version", newest.Number, "err", err)
	}
	g.rest(ctx)
}

// delete gives the segments of a scope back to the one around it, the home last.
func (g *Governor) delete(ctx context.Context, h home, p *scope.Proposal) error {
	own := h.Descriptor.Scope
	err := g.everywhere(ctx, h, p.Entry, p.Policy, p.Anchors, func(d *anchormesh.Descriptor) bool {
		return !bytes.Equal(d.Scope, own)
	})
	if err != nil {
		return err
	}
	return g.finish(ctx, h, p, scope.Decided, "")
}

// everywhere has every segment of a scope but its home adopt a decision of the home, and
// returns nil when the answers of their leaders cover all its keys. done says whether a
// segment needs it no more.
func (g *Governor) everywhere(ctx context.Context, h home, entry anchormesh.Hash, p *policy.Policy, anchors int, done func(*anchormesh.Descriptor) bool) error {
	parts, whole := g.table.Parts(anchormesh.PrefixRange(h.Descriptor.Scope))
	if !whole {
		return fmt.Errorf("%w: this node does not know all segments of the scope", errNotYet)
	}
	a, err := g.adoption(h, entry, p, anchors)
	if err != nil && (len(parts) > 1 || parts[0].Descriptor.Segment != h.segment) {
		return err
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for _, part := range parts {
		if part.Descriptor.Segment == h.segment {
			if !h.Descriptor.Range.Covers(part.Range) {
				return fmt.Errorf("%w: the home has changed", errNotYet)
			}
			continue
		}
		all.Go(func() error {
			d, err := part.Descriptor, error(nil)
			// One of a scope inside is its own home's business, unless that has given it back.
			if inside := len(d.Scope) > len(h.Descriptor.Scope); done(d) || inside {
				d, err = g.confirmed(ctx, d, inside)
			} else {
				d, err = g.adopt(ctx, d, a)
			}
			switch {
			case err != nil:
				return err
			case len(d.Scope) > len(h.Descriptor.Scope) && d.Range.Covers(part.Range):
				return nil
			case !done(d) || !d.Range.Covers(part.Range):
				return fmt.Errorf("%w: segment %s %s is in scope %q at version %d", errNotYet, d.Segment, d.Range, d.Scope, d.Policy)
			}
			return nil
		})
	}
	return all.Wait()
}

// confirmed returns what a segment's leader says that it is, as of now if that has to be:
// what this node knows is a hint. That it has adopted a version stays true, but a segment of
// a scope inside may have been given back long ago.
func (g *Governor) confirmed(ctx context.Context, d *anchormesh.Descriptor, now bool) (*anchormesh.Descriptor, error) {
	// Of no generation nothing is changed.
	d, err := g.askSegment(ctx, &anchormesh.Descriptor{Segment: d.Segment, Anchors: d.Anchors}, &question{kind: askAdopt, flag: now})
	if err == nil {
		g.table.Learn(d)
	}
	return d, err
}
