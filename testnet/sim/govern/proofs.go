package govern

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
)

// adoption is what puts a decision in force elsewhere, once it is proven.
func (g *Governor) adoption(h home, entry anchormesh.Hash, rules *policy.Policy, anchors int) (*machine.Adoption, error) {
	if proof := g.proof(entry); proof != nil {
		return &machine.Adoption{Proof: proof, Policy: rules, Anchors: anchors}, nil
	}
	g.affirm(h, entry)
	return nil, errNotYet
}

// proof returns what proves an entry, if it is complete, and gathers more of it.
func (g *Governor) proof(entry anchormesh.Hash) *lineage.Proof {
	e := g.p.Mesh.Decided[entry] // found by its hash, which binds all of it
	p := g.proofs[entry]
	if p == nil {
		p = &lineage.Proof{Entry: e}
		g.proofs[entry] = p
	}
	if g.applied[entry] {
		p.Add(g.p.ID, g.p.Sign(lineage.Statement(entry)))
	}
	if p.Verify(e.Voters, node.Signed) == nil {
		return p
	}
	for _, n := range append(append([]anchormesh.NodeID{}, e.Voters.Incoming...), e.Voters.Outgoing...) {
		if n == g.p.ID {
			continue
		}
		g.p.Call(n, func(q *node.Process, answer func(func())) {
			if !At(q).applied[entry] {
				answer(func() {})
				return
			}
			signature := q.Sign(lineage.Statement(entry))
			answer(func() { p.Add(n, signature) })
		}, func() {})
	}
	return nil
}

// affirm has a decision signed anew if its proof does not come.
func (g *Governor) affirm(h home, entry anchormesh.Hash) {
	id, now := uint64(0), g.p.Mesh.K.Now()
	if h.Scope.Doing != nil && h.Scope.Doing.Entry == entry {
		id = h.Scope.Doing.ID
	}
	u := unproven{h.segment, entry}
	since, waits := g.unproven[u]
	if !waits {
		g.unproven[u] = now
		return
	}
	if now-since >= affirmAfter {
		g.unproven[u] = now
		g.p.Mesh.Stats.Affirmed++
		g.propose(h, machine.Affirm(id), func(error) {})
	}
}
