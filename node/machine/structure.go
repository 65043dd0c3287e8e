package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// Structural commands. Each stands alone in its entry.
const (
	// OpSplit cuts the segment in two: Split.
	OpSplit = keyspace.OpStructural + iota
	// OpWindow moves the home's window: uvarint W.
	OpWindow
)

// ErrRefused is wrapped by structural commands that the state in force does not
// allow. They took effect nowhere.
var ErrRefused = errors.New("the structural change is refused")

// ErrForNow is an ErrRefused by what passes by itself: another change is under way.
var ErrForNow = fmt.Errorf("%w for now", ErrRefused)

// errCommand says that a structural command cannot be read.
var errCommand = errors.New("machine: structural command cannot be read")

// BoundaryMax is the longest boundary of a split, in bytes.
const BoundaryMax = lineage.KeyBytesMax

// Split cuts the segment at a key: what lies below stays, the rest becomes a segment
// of its own, with the same voters.
type Split struct {
	At       []byte // inside the range, behind its first key
	Right    anchormesh.SegmentID
	Evidence lineage.Evidence
}

// Command returns the split as a command of the log:
//
//	op | version 1 | right 8 | length, at | reason | pressure | spread | count, numbers | length, operator
func (s *Split) Command() []byte {
	b := append(make([]byte, 0, 64+len(s.At)), byte(OpSplit), 1)
	b = s.Right.AppendKey(b)
	b = fields.AppendBytes(b, s.At)
	return appendEvidence(b, &s.Evidence)
}

func appendEvidence(b []byte, e *lineage.Evidence) []byte {
	for _, v := range []uint64{uint64(e.Reason), e.Pressure, e.Spread, uint64(len(e.Numbers))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range e.Numbers {
		b = binary.AppendUvarint(b, v)
	}
	return fields.AppendBytes(b, []byte(e.Operator))
}

func (r *reader) evidence() (e lineage.Evidence) {
	e.Reason = lineage.Reason(r.AtMost(1<<16 - 1))
	e.Pressure, e.Spread = r.AtMost(1<<63), r.AtMost(1<<63)
	for range r.AtMost(lineage.NumbersMax) {
		e.Numbers = append(e.Numbers, r.AtMost(1<<63))
	}
	if e.Operator = string(r.Bytes()); len(e.Operator) > lineage.OperatorBytesMax {
		r.Bad = true
	}
	return e
}

// parseSplit reads what Command wrote, behind the op.
func parseSplit(b []byte) (*Split, error) {
	if len(b) < 9 || b[0] != 1 {
		return nil, errCommand
	}
	s := &Split{Right: anchormesh.SegmentID(binary.BigEndian.Uint64(b[1:]))}
	r := reader{fields.Reader{Rest: b[9:]}}
	s.At = r.Bytes()
	s.Evidence = r.evidence()
	return s, r.end()
}

// Window returns the command that moves the home's window to w.
func Window(w anchormesh.Revision) []byte {
	return binary.AppendUvarint([]byte{byte(OpWindow)}, uint64(w))
}

// reader reads uvarints and byte strings; the first fault sticks.
type reader struct{ fields.Reader }

// Birth is where the log of a right child begins, on every replica.
const (
	BirthIndex = 5
	BirthTerm  = 1
)

// Allows says why the state does not allow a split, if it does not.
func (s *State) Allows(split *Split) error {
	d := s.Descriptor
	switch {
	case s.Merging():
		return fmt.Errorf("%w: the segment is being merged", ErrForNow)
	case s.Turn.Phase != Settled:
		return fmt.Errorf("%w: %w", ErrForNow, errTurning)
	case s.Joint():
		return fmt.Errorf("%w: the anchor group is changing", ErrForNow)
	case len(d.Voters()) != len(d.Anchors):
		return fmt.Errorf("%w: an anchor is still learning", ErrForNow)
	case s.Policy != nil && s.Policy.Structure.NoSplit && split.Evidence.Reason != lineage.Boundary:
		return fmt.Errorf("%w: the policy of scope %q forbids splits", ErrRefused, d.Scope)
	case len(split.At) > BoundaryMax:
		return fmt.Errorf("%w: a boundary of %d bytes is too long, %d are allowed", ErrRefused, len(split.At), BoundaryMax)
	case !d.Range.Contains(split.At) || bytes.Equal(d.Range.Start, split.At):
		return fmt.Errorf("%w: boundary %q does not lie inside %s", ErrRefused, split.At, d.Range)
	case len(d.Range.Start) == 0 && string(split.At) == "\x00": // and as the end of a range it is etcd's word for no end
		return fmt.Errorf("%w: no key can lie below boundary %q", ErrRefused, split.At)
	case split.Right == 0 || split.Right == d.Segment:
		return fmt.Errorf("%w: %s is no name for the right child", ErrRefused, split.Right)
	}
	return nil
}

// split returns the states behind a split that is allowed, at a place of the log.
// The scope's first split begins its line of revisions: at is the newest revision.
func (s *State) split(split *Split, place lineage.Place, at anchormesh.Revision) (left, right *State, err error) {
	leftChain, rightChain, err := s.Chain.Split(place, split.At, split.Right, split.Evidence)
	if err != nil {
		return nil, nil, err
	}
	d := s.Descriptor.Clone()
	d.Generation++
	d.Range.End = bytes.Clone(split.At)
	d.Changed, d.Stamped, d.Lineage = place.Index, true, leftChain.Head()
	left = &State{Descriptor: d, Conf: s.Conf, Want: s.Want, Leaving: s.Leaving, Chain: leftChain, Line: s.Line, Window: s.Window,
		Right: s.Right, Policy: s.Policy, Scope: s.Scope, Trust: s.Trust, Soft: s.Soft, Turn: s.Turn, Keeper: s.Keeper}
	if left.Line == 0 {
		left.Line, left.Window = uint64(d.Segment), at
	}
	right = s.born(split, d.Generation, rightChain)
	right.Line, right.Turn = left.Line, s.Turn.reached()
	left.Left, right.Left = s.Left.Cut(d.Generation)
	return left, right, nil
}

// born returns the first state of a right child: the same nodes, new replica IDs.
func (s *State) born(split *Split, generation anchormesh.Generation, chain *lineage.Chain) *State {
	old := s.Descriptor
	d := &anchormesh.Descriptor{
		Mesh: old.Mesh, Segment: split.Right, Scope: old.Scope, Line: old.Line,
		Policy: old.Policy, Class: old.Class, Generation: generation,
		Range:   anchormesh.KeyRange{Start: bytes.Clone(split.At), End: old.Range.End},
		Changed: BirthIndex, Stamped: true, Lineage: chain.Head(),
	}
	var voters []uint64
	for i, a := range old.Anchors {
		a.Replica = anchormesh.ReplicaID(i + 1)
		d.Anchors = append(d.Anchors, a)
		voters = append(voters, uint64(a.Replica))
	}
	d.NextReplica = anchormesh.ReplicaID(len(d.Anchors) + 1)
	return &State{Descriptor: d, Conf: confOf(voters), Want: s.Want, Chain: chain, Policy: s.Policy, Trust: s.Trust}
}
