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
)

// version is the first byte of everything encoded here.
const version = 1

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

func appendBytes(b []byte, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// appendWanted appends what the proposer said.
func (p *Proposal) appendWanted(b []byte) []byte {
	b = append(b, byte(p.Kind))
	b = appendNumber(appendBytes(b, p.Subject), p.Base, p.Version)
	b = appendBytes(b, EncodePolicy(p.Policy))
	b = appendNumber(b, uint64(p.Anchors), uint64(p.Segment))
	b = appendBytes(appendBytes(b, []byte(p.Survivor)), []byte(p.Operator))
	return appendNumber(b, uint64(p.AtMillis))
}

func (r *reader) wanted() Proposal {
	p := Proposal{Kind: Kind(r.byte()), Subject: r.bytes(PrefixBytesMax), Base: r.number(), Version: r.number(), Policy: r.policy()}
	p.Anchors, p.Segment = int(r.most(1<<10)), anchormesh.SegmentID(r.number())
	p.Survivor, p.Operator = anchormesh.NodeID(r.bytes(nodeBytesMax)), string(r.bytes(OperatorBytesMax))
	p.AtMillis = int64(r.most(math.MaxInt64))
	return p
}

// EncodeWanted returns what the proposer said, as it stands in the log.
func (p *Proposal) EncodeWanted() []byte { return p.appendWanted([]byte{version}) }

// DecodeWanted reads what EncodeWanted wrote.
func DecodeWanted(b []byte) (Proposal, error) {
	r := reader{rest: b}
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
	return appendBytes(appendBytes(append(appendBytes(b, []byte(v.Node)), verdict), []byte(v.Why)), v.Signature)
}

func (r *reader) vote() Vote {
	return Vote{
		Node: anchormesh.NodeID(r.bytes(nodeBytesMax)), Approve: r.byte() == 1,
		Why: string(r.bytes(NoteBytesMax)), Signature: r.bytes(signatureBytesMax),
	}
}

func (r *reader) proposal() *Proposal {
	p := r.wanted()
	p.ID, p.Index, p.Term = r.number(), r.number(), r.number()
	for range r.most(votesMax) {
		p.Votes = append(p.Votes, r.vote())
	}
	p.Entry = r.hash()
	return &p
}

// EncodeVote returns a vote on a proposal, as it stands in the log.
func EncodeVote(id uint64, v *Vote) []byte { return v.append(appendNumber([]byte{version}, id)) }

// DecodeVote reads what EncodeVote wrote.
func DecodeVote(b []byte) (id uint64, v Vote, err error) {
	r := reader{rest: b}
	r.version()
	id, v = r.number(), r.vote()
	if err := r.end(); err != nil {
		return 0, Vote{}, err
	}
	return id, v, nil
}

// Encode returns the stored form.
func (r *Record) Encode() []byte {
	b := appendNumber([]byte{version}, r.InForce, r.Next, uint64(len(r.Versions)))
	for i := range r.Versions {
		v := &r.Versions[i]
		b = appendBytes(appendNumber(b, v.Number), EncodePolicy(v.Policy))
		b = appendNumber(appendBytes(b, []byte(v.Operator)), uint64(v.AtMillis), v.Proposal, v.Index, v.Term)
		b = appendNumber(append(b, v.Entry[:]...), v.Approved, v.Total)
	}
	if r.Doing == nil {
		b = append(b, 0)
	} else {
		b = r.Doing.append(append(b, 1))
	}
	b = appendNumber(b, uint64(len(r.Open)))
	for _, p := range r.Open {
		b = p.append(b)
	}
	b = appendNumber(b, uint64(len(r.Closed)))
	for i := range r.Closed {
		c := &r.Closed[i]
		b = appendBytes(append(appendNumber(b, c.ID), byte(c.Kind)), c.Subject)
		b = appendNumber(appendBytes(appendNumber(b, c.Version), []byte(c.Operator)), uint64(c.AtMillis))
		b = appendNumber(appendBytes(append(b, byte(c.Outcome)), []byte(c.Note)), c.Index)
	}
	return b
}

// Decode reads what Encode wrote, and refuses anything else.
func Decode(b []byte) (*Record, error) {
	r := reader{rest: b}
	r.version()
	out := &Record{InForce: r.number(), Next: r.number()}
	for range r.most(VersionsMax) {
		out.Versions = append(out.Versions, r.oneVersion())
	}
	if r.byte() == 1 {
		out.Doing = r.proposal()
	}
	for range r.most(OpenMax) {
		out.Open = append(out.Open, r.proposal())
	}
	for range r.most(ClosedMax) {
		out.Closed = append(out.Closed, r.closed())
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
	v := Version{Number: r.number(), Policy: r.policy(), Operator: string(r.bytes(OperatorBytesMax))}
	v.AtMillis, v.Proposal, v.Index, v.Term = int64(r.most(math.MaxInt64)), r.number(), r.number(), r.number()
	v.Entry = r.hash()
	v.Approved, v.Total = r.number(), r.number()
	return v
}

func (r *reader) closed() Closed {
	c := Closed{ID: r.number(), Kind: Kind(r.byte()), Subject: r.bytes(PrefixBytesMax), Version: r.number()}
	c.Operator, c.AtMillis = string(r.bytes(OperatorBytesMax)), int64(r.most(math.MaxInt64))
	c.Outcome, c.Note, c.Index = Outcome(r.byte()), string(r.bytes(NoteBytesMax)), r.number()
	return c
}

// reader takes an encoding apart. After the first failure it returns zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) end() error {
	if r.failed {
		return fmt.Errorf("%w: cut short, over a limit or of another version", ErrMalformed)
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.rest))
	}
	return nil
}

func (r *reader) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) version() {
	if r.byte() != version {
		r.failed = true
	}
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) hash() (h anchormesh.Hash) {
	copy(h[:], r.take(uint64(len(h))))
	return h
}

func (r *reader) number() uint64 { return r.most(math.MaxUint64) }

// most returns a number, zero if it is above the limit.
func (r *reader) most(limit uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.failed || n <= 0 || v > limit {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// bytes returns a copy of at most limit bytes, nil for none.
func (r *reader) bytes(limit uint64) []byte {
	return append([]byte(nil), r.take(r.most(limit))...)
}

func (r *reader) policy() *policy.Policy {
	p, err := DecodePolicy(r.bytes(policy.BytesMax))
	if err != nil {
		r.failed = true
	}
	return p
}
