package sim

import (
	"bytes"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/merger"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/steward"
)

// proposeSplit cuts the segment that holds a key, if this node leads it and the anchors
// agree. Who does not look leaves it to them to refuse what is not allowed, or to the log.
func proposeSplit(p *node.Process, at []byte, look bool) bool {
	for _, r := range p.Host.Sorted() {
		state := r.Machine.State()
		d := state.Descriptor
		g := p.Groups[d.Segment]
		if g == nil || !g.Leads() || !d.Range.Contains(at) {
			continue
		}
		p.Mesh.Names++
		split := &machine.Split{At: at, Right: node.ChildID(p.Mesh.Names),
			Evidence: lineage.Evidence{Reason: lineage.Operator, Operator: fmt.Sprint(p.ID)}}
		if look && state.Allows(split) != nil || bytes.Equal(at, d.Range.Start) {
			return false
		}
		enter := func(command []byte, err error) {
			if err == nil {
				p.Submit(d.Segment, replica.Proposal{Generation: d.Generation, Alone: true, Payload: command, Done: func(replica.Result) {}})
			}
		}
		if look || p.Rng.IntN(4) > 0 {
			approvals.At(p).Agree(d.Segment, split.Command(), enter)
		} else {
			enter(split.Command(), nil) // every replica refuses it
		}
		return true
	}
	return false
}

// splitSomewhere is a random split: at a random key, by whoever leads there.
func (m *world) splitSomewhere() {
	if m.Cfg.Mesh.SplitsMax <= m.Stats.Splits {
		return
	}
	s := plan.Pick(m.Rng, m.Segments...)
	at := fmt.Appendf(nil, "%s/%02d", s.Letter(), m.Rng.IntN(m.Cfg.Load.Keys+1))
	if m.Rng.IntN(4) == 0 {
		at = append(at, '+')
	}
	look := m.Rng.IntN(4) > 0
	times := plan.Pick(m.Rng, 1, 1, 2, 3)
	for range times { // several in a row, of one generation or of more
		for _, p := range m.Running() {
			if !p.Paused {
				p.Do(func() { proposeSplit(p, at, look) })
			}
		}
		at = fmt.Appendf(nil, "%s/%02d", s.Letter(), m.Rng.IntN(m.Cfg.Load.Keys+1))
	}
}

// moveSomewhere orders a replica of a random segment to go to another node.
func (m *world) moveSomewhere() {
	id, to := plan.Pick(m.Rng, m.Live...), plan.Pick(m.Rng, m.Computers...)
	for _, p := range m.Running() {
		here := p.Host.Held[id]
		if here == nil || p.Paused {
			continue
		}
		d := here.Machine.Descriptor()
		_, anchor := d.AnchorOn(to.ID)
		a := d.Anchors[m.Rng.IntN(len(d.Anchors))]
		if !anchor && a.Node != p.ID && a.Role == anchormesh.Voter {
			m.Stats.Moves++
			p.Do(func() { steward.At(p).Move(id, a.Replica, to.ID) })
		}
	}
}

// mergeSomewhere is a random attempt to merge, by whoever leads a left side.
func (m *world) mergeSomewhere() {
	left := plan.Pick(m.Rng, m.Live...)
	for _, p := range m.Running() {
		if !p.Paused {
			p.Do(func() { merger.At(p).Merge(left) })
		}
	}
}
