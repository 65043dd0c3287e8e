package govern

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// errElsewhere says that another node may answer.
var errElsewhere = errors.New("sim: this node does not lead the segment")

// reply ends a question to a segment's leader with what the segment is then.
type reply func(*anchormesh.Descriptor, error)

// askLeader asks whoever is thought to lead a segment, then its other voters.
func (g *Governor) askLeader(d *anchormesh.Descriptor, ask func(q *Governor, done reply), done reply) {
	nodes := []anchormesh.NodeID{}
	if group := g.p.Groups[d.Segment]; group != nil && group.Status.Leader != "" {
		nodes = append(nodes, group.Status.Leader)
	}
	if n, ok := g.p.Table.Leader(d.Segment); ok {
		nodes = append(nodes, n)
	}
	for _, v := range d.Voters() {
		nodes = append(nodes, v.Node)
	}
	g.askOne(nodes, ask, done)
}

func (g *Governor) askOne(nodes []anchormesh.NodeID, ask func(q *Governor, done reply), done reply) {
	if len(nodes) == 0 {
		done(nil, errElsewhere)
		return
	}
	heard := func(d *anchormesh.Descriptor, err error) {
		if errors.Is(err, errElsewhere) {
			g.askOne(nodes[1:], ask, done)
			return
		}
		done(d, err)
	}
	if nodes[0] == g.p.ID {
		ask(g, heard)
		return
	}
	g.p.Call(nodes[0], func(q *node.Process, answer func(func())) {
		ask(At(q), func(d *anchormesh.Descriptor, err error) {
			if d != nil {
				d = d.Clone()
			}
			answer(func() { heard(d, err) })
		})
	}, func() { heard(nil, errElsewhere) })
}

// change has the leader of one generation of a segment put an entry into its log.
func (g *Governor) change(d *anchormesh.Descriptor, command func(*machine.State) ([]byte, error), done reply) {
	segment, generation := d.Segment, d.Generation
	g.askLeader(d, func(q *Governor, end reply) {
		r, group := q.p.Host.Held[segment], q.p.Groups[segment]
		if r == nil || group == nil || !group.Leads() {
			end(nil, errElsewhere)
			return
		}
		s := r.Machine.State()
		if s.Descriptor.Generation != generation { // it has changed: the answer says how
			end(s.Descriptor, nil)
			return
		}
		entry, err := command(s)
		if err != nil {
			end(nil, err)
			return
		}
		q.propose(home{s, segment, group.Status.Term, true}, entry, func(err error) { end(r.Machine.Descriptor(), err) })
	}, func(d *anchormesh.Descriptor, err error) {
		if err == nil {
			g.p.Table.Learn(d)
		}
		done(d, err)
	})
}

// carryOut goes on with what a home has decided.
func (g *Governor) carryOut(h home, done func(error)) {
	switch p := h.Scope.Doing; p.Kind {
	case scope.Create:
		g.create(h, p, done)
	case scope.Delete:
		own := h.Descriptor.Scope
		g.everywhere(h, p.Entry, p.Policy, p.Anchors, func(d *anchormesh.Descriptor) bool { return !bytes.Equal(d.Scope, own) }, func(err error) {
			if err != nil {
				done(err)
				return
			}
			g.propose(h, machine.Finish(p.ID, scope.Decided, ""), done)
		})
	default:
		done(nil)
	}
}

// create makes the scope that a home has decided.
func (g *Governor) create(h home, p *scope.Proposal, done func(error)) {
	if d, ok := g.p.Table.Lookup(p.Subject); ok && d.Home() && bytes.Equal(d.Scope, p.Subject) {
		g.created(h, p, d, done)
		return
	}
	g.found(h, p, true, done)
}

// found cuts out a scope that a home has decided, and has the first segment in it become
// its home unless there is one.
func (g *Governor) found(h home, p *scope.Proposal, adopt bool, done func(error)) {
	a, err := g.adoption(h, p.Entry, p.Policy, p.Anchors)
	if err != nil {
		done(err)
		return
	}
	g.cutOut(anchormesh.PrefixRange(p.Subject), a.Proof, func(d *anchormesh.Descriptor, err error) {
		if err != nil || !adopt {
			done(err)
			return
		}
		g.adopt(d, a, func(_ *anchormesh.Descriptor, err error) { done(err) })
	})
}

// created looks how far a scope is that has a home.
func (g *Governor) created(h home, p *scope.Proposal, d *anchormesh.Descriptor, done func(error)) {
	outcome, note := scope.Outcome(0), ""
	g.askLeader(d, func(q *Governor, end reply) {
		now, ok := q.homeOf(d.Segment)
		if !ok || !now.leads {
			end(nil, errElsewhere)
			return
		}
		q.p.ReadIndex(d.Segment, func(_ uint64, err error) {
			now, ok := q.homeOf(d.Segment)
			switch {
			case err != nil || !ok || !bytes.Equal(now.Descriptor.Scope, p.Subject):
				end(nil, errNotYet)
				return
			case !born(now.Scope, p):
				outcome, note = scope.Abandoned, "the scope exists"
			case now.Scope.InForce > 0:
				outcome = scope.Decided
			}
			end(now.Descriptor, nil)
		})
	}, func(_ *anchormesh.Descriptor, err error) {
		switch {
		case err != nil:
			done(errNotYet)
		case outcome == 0: // a merge may have undone the boundary at its end
			g.found(h, p, false, done)
		default:
			g.propose(h, machine.Finish(p.ID, outcome, note), done)
		}
	})
}

// born reports whether a scope came of a proposal.
func born(r *scope.Record, p *scope.Proposal) bool {
	first := r.Versions
	if len(first) == 0 {
		return false
	}
	return first[0].Number > 1 || first[0].Proposal == p.ID && first[0].AtMillis == p.AtMillis &&
		scope.PolicyHash(first[0].Policy) == scope.PolicyHash(p.Policy)
}

// cutOut makes the ends of a range boundaries of segments, by the proof of the decision
// that wants them, and finds the first one in it.
func (g *Governor) cutOut(keys anchormesh.KeyRange, proof *lineage.Proof, done reply) {
	for _, at := range [][]byte{keys.Start, keys.End} {
		d, ok := g.p.Table.Lookup(at)
		if len(at) == 0 || ok && bytes.Equal(d.Range.Start, at) {
			continue
		}
		if !ok {
			done(nil, errNotYet)
			return
		}
		g.change(d, func(s *machine.State) ([]byte, error) {
			g.p.Mesh.Names++
			split := &machine.Split{At: at, Right: node.ChildID(g.p.Mesh.Names), Evidence: lineage.Evidence{Reason: lineage.Boundary}}
			return (&machine.Decision{Proof: proof}).Allow(split.Command()), s.Allows(split)
		}, func(*anchormesh.Descriptor, error) { done(nil, errNotYet) }) // the next round sees the rest
		return
	}
	d, ok := g.p.Table.Lookup(keys.Start)
	if !ok || !bytes.Equal(d.Range.Start, keys.Start) || !keys.Covers(d.Range) {
		done(nil, errNotYet)
		return
	}
	done(d, nil)
}

func (g *Governor) adopt(d *anchormesh.Descriptor, a *machine.Adoption, done reply) {
	g.change(d, func(*machine.State) ([]byte, error) { return a.Command(), nil }, done)
}

// spread has every segment of a scope adopt the newest version, and notes that all have.
func (g *Governor) spread(h home, done func(error)) {
	newest, own := h.Scope.Newest(), h.Descriptor.Scope
	note := func(err error) {
		if err != nil || h.Scope.InForce >= newest.Number {
			done(err)
			return
		}
		g.propose(h, machine.InForce(newest.Number), done)
	}
	if g.p.Mesh.Cfg.Plant == plan.PlantHastyForce {
		note(nil)
		return
	}
	g.everywhere(h, newest.Entry, newest.Policy, 0, func(d *anchormesh.Descriptor) bool {
		return bytes.Equal(d.Scope, own) && d.Policy >= newest.Number || len(d.Scope) > len(own)
	}, note)
}

// everywhere has every segment of a scope but its home adopt a decision, and ends well
// when the answers of their leaders cover all its keys.
func (g *Governor) everywhere(h home, entry anchormesh.Hash, rules *policy.Policy, anchors int, has func(*anchormesh.Descriptor) bool, done func(error)) {
	parts, whole := g.p.Table.Parts(g.p.Mesh.KeysOf(h.segment, h.Descriptor.Scope))
	if !whole {
		done(errNotYet)
		return
	}
	a, err := g.adoption(h, entry, rules, anchors)
	if err != nil && (len(parts) > 1 || len(parts) == 0 || parts[0].Descriptor.Segment != h.segment) {
		done(err)
		return
	}
	left, failed := 1, error(nil)
	end := func(err error) {
		if err != nil {
			failed = err
		}
		if left--; left == 0 {
			done(failed)
		}
	}
	for _, part := range parts {
		d := part.Descriptor
		switch {
		case d.Segment == h.segment && !h.Descriptor.Range.Covers(part.Range):
			failed = errNotYet
		case d.Segment == h.segment:
		default:
			left++
			heard := func(now *anchormesh.Descriptor, err error) {
				if err == nil && (!has(now) && len(now.Scope) <= len(h.Descriptor.Scope) || !now.Range.Covers(part.Range)) {
					err = fmt.Errorf("%w: segment %s", errNotYet, d.Segment)
				}
				end(err)
			}
			switch inside := len(d.Scope) > len(h.Descriptor.Scope); {
			case inside:
				g.confirm(d, heard)
			case has(d): // a hint, that its leader has to confirm: of no generation nothing is changed
				g.change(&anchormesh.Descriptor{Segment: d.Segment, Anchors: d.Anchors}, nil, heard)
			default:
				g.adopt(d, a, heard)
			}
		}
	}
	end(nil)
}

// confirm asks a segment's leader what it is now.
func (g *Governor) confirm(d *anchormesh.Descriptor, done reply) {
	segment := d.Segment
	g.askLeader(d, func(q *Governor, end reply) {
		r, group := q.p.Host.Held[segment], q.p.Groups[segment]
		if r == nil || group == nil || !group.Leads() {
			end(nil, errElsewhere)
			return
		}
		q.p.ReadIndex(segment, func(_ uint64, err error) {
			if err != nil {
				end(nil, errNotYet)
				return
			}
			end(r.Machine.Descriptor(), nil)
		})
	}, func(d *anchormesh.Descriptor, err error) {
		if err == nil {
			g.p.Table.Learn(d)
		}
		done(d, err)
	})
}
