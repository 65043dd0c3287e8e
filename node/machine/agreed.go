package machine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
)

// OpAgreed holds a split, or the opening of a merge, with what allows it: a byte, then
//
//	1 | approval.Batch with the command as its only request
//	2 | length, lineage.Proof | length, scope.Proposal as wanted; empty: a new scope's end | command
const OpAgreed = keyspace.OpStructural + 20

const (
	byVotes    = 1
	byDecision = 2
)

// ErrUnagreed says that an optional change of structure came without its anchors' votes,
// or a decision of its scope's home. It took effect nowhere.
var ErrUnagreed = errors.New("the segment's anchors have not agreed to the change of its structure")

// RequireAgreement makes the machine refuse splits and merges that come without votes or
// a decision. It is called before the first entry is applied, or on no replica of a group.
func (m *Machine) RequireAgreement() { m.approvals.required = true }

// Agreed returns a command with the votes of the segment's anchors on it.
func Agreed(b *approval.Batch) []byte { return b.Append([]byte{byte(OpAgreed), byVotes}) }

// Decision is what a scope's home decided, as it allows a change of structure.
type Decision struct {
	Proof *lineage.Proof
	// Order is the proposal that was decided; nil: the creation of a scope, which allows
	// the cuts at its ends.
	Order *scope.Proposal
}

// Allow returns a command with the decision that allows it.
func (d *Decision) Allow(command []byte) []byte {
	var wanted []byte
	if d.Order != nil {
		wanted = d.Order.EncodeWanted()
	}
	b := fields.AppendBytes([]byte{byte(OpAgreed), byDecision}, d.Proof.Encode())
	return append(fields.AppendBytes(b, wanted), command...)
}

// RightOf is the name of the right child of a split that was ordered: it comes of the
// order, so that whoever carries it out, and again, makes the same one.
func RightOf(order *scope.Proposal) anchormesh.SegmentID {
	digest := sha256.Sum256(order.EncodeWanted())
	return anchormesh.SegmentID(binary.BigEndian.Uint64(digest[:])>>1 + 1)
}

// orderNumbers is the digest of an order as the lineage's evidence keeps it, behind the
// numbers of its vote.
func orderNumbers(order *scope.Proposal) []uint64 {
	digest := sha256.Sum256(order.EncodeWanted())
	out := make([]uint64, 0, len(digest)/8)
	for b := digest[:]; len(b) > 0; b = b[8:] {
		out = append(out, binary.BigEndian.Uint64(b))
	}
	return out
}

// Agreement is a command with what allows it: votes, or a decision.
type Agreement struct {
	Command []byte
	Votes   *approval.Batch
	By      *Decision
}

// ParseAgreed reads an OpAgreed, behind the op. What it says is not judged yet, but that
// the command is one that is agreed to.
func ParseAgreed(body []byte) (a Agreement, err error) {
	if len(body) == 0 {
		return a, errCommand
	}
	switch body[0] {
	case byVotes:
		if a.Votes, err = approval.Parse(body[1:]); err == nil && len(a.Votes.Slots) == 1 {
			a.Command = a.Votes.Slots[0].Bytes
		}
	case byDecision:
		a.By, a.Command, err = parseDecision(body[1:])
	}
	if err == nil && !optional(a.Command) {
		return a, fmt.Errorf("%w: it is nothing that is agreed to", errCommand)
	}
	return a, err
}

func parseDecision(body []byte) (d *Decision, command []byte, err error) {
	r := reader{fields.Reader{Rest: body}}
	proof, wanted := r.Bytes(), r.Bytes()
	if r.Bad {
		return nil, nil, errCommand
	}
	d = &Decision{}
	if d.Proof, err = lineage.DecodeProof(proof); err != nil || len(wanted) == 0 {
		return d, r.Rest, err
	}
	order, err := scope.DecodeWanted(wanted)
	d.Order = &order
	return d, r.Rest, err
}

// agreed returns the command of an entry that carries what allows it, if that holds here.
func (m *Machine) agreed(e *consensus.Entry, body []byte) ([]byte, error) {
	a, err := ParseAgreed(body)
	switch {
	case err != nil:
		return nil, err
	case a.Votes != nil:
		return a.Command, m.voted(e, &a)
	}
	return a.Command, m.decidedElsewhere(&a)
}

// optional reports whether a command is a change of structure that needs agreement.
func optional(command []byte) bool {
	return len(command) > 0 && (keyspace.Op(command[0]) == OpSplit || keyspace.Op(command[0]) == OpOpen)
}

func (m *Machine) voted(e *consensus.Entry, a *Agreement) error {
	in := m.ActInForce(e.Index, e.Term)
	verdict, err := a.Votes.JudgeAct(&in, m.approvals.verify)
	switch {
	case errors.Is(err, approval.ErrForged) && m.approvals.forged != nil:
		m.approvals.forged(e.Term, err)
		return err
	case err != nil:
		return err
	case !verdict.Admitted:
		return fmt.Errorf("%w: %w", ErrRefused, ErrUnagreed)
	}
	return m.state.Load().MayVote(a.Command)
}

// MayVote says why the anchors cannot agree to a command by their own votes: it is the
// operators' to decide, or its reason is one that no vote stands for.
func (s *State) MayVote(command []byte) error {
	if s.Policy != nil && s.Policy.Amend.Manual {
		return fmt.Errorf("%w: in scope %q operators vote on changes of structure", ErrRefused, s.Descriptor.Scope)
	}
	if len(command) == 0 || keyspace.Op(command[0]) != OpSplit {
		return nil
	}
	split, err := parseSplit(command[1:])
	if err == nil && split.Evidence.Reason == lineage.Boundary {
		return fmt.Errorf("%w: where a scope begins or ends is decided by the scope around it", ErrRefused)
	}
	return err
}

// JudgeAct says why a voter refuses a change of structure that it is asked about.
func (s *State) JudgeAct(command []byte) error {
	if !optional(command) {
		return fmt.Errorf("%w: it is nothing that is agreed to", ErrRefused)
	}
	if err := s.MayVote(command); err != nil {
		return err
	}
	if keyspace.Op(command[0]) == OpSplit {
		split, err := parseSplit(command[1:])
		if err != nil {
			return err
		}
		return s.Allows(split)
	}
	_, pair, err := ParseAttempt(command[1:])
	if err != nil {
		return err
	}
	if side := s.Side(); side.Segment != pair.Left.Segment || side.Generation != pair.Left.Generation {
		return fmt.Errorf("%w: segment %s is of generation %d", ErrRefused, side.Segment, side.Generation)
	}
	return s.Settled()
}

// ActInForce is what the votes on a change of structure are judged against: the threshold
// is that of amendments.
func (m *Machine) ActInForce(index, term uint64) approval.InForce {
	in := m.InForce(index, term)
	in.Sequence, in.Threshold = 0, trust.Threshold{}
	if p := m.state.Load().Policy; p != nil {
		in.Threshold = p.Amend.Threshold
	}
	return in
}

// decidedElsewhere makes sure that a home's decision allows a command.
func (m *Machine) decidedElsewhere(a *Agreement) error {
	if err := m.state.Load().allowedBy(a.By, a.Command); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := a.By.Proof.Verify(a.By.Proof.Entry.Voters, m.approvals.verify); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// errOther says that a decision allows something else.
var errOther = errors.New("the decision is about something else")

// allowedBy says why a decision, whose signatures nobody looked at yet, does not allow a
// command in this segment.
func (s *State) allowedBy(by *Decision, command []byte) error {
	e, d := by.Proof.Entry, s.Descriptor
	if e.Kind != lineage.Policy || e.Mesh != d.Mesh {
		return errOther
	}
	if by.Order == nil && bytes.HasPrefix(d.Scope, e.Rule.From) { // as in Adopts: one around both may have been made behind the vote
		return cutsOut(e, command)
	}
	if by.Order == nil || !bytes.Equal(e.Rule.From, d.Scope) {
		return errOther
	}
	o := by.Order
	numbers := e.Evidence.Numbers
	if !bytes.Equal(e.Rule.Scope, e.Rule.From) || len(numbers) != lineage.NumbersMax ||
		!equalNumbers(numbers[lineage.NumbersMax-4:], orderNumbers(o)) {
		return errOther
	}
	if o.Segment != d.Segment || o.Generation != d.Generation {
		return fmt.Errorf("%w: segment %s of generation %d, this is segment %s of generation %d", errOther, o.Segment, o.Generation, d.Segment, d.Generation)
	}
	switch op := keyspace.Op(command[0]); {
	case op == OpSplit && o.Kind == scope.Split:
		split, err := parseSplit(command[1:])
		if err != nil {
			return err
		}
		if !bytes.Equal(split.At, o.Key) || split.Right != RightOf(o) || split.Evidence.Reason != lineage.Operator || split.Evidence.Operator != o.Operator {
			return errOther
		}
		return nil
	case op == OpOpen && o.Kind == scope.Merge && bytes.Equal(o.Key, d.Range.End):
		return nil
	}
	return errOther
}

// cutsOut reports whether a command is a cut at an end of the scope that an entry makes.
func cutsOut(e *lineage.Entry, command []byte) error {
	if keyspace.Op(command[0]) != OpSplit || len(e.Rule.Scope) <= len(e.Rule.From) {
		return errOther
	}
	split, err := parseSplit(command[1:])
	if err != nil {
		return err
	}
	keys := anchormesh.PrefixRange(e.Rule.Scope)
	if split.Evidence.Reason != lineage.Boundary || !bytes.Equal(split.At, keys.Start) && !bytes.Equal(split.At, keys.End) {
		return errOther
	}
	return nil
}

func equalNumbers(a, b []uint64) bool {
	for i := range b {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}
