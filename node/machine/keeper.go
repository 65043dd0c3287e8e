package machine

import (
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// Structural commands of keepers; see package keeper. They stand in the log of a scope's
// home that is not light.
const (
	// OpDead reports a replica dead, and decides if that is enough: keeper.Report.
	OpDead = keyspace.OpStructural + 32 + iota
	// OpChoose says who begins a lost segment anew: segment, replica, node, position.
	OpChoose
	// OpBegun ends a case: segment, the lowest generation of which anything is heard.
	OpBegun
	// OpUnheard drops reports that did not come to a decision: segment.
	OpUnheard
)

// KeeperOperator stands for the person in what a keeper decides.
const KeeperOperator = "keeper"

// ReportDead returns the command that reports a replica dead.
func ReportDead(rep *keeper.Report) []byte { return append([]byte{byte(OpDead)}, rep.Encode()...) }

// Choose returns the command that names who begins a lost segment anew.
func Choose(segment anchormesh.SegmentID, h keeper.Holder, has keeper.Position) []byte {
	b := fields.AppendNumbers([]byte{byte(OpChoose)}, uint64(segment), uint64(h.Replica), has.Term, has.Index)
	return fields.AppendBytes(b, []byte(h.Node))
}

// Begun returns the command that ends a case: a segment has begun anew, or will not.
func Begun(segment anchormesh.SegmentID, lowest anchormesh.Generation) []byte {
	return fields.AppendNumbers([]byte{byte(OpBegun)}, uint64(segment), uint64(lowest))
}

// Unheard returns the command that drops what was reported of a segment.
func Unheard(segment anchormesh.SegmentID) []byte {
	return fields.AppendNumbers([]byte{byte(OpUnheard)}, uint64(segment))
}

func (s *State) keep(op keyspace.Op, place lineage.Place, body []byte) error {
	if op == OpDead {
		return s.dead(place, body)
	}
	r := reader{fields.Reader{Rest: body}}
	segment := anchormesh.SegmentID(r.AtMost(math.MaxUint64))
	var err error
	switch op {
	case OpChoose:
		h, has := keeper.Holder{Replica: anchormesh.ReplicaID(r.AtMost(math.MaxUint64))}, keeper.Position{Term: r.AtMost(math.MaxUint64), Index: r.AtMost(math.MaxUint64)}
		h.Node = anchormesh.NodeID(r.Bytes())
		if err = r.end(); err == nil {
			s.Keeper, err = s.Keeper.Choose(segment, h, has)
		}
	case OpBegun:
		lowest := anchormesh.Generation(r.AtMost(math.MaxUint64))
		if err = r.end(); err == nil {
			s.Keeper, err = s.Keeper.End(segment, lowest)
		}
	default:
		if err = r.end(); err == nil {
			s.Keeper, err = s.Keeper.Drop(segment)
		}
	}
	return err
}

// dead takes a report in. A segment that operators are recovering is theirs.
func (s *State) dead(place lineage.Place, body []byte) error {
	rep, err := keeper.DecodeReport(body)
	if err != nil {
		return err
	}
	switch {
	case s.Light():
		return fmt.Errorf("a light segment keeps nothing of others")
	case s.Scope.Deleting():
		return fmt.Errorf("%w: it is being deleted", scope.ErrBusy)
	case s.recovering(rep.Segment):
		return fmt.Errorf("%w: operators recover segment %s", scope.ErrBusy, rep.Segment)
	}
	record, lost, err := s.Keeper.Report(rep)
	if err != nil {
		return err
	}
	s.Keeper = record
	if !lost {
		return nil
	}
	c, _ := record.Case(rep.Segment)
	rule := lineage.Rule{From: s.Descriptor.Scope, Scope: s.Descriptor.Scope, Version: s.Descriptor.Policy, Policy: scope.PolicyHash(s.Policy)}
	why := lineage.Evidence{
		Reason: lineage.Recovery, Operator: KeeperOperator,
		Numbers: []uint64{uint64(rep.Segment), uint64(c.Generation()), uint64(len(c.Reports)), c.Best().Left.Term, c.Best().Left.Index},
	}
	if err := s.chained(place, rule, false, why); err != nil {
		return err
	}
	s.Keeper = record.Decide(rep.Segment, s.Chain.Head())
	return nil
}

// recovering reports whether operators want, or carry out, the recovery of a segment.
func (s *State) recovering(segment anchormesh.SegmentID) bool {
	r := s.Scope
	if r.Recovering != nil && r.Recovering.Segment == segment {
		return true
	}
	for _, p := range r.Open {
		if p.Kind == scope.Recover && p.Segment == segment {
			return true
		}
	}
	return false
}

// applyKeeper applies a command of keepers. An error is a known outcome.
func (m *Machine) applyKeeper(op keyspace.Op, e *consensus.Entry, body []byte) error {
	now := m.state.Load()
	switch {
	case now.Merging():
		return fmt.Errorf("%w: the segment is being merged", ErrRefused)
	case !now.Home():
		return fmt.Errorf("%w: segment %s is not the home of a scope", ErrRefused, now.Descriptor.Segment)
	}
	next := *now
	next.Descriptor = now.Descriptor.Clone()
	next.Descriptor.Changed = e.Index
	if err := next.keep(op, placeOf(e), body); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if next.Chain == now.Chain {
		next.Descriptor = now.Descriptor
	}
	m.govern(e, now, &next)
	return nil
}
