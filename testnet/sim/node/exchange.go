package node

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// Exchange asks somebody for descriptors.
func (p *Process) Exchange() {
	var others []*Computer
	for _, n := range p.Mesh.Computers {
		if n.Index != p.Index && n.Proc != nil {
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		p.ask(plan.Pick(p.Rng, others...))
	}
}

// stranger asks a node that spoke to a replica which is not here.
func (p *Process) stranger(from anchormesh.NodeID) {
	n := p.Mesh.Find(from)
	now := p.Mesh.K.Now()
	if last, ok := p.asked[n.Index]; ok && now-last < 200*time.Millisecond {
		return
	}
	p.asked[n.Index] = now
	p.ask(n)
}

func (p *Process) ask(n *Computer) {
	p.Mesh.Net.Stream(p.Index, n.Index, func() {
		q := n.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			told := slices.Clone(q.Table.All())
			p.Mesh.Net.Stream(n.Index, p.Index, func() {
				p.Do(func() {
					for _, d := range told {
						p.hint(d.Clone())
					}
				})
			})
		})
	})
}
