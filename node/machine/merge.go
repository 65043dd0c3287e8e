package machine

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/keyspace"
)

// Structural commands of a merge. The first, the third and the fourth stand in the
// left's log, the others in the right's.
const (
	// OpOpen begins an attempt: attempt, pair.
	OpOpen = keyspace.OpStructural + 2 + iota
	// OpFreeze makes the right serve nothing any more: attempt, pair.
	OpFreeze
	// OpAbsorb takes the right in: attempt, evidence.
	OpAbsorb
	// OpAbort ends an attempt without: attempt.
	OpAbort
	// OpThaw makes the right serve again: attempt, verdict.
	OpThaw
)

// ErrFrozen says that the segment is about to be taken in by its left neighbour. The
// request took effect nowhere; soon the segment that came of it, or this one, takes it.
var ErrFrozen = errors.New("the segment is being merged")

// Side is the segment as an attempt to merge names it.
func (s *State) Side() merge.Side { return SideOf(s.Descriptor) }

// SideOf is what an attempt to merge names of a segment.
func SideOf(d *anchormesh.Descriptor) merge.Side {
	side := merge.Side{Segment: d.Segment, Generation: d.Generation, Changed: d.Changed}
	for _, a := range d.Anchors {
		side.Nodes = append(side.Nodes, a.Node)
	}
	slices.Sort(side.Nodes)
	return side
}

// Judge says what became of an attempt to merge the segment whose range begins at key
// into the left of it, if this segment holds the last key below it; else ok is false.
func (s *State) Judge(key []byte, n merge.Attempt) (v merge.Verdict, ok bool) {
	r := &s.Descriptor.Range
	behind := r.Contains(key)
	if bytes.Compare(r.Start, key) >= 0 || !behind && !bytes.Equal(r.End, key) {
		return 0, false
	}
	return s.Left.Judge(merge.Place{Generation: s.Descriptor.Generation, Behind: behind}, n), true
}

// Frozen reports whether the segment serves nothing: until it is thawed, and for good
// once it was absorbed.
func (s *State) Frozen() bool { return s.Right.Frozen }

// Merging reports whether an attempt to merge is open or has frozen the segment.
// Nothing else of its structure changes meanwhile.
func (s *State) Merging() bool { return s.Left.Open || s.Right.Frozen }

// Settled says why the segment cannot be one of two that merge, if it cannot.
func (s *State) Settled() error {
	switch {
	case s.Merging():
		return fmt.Errorf("%w: %w", ErrForNow, merge.ErrBusy)
	case s.Joint():
		return fmt.Errorf("%w: the anchor group is changing", ErrForNow)
	case len(s.Descriptor.Voters()) != len(s.Descriptor.Anchors):
		return fmt.Errorf("%w: an anchor is still learning", ErrForNow)
	case s.Turn.Phase != Settled:
		return fmt.Errorf("%w: %w", ErrForNow, errTurning)
	case s.Line == 0:
		return fmt.Errorf("%w: the scope was never split", ErrRefused)
	case s.Policy != nil && s.Policy.Structure.NoMerge:
		return fmt.Errorf("%w: the policy of scope %q forbids merges", ErrRefused, s.Descriptor.Scope)
	}
	return nil
}

// Open returns the command that begins an attempt in the left's log.
func Open(n merge.Attempt, pair *merge.Pair) []byte {
	return appendPair(appendAttempt(OpOpen, n), pair)
}

// Freeze returns the command that freezes the right.
func Freeze(n merge.Attempt, pair *merge.Pair) []byte {
	return appendPair(appendAttempt(OpFreeze, n), pair)
}

// Absorb returns the command that ends an attempt with the merge.
func Absorb(n merge.Attempt, why *lineage.Evidence) []byte {
	return appendEvidence(appendAttempt(OpAbsorb, n), why)
}

// Abort returns the command that ends an attempt without.
func Abort(n merge.Attempt) []byte { return appendAttempt(OpAbort, n) }

// Thaw returns the command that ends a freeze, with what the left range's leader said
// of the attempt behind a read round.
func Thaw(n merge.Attempt, v merge.Verdict) []byte { return append(appendAttempt(OpThaw, n), byte(v)) }

func appendAttempt(op keyspace.Op, n merge.Attempt) []byte {
	return fields.AppendNumbers([]byte{byte(op)}, uint64(n.Generation), n.Number)
}

func appendPair(b []byte, p *merge.Pair) []byte { return appendSide(appendSide(b, &p.Left), &p.Right) }

func appendSide(b []byte, s *merge.Side) []byte {
	b = fields.AppendNumbers(b, uint64(s.Segment), uint64(s.Generation), s.Changed, uint64(len(s.Nodes)))
	for _, n := range s.Nodes {
		b = fields.AppendBytes(b, []byte(n))
	}
	return b
}

func (r *reader) generation() anchormesh.Generation {
	return anchormesh.Generation(r.AtMost(math.MaxUint64))
}

func (r *reader) attempt() merge.Attempt {
	return merge.Attempt{Generation: r.generation(), Number: r.AtMost(math.MaxUint64)}
}

func (r *reader) pair() merge.Pair { return merge.Pair{Left: r.side(), Right: r.side()} }

// sideMax bounds the nodes of one side.
const sideMax = 64

func (r *reader) side() merge.Side {
	s := merge.Side{
		Segment: anchormesh.SegmentID(r.AtMost(math.MaxUint64)), Generation: r.generation(),
		Changed: r.AtMost(math.MaxUint64),
	}
	for range r.AtMost(sideMax) {
		s.Nodes = append(s.Nodes, anchormesh.NodeID(r.Bytes()))
	}
	return s
}

// end reports whether everything was read, and nothing is left.
func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return errCommand
	}
	return nil
}

// ParseAttempt reads what Open and Freeze wrote behind the op.
func ParseAttempt(b []byte) (n merge.Attempt, pair merge.Pair, err error) {
	r := reader{fields.Reader{Rest: b}}
	n, pair = r.attempt(), r.pair()
	return n, pair, r.end()
}

// encodeMerge is the part of a State that merges concern:
//
//	left: flags (1 open, 2 absorbed), attempt, edge, pair if open or absorbed
//	right: flags (1 frozen), attempt and pair if frozen, decided attempt
func (s *State) encodeMerge() []byte {
	l, r := &s.Left, &s.Right
	b := fields.AppendNumbers(nil, flag(l.Open, 1)|flag(l.Absorbed, 2), uint64(l.Last.Generation), l.Last.Number, uint64(l.Edge))
	if l.Open || l.Absorbed {
		b = appendPair(b, &l.Pair)
	}
	b = fields.AppendNumbers(b, flag(r.Frozen, 1))
	if r.Frozen {
		b = appendPair(fields.AppendNumbers(b, uint64(r.By.Generation), r.By.Number), &r.Pair)
	}
	return fields.AppendNumbers(b, uint64(r.Decided.Generation), r.Decided.Number)
}

func flag(on bool, bit uint64) uint64 {
	if on {
		return bit
	}
	return 0
}

func (s *State) decodeMerge(b []byte) error {
	r := reader{fields.Reader{Rest: b}}
	flags := r.AtMost(3)
	s.Left = merge.Left{Last: r.attempt(), Edge: r.generation(), Open: flags&1 != 0, Absorbed: flags&2 != 0}
	if flags != 0 {
		s.Left.Pair = r.pair()
	}
	if r.AtMost(1) != 0 {
		s.Right.Frozen, s.Right.By, s.Right.Pair = true, r.attempt(), r.pair()
	}
	s.Right.Decided = r.attempt()
	if r.end() != nil {
		return fmt.Errorf("%w: attempts to merge", ErrState)
	}
	return nil
}

// OnAbsorb sets who finds the machine of a right neighbour on this node, nil if it is
// not here. It is called before the first entry is applied; find must not block.
func (m *Machine) OnAbsorb(find func(anchormesh.SegmentID) *Machine) { m.find = find }

// turn applies a command of a merge that changes nothing but the state's share of it.
func (m *Machine) turn(e *consensus.Entry, change func(next *State) error) error {
	now := m.state.Load()
	next := *now
	if err := change(&next); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	b := m.segment.Begin(e.Index, e.Term)
	next.store(b)
	b.End()
	m.put(&next) // the configuration is as it was: see Durable
	m.changed(Change{State: &next, Place: placeOf(e), Thawed: now.Frozen() && !next.Frozen()})
	return nil
}

func (m *Machine) applyOpen(e *consensus.Entry, body []byte) error {
	n, pair, err := ParseAttempt(body)
	if err != nil {
		return err
	}
	now := m.state.Load()
	if err := now.Settled(); err != nil {
		return err
	}
	return m.turn(e, func(next *State) error {
		side := now.Side()
		return next.Left.ApplyOpen(&side, n, pair)
	})
}

func (m *Machine) applyFreeze(e *consensus.Entry, body []byte) error {
	n, pair, err := ParseAttempt(body)
	if err != nil {
		return err
	}
	now := m.state.Load()
	if !now.Frozen() { // again by the same attempt is no error
		if err := now.Settled(); err != nil {
			return err
		}
		if stamps, _ := m.space.Held(); len(stamps) > 0 {
			return fmt.Errorf("%w: a transaction over several segments is not decided yet", ErrRefused)
		}
	}
	return m.turn(e, func(next *State) error {
		side := now.Side()
		return next.Right.ApplyFreeze(&side, n, pair)
	})
}

func (m *Machine) applyAbort(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	n := r.attempt()
	if err := r.end(); err != nil {
		return err
	}
	return m.turn(e, func(next *State) error { return next.Left.ApplyAbort(n) })
}

func (m *Machine) applyThaw(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	n, v := r.attempt(), merge.Verdict(r.AtMost(math.MaxUint8))
	if err := r.end(); err != nil {
		return err
	}
	return m.turn(e, func(next *State) error { return next.Right.ApplyThaw(n, v) })
}

// applyAbsorb takes in the right neighbour, whose replica on this node is frozen: its
// node confirmed that, durably, before this entry was proposed.
func (m *Machine) applyAbsorb(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	n, why := r.attempt(), r.evidence()
	if err := r.end(); err != nil {
		return err
	}
	now := m.state.Load()
	if !now.Left.Open || now.Left.Last != n {
		return fmt.Errorf("%w: %w", ErrRefused, merge.ErrNumber)
	}
	next := *now
	id := now.Left.Pair.Right.Segment
	right := m.find(id)
	invariant.Always(right != nil, "machine: segment %s absorbs %s, of which this node has no replica", m.segment.ID(), id)
	theirs := right.surrender(n)
	generation, err := next.Left.ApplyAbsorb(n, &theirs.Left)
	invariant.Always(err == nil, "machine: segment %s: the open attempt %v is not absorbed: %v", m.segment.ID(), n, err)
	chain, err := now.Chain.Merge(placeOf(e), theirs.Chain, why)
	if err != nil {
		panic("machine: committed merge does not follow from the lineage: " + err.Error())
	}
	d := now.Descriptor.Clone()
	d.Generation, d.Range.End = generation, theirs.Descriptor.Range.End
	d.Changed, d.Lineage = e.Index, chain.Head()
	next.Descriptor, next.Chain = d, chain
	b := m.segment.Begin(e.Index, e.Term)
	m.space.Absorb(b, right.space, 0)
	next.store(b)
	b.End()
	m.enter(&next)
	m.changed(Change{State: &next, Place: placeOf(e), Absorbed: theirs})
	return nil
}

// surrender ends a frozen machine: what it is given from now on changes nothing. Its
// space is the caller's.
func (m *Machine) surrender(n merge.Attempt) *State {
	m.applying.Lock()
	defer m.applying.Unlock()
	s := m.state.Load()
	invariant.Always(s.Frozen() && s.Right.By == n && !m.gone, "machine: segment %s is absorbed by attempt %v, gone: %v, state: %+v",
		m.segment.ID(), n, m.gone, s.Right)
	m.gone = true
	return s
}
