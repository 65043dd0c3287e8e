package machine

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// Structural commands of a hand-over: the keys of a prefix go from one line of revisions
// to another. The home is the segment that begins at the prefix; it leads, and the
// others follow.
//
//	home    OpTurn    serves nothing, until
//	to its own line:
//	others  OpSwitch   numbers come from the home, which gives none yet
//	home    OpBegin   the line begins above a number of the old one asked for now
//	to an outer line, which was raised above all that the own one gave:
//	home    OpSwitch   numbers come from there
//	others  OpSwitch   the same
//	home    OpSettle  all have gone over
const (
	// OpTurn begins a hand-over: the line it goes to.
	OpTurn = keyspace.OpStructural + 26 + iota
	// OpSwitch puts a segment on another line: Switching.
	OpSwitch
	// OpBegin ends the home's silence on its own line: number, base.
	OpBegin
	// OpLift makes a segment that counts go on above a number: revision, 1 if it must
	// not have been counted to yet.
	OpLift
	// OpSettle ends a hand-over to an outer line: number.
	OpSettle
)

var (
	// ErrBetween says that the segment is between two lines of revisions and serves
	// nothing. The request took effect nowhere; it may be tried again.
	ErrBetween = errors.New("the scope changes its line of revisions")

	errTurning = errors.New("the scope changes its line of revisions")
)

// Phase is how far the hand-over of a home has come.
type Phase uint8

const (
	// Settled: none is under way.
	Settled Phase = iota
	// Leaving: the home serves nothing.
	Leaving
	// Spreading: the home is on the outer line, others may not be.
	Spreading
)

// String is the word used in tables and logs.
func (p Phase) String() string {
	switch p {
	case Settled:
		return "settled"
	case Leaving:
		return "leaving"
	case Spreading:
		return "spreading"
	}
	return "unknown"
}

// Turn is the last hand-over that reached a segment. Of those that are not its home only
// By and Number are set.
//
// Encoded: phase byte, uvarints by, number, above, from and to with their lengths.
type Turn struct {
	By     anchormesh.SegmentID // the home that leads it; 0: there was none
	Number uint64               // the home's generation behind OpTurn
	Phase  Phase
	From   []byte // the line that the numbers came from
	To     []byte // the line that they come from next
	// Above is what the line it goes to must be raised above.
	Above anchormesh.Revision
}

// Own reports whether the hand-over goes to the home's own line.
func (t *Turn) Own(d *anchormesh.Descriptor) bool { return bytes.Equal(t.To, d.Range.Start) }

// reached is what a segment cut from this one knows of the hand-over.
func (t *Turn) reached() Turn { return Turn{By: t.By, Number: t.Number} }

func (t *Turn) encode() []byte {
	if t.By == 0 {
		return nil
	}
	b := fields.AppendNumbers([]byte{byte(t.Phase)}, uint64(t.By), t.Number, uint64(t.Above))
	return fields.AppendBytes(fields.AppendBytes(b, t.From), t.To)
}

func (t *Turn) decode(b []byte) error {
	r := reader{fields.Reader{Rest: b}}
	t.Phase = Phase(r.AtMost(uint64(Spreading)))
	t.By, t.Number, t.Above = anchormesh.SegmentID(r.AtMost(math.MaxUint64)), r.AtMost(math.MaxUint64), anchormesh.Revision(r.AtMost(math.MaxInt64))
	t.From, t.To = r.Bytes(), r.Bytes()
	if r.end() != nil {
		return fmt.Errorf("%w: hand-over of the line", ErrState)
	}
	return nil
}

// Switching is what OpSwitch says: by and number name the hand-over, home is the segment
// that keeps the line.
type Switching struct {
	By     anchormesh.SegmentID
	Number uint64
	Line   []byte
	Home   anchormesh.SegmentID
}

// Turning returns the command that begins a hand-over to a line.
func Turning(line []byte) []byte { return fields.AppendBytes([]byte{byte(OpTurn)}, line) }

// Switch returns the command that puts a segment on another line.
func Switch(a *Switching) []byte {
	b := fields.AppendNumbers([]byte{byte(OpSwitch)}, uint64(a.By), a.Number, uint64(a.Home))
	return fields.AppendBytes(b, a.Line)
}

// ParseSwitching reads what Switch wrote, behind the op.
func ParseSwitching(b []byte) (*Switching, error) {
	r := reader{fields.Reader{Rest: b}}
	a := &Switching{By: anchormesh.SegmentID(r.AtMost(math.MaxUint64)), Number: r.AtMost(math.MaxUint64), Home: anchormesh.SegmentID(r.AtMost(math.MaxUint64))}
	a.Line = r.Bytes()
	return a, r.end()
}

// Begin returns the command that begins the home's own line above base.
func Begin(number uint64, base anchormesh.Revision) []byte {
	return fields.AppendNumbers([]byte{byte(OpBegin)}, number, uint64(base))
}

// Lift returns the command that makes a segment that counts go on above rev. If it must
// be new, the command is refused where rev was counted to already: then rev is nobody's
// else.
func Lift(rev anchormesh.Revision, fresh bool) []byte {
	return fields.AppendNumbers([]byte{byte(OpLift)}, uint64(rev), flag(fresh, 1))
}

// Settle returns the command that ends a hand-over to an outer line.
func Settle(number uint64) []byte { return fields.AppendNumbers([]byte{byte(OpSettle)}, number) }

// Silent says why the segment serves nothing, if it does not.
func (s *State) Silent() error {
	switch {
	case s.Frozen():
		return ErrFrozen
	case s.Turn.Phase == Leaving:
		return ErrBetween
	}
	return nil
}

// Counts reports whether the segment's writes are counted by one as they are applied:
// it is all that its line has, and never was split since the line began.
func (s *State) Counts() bool { return s.Line == 0 }

// mayTurn says why the segment's line cannot be changed now, if it cannot. What is
// prepared has a stamp of the old line and waits for a revision of it.
func (m *Machine) mayTurn(now *State) error {
	if now.Merging() {
		return fmt.Errorf("%w: the segment is being merged", ErrRefused)
	}
	if held, _ := m.space.Held(); len(held) > 0 {
		return fmt.Errorf("%w: a transaction over several segments is not decided yet", ErrRefused)
	}
	return nil
}

func (m *Machine) applyTurn(e *consensus.Entry, op keyspace.Op, body []byte) error {
	now := m.state.Load()
	next := *now
	var base anchormesh.Revision
	var err error
	switch op {
	case OpTurn:
		err = m.turnAway(&next, body)
	case OpSwitch:
		err = m.switchOver(&next, body)
	case OpBegin:
		base, err = m.begin(&next, body)
	default:
		err = next.settle(body)
	}
	if err != nil {
		return err
	}
	if next.Descriptor != now.Descriptor {
		chain, err := now.Chain.Turn(placeOf(e), lineage.Evidence{Numbers: []uint64{uint64(next.Turn.By), next.Turn.Number}})
		if err != nil {
			panic("machine: committed hand-over does not follow from the lineage: " + err.Error())
		}
		next.Chain = chain
		next.Descriptor.Changed, next.Descriptor.Lineage = e.Index, chain.Head()
	}
	b := m.segment.Begin(e.Index, e.Term)
	if last, _ := m.segment.Revision(); next.Counts() && base > last {
		b.Raise(base)
	}
	next.store(b)
	b.End()
	m.enter(&next)
	m.changed(Change{State: &next, Place: placeOf(e)})
	return nil
}

// turnAway applies OpTurn. From Leaving it turns back.
func (m *Machine) turnAway(next *State, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	to := bytes.Clone(r.Bytes())
	if err := r.end(); err != nil {
		return err
	}
	d := next.Descriptor.Clone()
	own := bytes.Equal(to, d.Range.Start)
	switch {
	case len(d.Range.Start) == 0:
		return fmt.Errorf("%w: there is no line around the root scope's", ErrRefused)
	case !bytes.HasPrefix(d.Range.Start, to):
		return fmt.Errorf("%w: keys from %q on cannot be on the line of %q", ErrRefused, d.Range.Start, to)
	case !bytes.HasPrefix(d.Scope, to):
		return fmt.Errorf("%w: the segment is of the scope %q, which is not inside that of the line, %q", ErrRefused, d.Scope, to)
	case next.Turn.Phase == Spreading:
		return fmt.Errorf("%w: %w", ErrRefused, errTurning)
	case next.Turn.Phase == Settled && bytes.Equal(d.Line, to):
		return fmt.Errorf("%w: the segment is on the line of %q already", ErrRefused, to)
	case next.Turn.Phase == Settled && !own && !d.LineHome():
		return fmt.Errorf("%w: the segment is no home of a line", ErrRefused)
	}
	if err := m.mayTurn(next); err != nil {
		return err
	}
	from := d.Line
	if next.Turn.Phase == Leaving { // turned back: no number of the other line was used
		from = next.Turn.From
	}
	above, _ := m.segment.Revision()
	if bytes.Equal(from, d.Range.Start) {
		above = max(above, next.Window)
	}
	d.Generation++
	d.Line = d.Range.Start
	d.Stamped = !own || !d.Range.Equal(anchormesh.PrefixRange(d.Range.Start))
	next.Descriptor = d
	next.Turn = Turn{By: d.Segment, Number: uint64(d.Generation), Phase: Leaving, From: from, To: to, Above: above}
	return nil
}

// switchOver applies OpSwitch.
func (m *Machine) switchOver(next *State, body []byte) error {
	a, err := ParseSwitching(body)
	if err != nil {
		return err
	}
	d, turn := next.Descriptor.Clone(), next.Turn
	switch {
	case !bytes.HasPrefix(d.Scope, a.Line) || a.Home == 0:
		return errCommand
	case a.By != d.Segment && turn.Phase != Settled:
		return fmt.Errorf("%w: %w", ErrRefused, errTurning) // its own hand-over comes first
	case a.By != d.Segment && turn.By == a.By && turn.Number >= a.Number:
		return fmt.Errorf("%w: hand-over %d of %s was here", ErrRefused, turn.Number, a.By)
	case a.By == d.Segment && (turn.Phase != Leaving || turn.Number != a.Number || !bytes.Equal(turn.To, a.Line) || turn.Own(d)):
		return fmt.Errorf("%w: no such hand-over is under way", ErrRefused)
	}
	if err := m.mayTurn(next); err != nil {
		return err
	}
	d.Generation++
	d.Line, d.Stamped = bytes.Clone(a.Line), true
	next.Descriptor, next.Line, next.Window = d, uint64(a.Home), 0
	if a.By == d.Segment {
		next.Turn.Phase = Spreading
	} else {
		next.Turn = Turn{By: a.By, Number: a.Number}
	}
	return nil
}

// begin applies OpBegin.
func (m *Machine) begin(next *State, body []byte) (base anchormesh.Revision, err error) {
	r := reader{fields.Reader{Rest: body}}
	number, base := r.AtMost(math.MaxUint64), anchormesh.Revision(r.AtMost(math.MaxInt64))
	if err := r.end(); err != nil {
		return 0, err
	}
	d, turn := next.Descriptor, &next.Turn
	if turn.Phase != Leaving || turn.Number != number || !turn.Own(d) {
		return 0, fmt.Errorf("%w: no such hand-over is under way", ErrRefused)
	}
	base = max(base, turn.Above)
	next.Turn = turn.reached()
	if !d.Stamped {
		next.Line, next.Window = 0, 0
		return base, nil
	}
	next.Line, next.Window = uint64(d.Segment), base
	return base, nil
}

func (s *State) settle(body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	number := r.AtMost(math.MaxUint64)
	if err := r.end(); err != nil {
		return err
	}
	if s.Turn.Phase != Spreading || s.Turn.Number != number {
		return fmt.Errorf("%w: no such hand-over is under way", ErrRefused)
	}
	s.Turn = s.Turn.reached()
	return nil
}

func (m *Machine) applyLift(e *consensus.Entry, body []byte) error {
	r := reader{fields.Reader{Rest: body}}
	rev, fresh := anchormesh.Revision(r.AtMost(math.MaxInt64)), r.AtMost(1) != 0
	if err := r.end(); err != nil {
		return err
	}
	now := m.state.Load()
	if err := now.Silent(); err != nil {
		return err
	}
	last, _ := m.segment.Revision()
	switch {
	case !now.Counts():
		return fmt.Errorf("%w: the segment does not count by itself", ErrRefused)
	case last >= rev && fresh:
		return fmt.Errorf("%w: the segment has counted to %d already", ErrRefused, last)
	case last >= rev:
		m.skip(e)
		return nil
	}
	b := m.segment.Begin(e.Index, e.Term)
	b.Raise(rev)
	b.End()
	return nil
}
