package scope

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// version is the first byte of everything encoded here.
const version = 3

// ErrMalformed is returned for bytes that are no canonical encoding.
var ErrMalformed = errors.New("scope: malformed bytes")

// signatureBytesMax is twice the size of an ed25519 signature.
const signatureBytesMax = 128

// nodeBytesMax is that of package lineage.
const nodeBytesMax = 128

// votesMax is how many votes one proposal can gather: each group has fewer voters, but
// those of earlier ones stay.
const votesMax = 64

func appendNumber(b []byte, all ...uint64) []byte {
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// appendWanted appends what the proposer said.
func (p *Proposal) appendWanted(b []byte) []byte {
	b = append(b, byte(p.Kind))
	b = appendNumber(fields.AppendBytes(b, p.Subject), p.Base, p.Version)
	b = fields.AppendBytes(b, EncodePolicy(p.Policy))
	b = appendNumber(b, uint64(p.Anchors), uint64(p.Segment))
	b = fields.AppendBytes(appendNumber(fields.AppendBytes(b, []byte(p.Survivor)), uint64(p.Generation)), p.Key)
	b = fields.AppendBytes(fields.AppendBytes(b, []byte(p.From)), []byte(p.To))
	b = fields.AppendBytes(b, []byte(p.Operator))
	return appendNumber(b, uint64(p.AtMillis))
}

func (r *reader) wanted() Proposal {
	p := Proposal{Kind: Kind(r.Byte()), Subject: r.bytes(PrefixBytesMax), Base: r.Number(), Version: r.Number(), Policy: r.policy()}
	p.Anchors, p.Segment = int(r.AtMost(1<<10)), anchormesh.SegmentID(r.Number())
	p.Survivor, p.Generation = anchormesh.NodeID(r.bytes(nodeBytesMax)), anchormesh.Generation(r.Number())
	p.Key = r.bytes(KeyBytesMax)
	p.From, p.To = anchormesh.NodeID(r.bytes(nodeBytesMax)), anchormesh.NodeID(r.bytes(nodeBytesMax))
	p.Operator = string(r.bytes(OperatorBytesMax))
	p.AtMillis = int64(r.AtMost(math.MaxInt64))
	return p
}

// EncodeWanted returns what the proposer said, as it stands in the log.
func (p *Proposal) EncodeWanted() []byte { return p.appendWanted([]byte{version}) }

// DecodeWanted reads what EncodeWanted wrote.
func DecodeWanted(b []byte) (Proposal, error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	p := r.wanted()
	if err := r.end(); err != nil {
		return Proposal{}, err
	}
	if !bytes.Equal(p.EncodeWanted(), b) {
		return Proposal{}, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return p, nil
}

// Statement is what a voter signs. The place in the home's log, of which there is only
// one, stands for the scope and its history; the digest for everything proposed.
func (p *Proposal) Statement(mesh anchormesh.MeshID, home anchormesh.SegmentID, approve bool) []byte {
	digest := sha256.Sum256(p.EncodeWanted())
	b := []byte("anchormesh scope vote v1\n")
	b = binary.BigEndian.AppendUint64(b, uint64(mesh))
	b = binary.BigEndian.AppendUint64(b, uint64(home))
	b = appendNumber(b, p.ID, p.Index, p.Term)
	verdict := byte(0)
	if approve {
		verdict = 1
	}
	return append(append(b, verdict), digest[:]...)
}

func (p *Proposal) append(b []byte) []byte {
	b = appendNumber(p.appendWanted(b), p.ID, p.Index, p.Term, uint64(len(p.Votes)))
	for i := range p.Votes {
		b = p.Votes[i].append(b)
	}
	return append(b, p.Entry[:]...)
}

func (v *Vote) append(b []byte) []byte {
	verdict := byte(0)
	if v.Approve {
		verdict = 1
	}
	return fields.AppendBytes(fields.AppendBytes(append(fields.AppendBytes(b, []byte(v.Node)), verdict), []byte(v.Why)), v.Signature)
}

func (r *reader) vote() Vote {
	return Vote{
		Node: anchormesh.NodeID(r.bytes(nodeBytesMax)), Approve: r.Byte() == 1,
		Why: string(r.bytes(NoteBytesMax)), Signature: r.bytes(signatureBytesMax),
	}
}

func (r *reader) proposal() *Proposal {
	p := r.wanted()
	p.ID, p.Index, p.Term = r.Number(), r.Number(), r.Number()
	for range r.AtMost(votesMax) {
		p.Votes = append(p.Votes, r.vote())
	}
	p.Entry = r.hash()
	return &p
}

// EncodeVote returns a vote on a proposal, as it stands in the log.
func EncodeVote(id uint64, v *Vote) []byte { return v.append(appendNumber([]byte{version}, id)) }

// DecodeVote reads what EncodeVote wrote.
func DecodeVote(b []byte) (id uint64, v Vote, err error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	id, v = r.Number(), r.vote()
	if err := r.end(); err != nil {
		return 0, Vote{}, err
	}
	return id, v, nil
}

// Encode returns the stored form.
func (r *Record) Encode() []byte {
	b := appendNumber([]byte{version}, r.InForce, r.Next, r.Recoveries, uint64(len(r.Versions)))
	for i := range r.Versions {
		v := &r.Versions[i]
		b = fields.AppendBytes(appendNumber(b, v.Number), EncodePolicy(v.Policy))
		b = appendNumber(fields.AppendBytes(b, []byte(v.Operator)), uint64(v.AtMillis), v.Proposal, v.Index, v.Term)
		b = appendNumber(append(b, v.Entry[:]...), v.Approved, v.Total)
	}
	for _, p := range []*Proposal{r.Doing, r.Recovering} {
		if p == nil {
			b = append(b, 0)
		} else {
			b = p.append(append(b, 1))
		}
	}
	b = appendNumber(b, uint64(len(r.Open)))
	for _, p := range r.Open {
		b = p.append(b)
	}
	b = appendNumber(b, uint64(len(r.Closed)))
	for i := range r.Closed {
		c := &r.Closed[i]
		b = fields.AppendBytes(append(appendNumber(b, c.ID), byte(c.Kind)), c.Subject)
		b = appendNumber(fields.AppendBytes(appendNumber(b, c.Version), []byte(c.Operator)), uint64(c.AtMillis))
		b = appendNumber(fields.AppendBytes(append(b, byte(c.Outcome)), []byte(c.Note)), c.Index)
	}
	b = appendNumber(b, uint64(len(r.Counts)))
	for i := range r.Counts {
		b = r.Counts[i].append(b)
	}
	return b
}

// Decode reads what Encode wrote, and refuses anything else.
func Decode(b []byte) (*Record, error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	out := &Record{InForce: r.Number(), Next: r.Number(), Recoveries: r.Number()}
	for range r.AtMost(VersionsMax) {
		out.Versions = append(out.Versions, r.oneVersion())
	}
	for _, p := range []**Proposal{&out.Doing, &out.Recovering} {
		if r.Byte() == 1 {
			*p = r.proposal()
		}
	}
	for range r.AtMost(OpenMax) {
		out.Open = append(out.Open, r.proposal())
	}
	for range r.AtMost(ClosedMax) {
		out.Closed = append(out.Closed, r.closed())
	}
	for range r.AtMost(CountsMax) {
		out.Counts = append(out.Counts, r.count())
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if !bytes.Equal(out.Encode(), b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return out, nil
}

func (r *reader) oneVersion() Version {
	v := Version{Number: r.Number(), Policy: r.policy(), Operator: string(r.bytes(OperatorBytesMax))}
	v.AtMillis, v.Proposal, v.Index, v.Term = int64(r.AtMost(math.MaxInt64)), r.Number(), r.Number(), r.Number()
	v.Entry = r.hash()
	v.Approved, v.Total = r.Number(), r.Number()
	return v
}

func (r *reader) closed() Closed {
	c := Closed{ID: r.Number(), Kind: Kind(r.Byte()), Subject: r.bytes(PrefixBytesMax), Version: r.Number()}
	c.Operator, c.AtMillis = string(r.bytes(OperatorBytesMax)), int64(r.AtMost(math.MaxInt64))
	c.Outcome, c.Note, c.Index = Outcome(r.Byte()), string(r.bytes(NoteBytesMax)), r.Number()
	return c
}

// reader takes an encoding apart. After the first failure it returns zeros.
type reader struct{ fields.Reader }

func (r *reader) end() error {
	if r.Bad {
		return fmt.Errorf("%w: cut short, over a limit or of another version", ErrMalformed)
	}
	if len(r.Rest) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.Rest))
	}
	return nil
}

func (r *reader) version() {
	if r.Byte() != version {
		r.Bad = true
	}
}

func (r *reader) hash() (h anchormesh.Hash) {
	copy(h[:], r.Take(uint64(len(h))))
	return h
}

// bytes returns a copy of at most limit bytes, nil for none.
func (r *reader) bytes(limit uint64) []byte {
	return append([]byte(nil), r.Take(r.AtMost(limit))...)
}

func (r *reader) policy() *policy.Policy {
	p, err := DecodePolicy(r.bytes(policy.BytesMax))
	if err != nil {
		r.Bad = true
	}
	return p
}
