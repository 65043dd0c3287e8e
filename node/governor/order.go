package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
)

// judgeOrder says why this node would refuse an order of an operator: what the policy
// forbids, and what makes no sense for the segment as this node knows it.
func (g *Governor) judgeOrder(h home, p *scope.Proposal) error {
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	prefix := h.Descriptor.Scope
	d, ok := g.table.Segment(p.Segment)
	switch {
	case !ok:
		return fmt.Errorf("%w: this node knows no segment %s yet", ErrUnavailable, p.Segment)
	case !bytes.Equal(d.Scope, prefix):
		return refused("segment %s is not in scope %q", p.Segment, prefix)
	case d.Generation < p.Generation:
		return fmt.Errorf("%w: generation %d of segment %s has not been heard of here", ErrUnavailable, p.Generation, p.Segment)
	case d.Generation > p.Generation:
		return refused("segment %s is of generation %d by now, not %d", p.Segment, d.Generation, p.Generation)
	case p.Kind == scope.Split && h.Policy != nil && h.Policy.Structure.NoSplit:
		return refused("the policy of scope %q forbids splits", prefix)
	case p.Kind == scope.Merge && h.Policy != nil && h.Policy.Structure.NoMerge:
		return refused("the policy of scope %q forbids merges", prefix)
	case p.Kind == scope.Split && (!d.Range.Contains(p.Key) || bytes.Equal(d.Range.Start, p.Key)):
		return refused("boundary %q does not lie inside %s", p.Key, d.Range)
	case p.Kind == scope.Merge && !bytes.Equal(d.Range.End, p.Key):
		return refused("the right neighbour of segment %s %s does not begin at %q", p.Segment, d.Range, p.Key)
	}
	if p.Kind == scope.Move {
		if _, has := d.AnchorOn(p.From); !has {
			return refused("node %s is no anchor of segment %s", p.From.Short(), p.Segment)
		}
		if _, has := d.AnchorOn(p.To); has {
			return refused("node %s is an anchor of segment %s already", p.To.Short(), p.Segment)
		}
	}
	return nil
}

// rehearse asks a segment's leader whether an order could be carried out now.
func (g *Governor) rehearse(ctx context.Context, p *scope.Proposal) error {
	d, ok := g.table.Segment(p.Segment)
	if !ok {
		return fmt.Errorf("%w: this node knows no segment %s", ErrRefused, p.Segment)
	}
	_, err := g.askSegment(ctx, d, &question{kind: askOrder, flag: true, body: orderBody(nil, p)})
	return err
}

// orderBody is what carries an order: length, proof | proposal as wanted.
func orderBody(proof *lineage.Proof, p *scope.Proposal) []byte {
	var b []byte
	if proof != nil {
		b = proof.Encode()
	}
	return append(fields.AppendBytes(nil, b), p.EncodeWanted()...)
}

func parseOrderBody(b []byte) (proof *lineage.Proof, p scope.Proposal, err error) {
	r := reader{fields.Reader{Rest: b}}
	encoded := r.Bytes()
	if r.Bad {
		return nil, p, errMalformed
	}
	if len(encoded) > 0 {
		if proof, err = lineage.DecodeProof(encoded); err != nil {
			return nil, p, err
		}
	}
	p, err = scope.DecodeWanted(r.Rest)
	return proof, p, err
}

// order has an operator's order carried out by the segment's leader, and gives it up when
// that refuses it, or after a while.
func (g *Governor) order(ctx context.Context, h home, p *scope.Proposal) error {
	if g.carried(p) {
		return g.finish(ctx, h, p, scope.Decided, "")
	}
	a, err := g.adoption(h, p.Entry, nil, 0)
	if err != nil {
		return err
	}
	d, ok := g.table.Segment(p.Segment)
	if !ok {
		return g.finish(ctx, h, p, scope.Abandoned, "the segment is no more")
	}
	now, err := g.askSegment(ctx, d, &question{kind: askOrder, body: orderBody(a.Proof, p)})
	switch {
	case err == nil:
		g.table.Learn(now)
		return g.finish(ctx, h, p, scope.Decided, "")
	case errors.Is(err, ErrRefused):
		return g.finish(ctx, h, p, scope.Abandoned, err.Error())
	case g.tired(h, p):
		return g.finish(ctx, h, p, scope.Abandoned, fmt.Sprintf("it could not be carried out within %v: %v", orderKept, err))
	}
	return err
}

// carried reports whether an order is known to have been carried out.
func (g *Governor) carried(p *scope.Proposal) bool {
	if p.Kind != scope.Split {
		return false
	}
	_, born := g.table.Segment(machine.RightOf(p))
	return born
}

// tired reports whether an order has been tried here for long enough.
func (g *Governor) tired(h home, p *scope.Proposal) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := task{home: h.segment, term: h.term, id: p.ID}
	first, ok := g.seen[t]
	if !ok {
		g.seen[t] = time.Now()
	}
	return ok && time.Since(first) >= orderKept
}

// ordersSegment carries out an order to a segment led here, or says whether it could.
func (g *Governor) ordersSegment(ctx context.Context, q *question) ([]byte, error) {
	r, here := g.host.Get(q.segment)
	if !here || !g.leads(q.segment) {
		return nil, fmt.Errorf("%w: node %s does not lead segment %s", ErrUnavailable, g.cfg.Self.Short(), q.segment)
	}
	proof, p, err := parseOrderBody(q.body)
	if err != nil || p.Segment != q.segment || !q.flag && proof == nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, errMalformed)
	}
	d := r.Machine.Descriptor()
	switch _, moved := d.AnchorOn(p.To); {
	case d.Generation != p.Generation && p.Kind == scope.Split && bytes.Equal(d.Range.End, p.Key):
		return meshpb.EncodeDescriptor(d), nil // done, and the answer was lost
	case d.Generation != p.Generation && p.Kind == scope.Merge && d.Range.Contains(p.Key):
		return meshpb.EncodeDescriptor(d), nil
	case p.Kind == scope.Move && moved:
		return meshpb.EncodeDescriptor(d), nil
	case d.Generation != p.Generation:
		return nil, fmt.Errorf("%w: segment %s is of generation %d by now, not %d", ErrRefused, d.Segment, d.Generation, p.Generation)
	}
	if degraded, changing := g.cfg.Group(q.segment); degraded || changing {
		return nil, fmt.Errorf("%w: the anchor group of segment %s is degraded or changing", ErrNotNow, d.Segment)
	}
	if err := g.carry(ctx, r.Machine.State(), &p, proof, q.flag); err != nil {
		if errors.Is(err, machine.ErrRefused) && !errors.Is(err, machine.ErrForNow) {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	return meshpb.EncodeDescriptor(r.Machine.Descriptor()), nil
}

func (g *Governor) carry(ctx context.Context, s *machine.State, p *scope.Proposal, proof *lineage.Proof, dry bool) error {
	by := &machine.Decision{Proof: proof, Order: p}
	id := s.Descriptor.Segment
	switch p.Kind {
	case scope.Split:
		split := &machine.Split{At: p.Key, Right: machine.RightOf(p), Evidence: lineage.Evidence{Reason: lineage.Operator, Operator: p.Operator}}
		if dry {
			return s.Allows(split)
		}
		return g.cfg.Split(ctx, id, split, by)
	case scope.Merge:
		if dry {
			return g.cfg.CanMerge(ctx, id)
		}
		return g.cfg.Merge(ctx, id, by)
	case scope.Move:
		return g.cfg.Move(id, p.From, p.To, dry)
	}
	return fmt.Errorf("%w: %s is not known here", machine.ErrRefused, p.Kind)
}

// Manual reports whether operators vote on what is done to a segment, as far as a replica
// here tells.
func (g *Governor) Manual(segment anchormesh.SegmentID) bool {
	r, here := g.host.Get(segment)
	if !here {
		return false
	}
	p := r.Machine.State().Policy
	return p != nil && p.Amend.Manual
}
