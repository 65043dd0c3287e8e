package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/torture/audit"
)

// searchSteps bounds each search for a linear order, by what it costs in memory: some
// gigabytes. Searched is only where the order in which replicas applied commands is none.
const searchSteps = 1_000_000

// verdict lets the checkers judge the whole run.
func (m *world) verdict() {
	m.compareStates(true)
	for _, w := range m.watchers {
		w.Drain()
	}
	for _, s := range m.Segments {
		m.History.Events = append(m.History.Events, m.Events[node.LineOf(s.ID)]...)
	}
	for _, id := range m.Live { // of those that were merged, the events tell
		if got := m.highest(id); got < m.Acked[id] {
			m.Fail(fmt.Errorf("segment %s: %w: index %d was acknowledged, %d is the newest", id, check.ErrLost, m.Acked[id], got))
		}
	}
	m.resolve()
	dense, split := m.byLine()
	h := &m.History
	bounds := check.LeaseBounds{Early: 50*time.Millisecond + time.Duration(m.Jumps)*m.Cfg.Mesh.Lease.StepMax, Late: m.K.Now()}
	if m.Cfg.Load.Grant > 0 {
		bounds.Late = 25 * time.Second
	}
	for _, judge := range []func() error{
		func() error { return check.Leases(h.Leases, m.K.Now(), bounds) },
		func() error { return check.Watches(h.Watches, h.Events) },
		func() error { return check.Reads(h.Ops, h.Events) },
		func() error { return check.Explained(h.Ops, h.Events) },
		m.judgeOwners,
		m.judgeLineage,
		m.judgeGovernance,
		func() error { return check.Serial(split, h.Events) },
		func() error { return check.LinearizableKeys(split, searchSteps) },
		func() error { return check.Linearizable(dense, searchSteps) },
	} {
		if m.Err == nil {
			m.Fail(judge())
		}
	}
}

// resolve looks up in the log where writes took effect, and what became of those of unknown
// outcome. The mesh is at rest: what is not in the log now never will be.
func (m *world) resolve() {
	kept := m.History.Ops[:0]
	for i, op := range m.History.Ops {
		if command, ok := m.Commands[i]; ok {
			done, ok := m.Applies[command]
			op.Place = done.Place
			switch {
			case op.Result != nil:
			case !ok:
				continue
			default:
				op.Return, op.RevMin, op.RevMax = int64(done.At), done.Before, done.After
			}
		}
		kept = append(kept, op)
	}
	m.History.Ops = kept
}

// byLine parts the operations: those of lines that count by one to the end, and those
// of lines that were split.
func (m *world) byLine() (dense, split []check.Op) {
	for _, op := range m.History.Ops {
		if m.SplitLines[op.Line] {
			split = append(split, op)
		} else {
			dense = append(dense, op)
		}
	}
	return dense, split
}

// judgeOwners makes sure that every key has one owner, and that all replicas agree on
// who it is.
func (m *world) judgeOwners() error {
	for _, s := range m.Segments {
		var owners []check.Owner
		for _, p := range m.Running() {
			for _, r := range p.Host.Sorted() {
				d := r.Machine.Descriptor()
				if m.ScopeOf[d.Segment] == s.ID {
					owners = append(owners, check.Owner{Node: string(p.ID), Segment: uint64(d.Segment), Generation: uint64(d.Generation),
						Start: string(d.Range.Start), End: string(d.Range.End)})
				}
			}
		}
		if err := check.Owners(owners, string(s.Rng.Start), string(s.Rng.End)); err != nil {
			return fmt.Errorf("line %s: %w", node.LineOf(s.ID), err)
		}
	}
	return nil
}

// errLineage: a segment's record of how it came to be does not hold.
var errLineage = errors.New("lineage is broken")

// judgeLineage follows the lineage of every segment to its genesis.
func (m *world) judgeLineage() error {
	for _, s := range m.Segments {
		var chains []*lineage.Chain
		for _, p := range m.Running() {
			for _, r := range p.Host.Sorted() {
				state := r.Machine.State()
				if m.ScopeOf[state.Descriptor.Segment] != s.ID {
					continue
				}
				if err := lineage.Verify(state.Descriptor.Segment, state.Chain.Entries()); err != nil {
					return fmt.Errorf("%w: %w", errLineage, err)
				}
				if state.Chain.Head() != state.Descriptor.Lineage || !state.Chain.Now().Range.Equal(state.Descriptor.Range) {
					return fmt.Errorf("%w: segment %s is not where its lineage leads", errLineage, state.Descriptor.Segment)
				}
				chains = append(chains, state.Chain)
			}
		}
		gaps, forks := lineage.Survey(chains)
		if len(forks) > 0 {
			return fmt.Errorf("%w: %v and %v follow the same decision", errLineage, forks[0].One, forks[0].Other)
		}
		for _, g := range gaps { // chains are bounded: what they left behind was seen when it was applied
			e := m.Decided[g.Missing]
			for e != nil && e.Kind != lineage.Genesis {
				e = m.Decided[e.Previous[0]]
			}
			if e == nil {
				return fmt.Errorf("%w: segment %s does not lead to genesis", errLineage, g.Segment)
			}
		}
	}
	return nil
}

// judgeGovernance has the logs audited: every vote is counted again. Nothing is forgotten
// in a simulation, so that something could not be judged is a fault, too.
func (m *world) judgeGovernance() error {
	for _, v := range audit.Judge(m.Audit(m.operators.Asked)) {
		if v.Err != nil {
			return v.Err
		}
		if v.Unknown > 0 {
			return fmt.Errorf("%w: %s: %d could not be judged", errAudit, v.Name, v.Unknown)
		}
	}
	return nil
}

var errAudit = errors.New("the audit does not know all")
