package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/machine"
)

// around returns the prefixes of the scopes around a prefix, innermost first, as far as
// the routes tell.
func (g *Governor) around(prefix []byte) (out [][]byte) {
	for n := len(prefix) - 1; n >= 0; n-- {
		if _, ok := g.lookHome(prefix[:n]); ok {
			out = append(out, prefix[:n])
		}
	}
	return out
}

// enclosing returns the scope around a scope.
func (g *Governor) enclosing(ctx context.Context, prefix []byte) (*View, error) {
	if len(prefix) == 0 {
		return nil, fmt.Errorf("%w: the root scope is the last one, and stays", ErrRefused)
	}
	outer := g.around(prefix)
	if len(outer) == 0 {
		return nil, fmt.Errorf("%w: no scope is known around %q", ErrUnavailable, prefix)
	}
	return g.Show(ctx, outer[0])
}

// judge says why this node would refuse a proposal at a home; it wraps ErrRefused. With
// any other error it cannot tell.
func (g *Governor) judge(ctx context.Context, h home, p *scope.Proposal) error {
	d := h.Descriptor
	switch p.Kind {
	case scope.Amend:
		return g.judgePolicy(ctx, d.Scope, nil, p.Policy)
	case scope.Create:
		if _, exists := g.lookHome(p.Subject); exists {
			return fmt.Errorf("%w: scope %q exists", ErrRefused, p.Subject)
		}
		return g.judgePolicy(ctx, p.Subject, h.Policy, p.Policy)
	case scope.Delete:
		return g.judgeEnd(ctx, d.Scope, p)
	case scope.Recover:
		return g.judgeRecovery(ctx, p)
	case scope.Split, scope.Merge, scope.Move:
		return g.judgeOrder(h, p)
	}
	return fmt.Errorf("%w: %s is not known here", ErrRefused, p.Kind)
}

// judgePolicy looks at a policy by itself, and whether it weakens what the scopes around
// bind. near is the policy of the innermost of them, if the caller has it.
func (g *Governor) judgePolicy(ctx context.Context, prefix []byte, near, p *policy.Policy) error {
	if p == nil {
		return fmt.Errorf("%w: there is no policy", ErrRefused)
	}
	if err := p.Validate(prefix, g.cfg.Compile); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if near != nil {
		if err := policy.Weakens(near, p); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	for _, outer := range g.around(prefix) {
		v, err := g.Show(ctx, outer)
		if errors.Is(err, ErrNoScope) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: the policy of the scope %q around is not known: %w", ErrUnavailable, outer, err)
		}
		if rules := v.Policy(); rules != nil {
			if err := policy.Weakens(rules, p); err != nil {
				return fmt.Errorf("%w: scope %q: %w", ErrRefused, outer, err)
			}
		}
	}
	return nil
}

// Fit implements Scopes. What is in the way may pass: so it is no reason to vote against
// a scope. Whether an anchor is missing only leaders know: those are asked whose segments
// are to be cut, at most two. One that has no leader may have to be recovered first: the
// creation waits for that, as it would if the leader were lost a moment later.
func (g *Governor) Fit(ctx context.Context, prefix []byte) error {
	keys := anchormesh.PrefixRange(prefix)
	found, whole := g.table.Covering(keys)
	if !whole {
		return fmt.Errorf("%w: this node does not know yet who holds %q", ErrUnavailable, prefix)
	}
	for _, d := range found {
		if err := g.fits(d, prefix); err != nil {
			return err
		}
		if !cuts(keys, d.Range) || g.leads(d.Segment) {
			continue
		}
		_, err := g.askLeader(ctx, d, &question{kind: askFit, segment: d.Segment, text: prefix})
		if err != nil && !errors.Is(err, ErrUnavailable) {
			return err
		}
	}
	return nil
}

// cuts reports whether an end of a range lies inside another one.
func cuts(keys, r anchormesh.KeyRange) bool {
	return slices.ContainsFunc([][]byte{keys.Start, keys.End}, func(at []byte) bool {
		return len(at) > 0 && r.Contains(at) && !bytes.Equal(r.Start, at)
	})
}

// fits says why a segment is not fit to hold keys of a new scope, as far as is known here.
func (g *Governor) fits(d *anchormesh.Descriptor, prefix []byte) error {
	notNow := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotNow, fmt.Sprintf(format, args...))
	}
	switch {
	case d.Joint:
		return notNow("the anchor group of segment %s, which holds keys of %q, is changing", d.Segment, prefix)
	case len(d.Voters()) != len(d.Anchors):
		return notNow("an anchor of segment %s, which holds keys of %q, is still learning", d.Segment, prefix)
	}
	if degraded, changing := g.cfg.Group(d.Segment); g.leads(d.Segment) && (degraded || changing) {
		return notNow("the anchor group of segment %s, which holds keys of %q, is degraded or changing", d.Segment, prefix)
	}
	if r, here := g.host.Get(d.Segment); here && r.Machine.State().Merging() {
		return notNow("segment %s, which holds keys of %q, is being merged", d.Segment, prefix)
	}
	return nil
}

// fitsHere is fits of a segment that this node leads.
func (g *Governor) fitsHere(id anchormesh.SegmentID, prefix []byte) error {
	r, here := g.host.Get(id)
	if !here || !g.leads(id) {
		return fmt.Errorf("%w: node %s does not lead segment %s", ErrUnavailable, g.cfg.Self.Short(), id)
	}
	return g.fits(r.Machine.Descriptor(), prefix)
}

func (g *Governor) leads(id anchormesh.SegmentID) bool {
	st, ok := g.engine.Status(id)
	return ok && st.Leads()
}

// judgeEnd looks whether a scope is given back to the scope around it, as that is.
func (g *Governor) judgeEnd(ctx context.Context, prefix []byte, p *scope.Proposal) error {
	v, err := g.enclosing(ctx, prefix)
	if err != nil {
		return err
	}
	switch now := v.Record.Newest(); {
	case !bytes.Equal(v.Prefix, p.Subject):
		return fmt.Errorf("%w: the scope around it is %q, not %q", ErrRefused, v.Prefix, p.Subject)
	case v.Record.Deleting():
		return fmt.Errorf("%w: the scope %q around it is being deleted", ErrRefused, v.Prefix)
	case v.Record.Doing != nil:
		return fmt.Errorf("%w: the scope %q around it is busy: %s of %q", ErrNotNow, v.Prefix, v.Record.Doing.Kind, v.Record.Doing.Subject)
	case now.Number != p.Version || scope.PolicyHash(now.Policy) != scope.PolicyHash(p.Policy):
		return fmt.Errorf("%w: the scope %q around it is at version %d, not %d", ErrRefused, v.Prefix, now.Number, p.Version)
	}
	return nil
}

// voteFor votes on what is open at a home, if this node votes there by itself.
func (g *Governor) voteFor(h home) {
	if a, ok := h.Descriptor.AnchorOn(g.cfg.Self); !ok || a.Role != anchormesh.Voter || h.Policy != nil && h.Policy.Amend.Manual {
		return
	}
	for _, p := range h.Scope.Open {
		if slices.ContainsFunc(p.Votes, func(v scope.Vote) bool { return v.Node == g.cfg.Self }) {
			continue
		}
		g.run(task{home: h.segment, id: p.ID}, func(ctx context.Context) { g.voteOn(ctx, h, p) })
	}
}

// voteOn judges a proposal and sends the vote. What goes wrong is tried again.
func (g *Governor) voteOn(ctx context.Context, h home, p *scope.Proposal) {
	err := g.judge(ctx, h, p)
	if err != nil && !errors.Is(err, ErrRefused) {
		g.cfg.Logger.Debug("no vote yet", "scope", string(h.Descriptor.Scope), "proposal", p.ID, "err", err)
		return
	}
	why := ""
	if err != nil {
		why = err.Error()
		why = why[:min(len(why), scope.NoteBytesMax)]
	}
	if err := g.cast(ctx, h, p, err == nil, why); err != nil {
		g.cfg.Logger.Debug("the vote was not counted", "scope", string(h.Descriptor.Scope), "proposal", p.ID, "err", err)
	}
}

// sign votes as an operator says.
func (g *Governor) sign(ctx context.Context, h home, id uint64, approve bool, why string) error {
	p, ok := h.Scope.Proposal(id)
	if _, carried := h.Scope.Carried(id); !ok || carried {
		return fmt.Errorf("%w: proposal %d is not open, as far as this node has applied", ErrRefused, id)
	}
	if _, votes := h.Descriptor.AnchorOn(g.cfg.Self); !votes {
		return fmt.Errorf("%w: node %s is no anchor of the scope's home", ErrRefused, g.cfg.Self.Short())
	}
	return g.cast(ctx, h, p, approve, why)
}

// cast signs a vote and has it counted.
func (g *Governor) cast(ctx context.Context, h home, p *scope.Proposal, approve bool, why string) error {
	d := h.Descriptor
	signature, err := g.cfg.Sign(p.Statement(d.Mesh, d.Segment, approve))
	if err != nil {
		return err
	}
	v := &scope.Vote{Node: g.cfg.Self, Approve: approve, Why: why, Signature: signature}
	command := machine.CastVote(p.ID, v)
	_, err = g.askLeader(ctx, d, &question{kind: askVote, segment: d.Segment, body: command[1:]})
	if err == nil {
		tell(g.cfg.Listener.Voted, map[bool]string{true: "approve", false: "refuse"}[approve])
		g.cfg.Logger.Info("this node voted on a change of a scope", "scope", string(d.Scope), "proposal", p.ID, "kind", p.Kind.String(),
			"approve", approve, "why", why)
	}
	return err
}
