package approval

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// Batch is what one entry of the log carries.
type Batch struct {
	Question Question
	Slots    []Slot
	Votes    []Vote // ascending by node
}

// Slot is one request's place in a batch.
type Slot struct {
	// Bytes are the request, behind Prefix bytes that nobody voted on: its stamp. Nil for
	// one that was refused: then Sum is its hash.
	Bytes  []byte
	Prefix int
	Sum    anchormesh.Hash
}

// Request returns what was voted on; nil if it was left out.
func (s *Slot) Request() []byte {
	if s.Bytes == nil {
		return nil
	}
	return s.Bytes[s.Prefix:]
}

// batchVersion is the first byte of an encoded batch.
const batchVersion = 1

// Append appends the form that an entry holds:
//
//	version 1 | question | slots: prefix+1 (0: refused), bytes or hash | votes: node, refusals, signature
func (b *Batch) Append(dst []byte) []byte {
	dst = b.Question.append(append(dst, batchVersion))
	for i := range b.Slots {
		if s := &b.Slots[i]; s.Bytes == nil {
			dst = append(append(dst, 0), s.Sum[:]...)
		} else {
			dst = fields.AppendBytes(binary.AppendUvarint(dst, uint64(s.Prefix+1)), s.Bytes)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.Votes)))
	for i := range b.Votes {
		v := &b.Votes[i]
		dst = fields.AppendBytes(dst, []byte(v.Node))
		dst = fields.AppendBytes(v.appendRefusals(dst), v.Signature)
	}
	return dst
}

// prefixMax bounds what is in front of a request.
const prefixMax = 64

// Parse reads what Append appended. Requests alias b.
func Parse(b []byte) (*Batch, error) {
	if len(b) == 0 || b[0] != batchVersion {
		return nil, fmt.Errorf("%w: unknown version", ErrEncoding)
	}
	r := reader{fields.Reader{Rest: b[1:], Minimal: true}}
	out := &Batch{Question: *r.question()}
	for range out.Question.Requests {
		s := Slot{Prefix: int(r.AtMost(prefixMax+1)) - 1}
		if s.Prefix < 0 {
			s.Prefix, s.Sum = 0, r.hash()
		} else if s.Bytes = r.Bytes(); len(s.Bytes) <= s.Prefix {
			r.Fail()
		}
		if r.Bad {
			return nil, ErrEncoding
		}
		out.Slots = append(out.Slots, s)
	}
	for range r.AtMost(VotesMax) {
		v := Vote{Node: anchormesh.NodeID(bytes.Clone(r.BytesAtMost(nodeBytesMax))), Refusals: r.refusals(), Signature: r.BytesAtMost(trust.SignatureBytesMax)}
		if r.Bad {
			return nil, ErrEncoding
		}
		out.Votes = append(out.Votes, v)
	}
	return out, r.end()
}

const nodeBytesMax = 128

// InForce is the replicated state that a batch is judged against.
type InForce struct {
	Mesh          anchormesh.MeshID
	Segment       anchormesh.SegmentID
	Generation    anchormesh.Generation
	Configuration uint64
	Term          uint64 // of the entry
	Sequence      uint64 // last admitted of the term; 0: none
	Policy, Trust uint64
	Index         uint64 // of the entry
	Threshold     trust.Threshold
	Voters        *trust.Electorate
}

// Verdict is what became of a request.
type Verdict struct {
	Admitted bool
	// Refusal and By are of the heaviest voter that refused it; nil if it is not refused
	// but not approved by enough either.
	Refusal *Refusal
	By      anchormesh.NodeID
}

// Judge counts the votes of a batch whose entry is applied. The error is ErrStale or
// ErrForged: then nothing of it is admitted. verify checks one signature.
func (b *Batch) Judge(in *InForce, verify func(node anchormesh.NodeID, statement, signature []byte) bool) ([]Verdict, error) {
	if err := b.fits(in); err != nil {
		return nil, err
	}
	if b.Question.Sequence <= in.Sequence {
		return nil, fmt.Errorf("%w: sequence %d, %d was admitted", ErrStale, b.Question.Sequence, in.Sequence)
	}
	return b.tally(in, verify)
}

// tally counts the votes of a batch that fits.
func (b *Batch) tally(in *InForce, verify func(node anchormesh.NodeID, statement, signature []byte) bool) ([]Verdict, error) {
	sums := make([]anchormesh.Hash, len(b.Slots))
	for i := range b.Slots {
		if sums[i] = b.Slots[i].Sum; b.Slots[i].Bytes != nil {
			sums[i] = Sum(b.Slots[i].Request())
		}
	}
	if Digest(sums) != b.Question.Digest {
		return nil, fmt.Errorf("%w: they are about other requests", ErrForged)
	}
	for i := range b.Votes {
		v := &b.Votes[i]
		switch {
		case i > 0 && b.Votes[i-1].Node >= v.Node:
			return nil, fmt.Errorf("%w: one votes twice, or they are out of order", ErrForged)
		case in.Voters.Weight(v.Node) == 0:
			return nil, fmt.Errorf("%w: %s has no vote", ErrForged, v.Node.Short())
		case len(v.Refusals) > 0 && v.Refusals[len(v.Refusals)-1].Request >= b.Question.Requests:
			return nil, fmt.Errorf("%w: %s refuses what was not asked", ErrForged, v.Node.Short())
		case !verify(v.Node, b.Question.Statement(v), v.Signature):
			return nil, fmt.Errorf("%w: %s did not sign", ErrForged, v.Node.Short())
		}
	}
	verdicts := make([]Verdict, len(b.Slots))
	for i := range b.Slots {
		c := count(b.Votes, i, in.Voters)
		verdicts[i] = Verdict{Admitted: b.Slots[i].Bytes != nil && in.Voters.Reached(in.Threshold, c.approve), Refusal: c.first, By: c.by}
	}
	return verdicts, nil
}

// fits reports whether the batch was approved for the state that it meets.
func (b *Batch) fits(in *InForce) error {
	q := &b.Question
	for _, f := range []struct {
		name      string
		have, now uint64
	}{
		{"mesh", uint64(q.Mesh), uint64(in.Mesh)},
		{"segment", uint64(q.Segment), uint64(in.Segment)},
		{"generation", uint64(q.Generation), uint64(in.Generation)},
		{"configuration", q.Configuration, in.Configuration},
		{"term", q.Term, in.Term},
		{"version of the policy", q.Policy, in.Policy},
		{"version of the trust ledger", q.Trust, in.Trust},
	} {
		if f.have != f.now {
			return fmt.Errorf("%w: %s %d, it is %d", ErrStale, f.name, f.have, f.now)
		}
	}
	if q.Index >= in.Index {
		return fmt.Errorf("%w: judged behind index %d, the entry is %d", ErrForged, q.Index, in.Index)
	}
	return nil
}

// counted is how the votes on one request stand.
type counted struct {
	approve, refuse uint32
	first           *Refusal // of the heaviest that refuses
	by              anchormesh.NodeID
}

func count(votes []Vote, request int, voters *trust.Electorate) (c counted) {
	heaviest := uint32(0)
	for i := range votes {
		w := voters.Weight(votes[i].Node)
		r := votes[i].refuses(request)
		if r == nil {
			c.approve += w
			continue
		}
		c.refuse += w
		if w > heaviest {
			heaviest, c.first, c.by = w, r, votes[i].Node
		}
	}
	return c
}
