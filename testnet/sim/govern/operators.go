package govern

import (
	"fmt"
	"math/rand/v2"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/torture/audit"
)

// Operators ask for changes of scopes. What they ask is remembered for the verdict.
type Operators struct {
	m     *node.Mesh
	rng   *rand.Rand
	Asked []audit.Asked
}

// NewOperators returns those of a mesh.
func NewOperators(m *node.Mesh) *Operators { return &Operators{m: m, rng: m.K.Stream("operators")} }

// Act lets an operator do something at some home, through its leader.
func (o *Operators) Act() {
	running := o.m.Running()
	if len(running) == 0 {
		return
	}
	var homes []home
	g := At(plan.Pick(o.rng, running...))
	for _, r := range g.p.Host.Sorted() {
		if h, ok := g.homeOf(r.Machine.Descriptor().Segment); ok && h.leads {
			homes = append(homes, h)
		}
	}
	if len(homes) > 0 && !g.p.Paused {
		g.p.Do(func() { o.act(g, plan.Pick(o.rng, homes...)) })
	}
}

func (o *Operators) act(g *Governor, h home) {
	switch n := o.rng.IntN(10); {
	case n == 0 && len(h.Scope.Open) > 0:
		g.propose(h, machine.Close(plan.Pick(o.rng, h.Scope.Open...).ID, scope.Withdrawn, "by an operator"), func(error) {})
		return
	case n < 4 && o.m.Cfg.Governance.Scopes:
		o.propose(g, h, o.create(h))
		return
	case n < 6 && o.m.Cfg.Governance.Scopes && len(h.Descriptor.Scope) > 1:
		if p, ok := o.delete(g, h); ok {
			o.propose(g, h, p)
		}
		return
	}
	newest := h.Scope.Newest().Number
	p := scope.Proposal{Kind: scope.Amend, Subject: h.Descriptor.Scope, Base: newest, Version: newest + 1, Policy: o.policy()}
	if o.rng.IntN(10) == 0 {
		p.Base += o.rng.Uint64N(2) // somebody who looked at another version
	}
	o.propose(g, h, p)
}

func (o *Operators) propose(g *Governor, h home, p scope.Proposal) {
	o.m.Stats.Proposed++
	p.Operator, p.AtMillis = fmt.Sprint("operator ", o.m.Tag()), o.m.K.Now().Milliseconds()
	o.Asked = append(o.Asked, audit.Asked{Scope: string(p.Subject), Operator: p.Operator, Policy: scope.PolicyHash(p.Policy)})
	g.p.Submit(h.segment, replica.Proposal{Generation: h.Descriptor.Generation, Term: h.term, Alone: true, Payload: machine.Propose(&p),
		Done: func(r replica.Result) {
			if r.Err == nil && o.m.Cfg.Plant == plan.PlantForgedVotes {
				g.forge(h.segment, r.Index)
			}
		}})
}

// forge casts the votes of others.
func (g *Governor) forge(id anchormesh.SegmentID, index uint64) {
	h, ok := g.homeOf(id)
	if !ok {
		return
	}
	for _, p := range h.Scope.Open {
		for _, v := range h.Descriptor.Voters() {
			if p.Index == index {
				g.propose(h, machine.CastVote(p.ID, &scope.Vote{Node: v.Node, Approve: true, Signature: []byte("mine")}), func(error) {})
			}
		}
	}
}

// create is a scope inside that of a home: of some of its keys.
func (o *Operators) create(h home) scope.Proposal {
	prefix := fmt.Appendf(nil, "%s/%d", node.Segment0(o.m, h.segment).Letter(), o.rng.IntN(2))
	if o.rng.IntN(3) == 0 {
		prefix = fmt.Appendf(prefix, "%d", o.rng.IntN(10))
	}
	return scope.Proposal{Kind: scope.Create, Subject: prefix, Base: h.Scope.Newest().Number, Version: 1, Policy: o.policy()}
}

// delete gives a scope back to the one around it, as the routes and that scope's newest
// known record say: the voters of a real mesh look closer.
func (o *Operators) delete(g *Governor, h home) (scope.Proposal, bool) {
	prefix := h.Descriptor.Scope
	for n := len(prefix) - 1; n >= 0; n-- {
		d, ok := g.p.Table.Lookup(prefix[:n])
		if !ok || o.m.ScopeOf[d.Segment] != o.m.ScopeOf[h.segment] {
			return scope.Proposal{}, false // not known here, or of another line
		}
		if !d.Home() || string(d.Scope) != string(prefix[:n]) {
			continue
		}
		around := o.m.Newest(d.Segment)
		if around == nil || around.Scope == nil || around.Scope.Doing != nil {
			return scope.Proposal{}, false
		}
		v := around.Scope.Newest()
		return scope.Proposal{Kind: scope.Delete, Subject: d.Scope, Base: h.Scope.Newest().Number, Version: v.Number, Policy: v.Policy, Anchors: around.Want}, true
	}
	return scope.Proposal{}, false
}

// policy draws one that is valid whatever the scope.
func (o *Operators) policy() *policy.Policy {
	p := &policy.Policy{Class: anchormesh.Normal, Anchors: policy.Anchors{Count: o.m.Cfg.Mesh.Want}}
	if most := (o.m.Cfg.Mesh.Nodes - 1) | 1; o.rng.IntN(3) == 0 {
		p.Anchors.Count = min(plan.Pick(o.rng, 3, 3, 5), most)
	}
	p.Amend = policy.Amend{ExpirySeconds: plan.Pick(o.rng, 10, 30, 60), Manual: o.rng.IntN(6) == 0}
	if o.rng.IntN(2) == 0 {
		p.Amend.Threshold = plan.Pick(o.rng, policy.Fraction{Num: 1, Den: 2}, policy.Fraction{Num: 3, Den: 5}, policy.Fraction{Num: 2, Den: 3})
	}
	p.Writes.ValueBytesMax = plan.Pick(o.rng, 0, 3, 4, 5, 6)
	p.Structure.NoSplit = o.rng.IntN(6) == 0
	if o.m.Cfg.Governance.Strong && o.rng.IntN(4) > 0 {
		p.Class, p.Approvals.Threshold = anchormesh.Strong, plan.Pick(o.rng, policy.Fraction{Num: 1, Den: 2}, policy.Fraction{Num: 3, Den: 5})
		if p.Validate(nil, nil) != nil {
			p.Class, p.Approvals.Threshold = anchormesh.Normal, policy.Fraction{}
		}
	}
	if o.m.Cfg.Governance.Light && p.Class == anchormesh.Normal && o.rng.IntN(2) == 0 {
		p.Class = anchormesh.Light
	}
	if p.Validate(nil, nil) != nil {
		p.Amend.Threshold = policy.Fraction{}
	}
	return p.Normal()
}
