package approval

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// Limits of a batch; they are part of what can be read.
const (
	RequestsMax  = 1024
	VotesMax     = trust.VotersMax
	RuleBytesMax = 512
)

var (
	// ErrEncoding says that bytes are no batch, question or vote.
	ErrEncoding = errors.New("the approved batch cannot be read")
	// ErrStale says that a batch was approved for another place: term, sequence,
	// generation, configuration, policy or weights are others now. It took effect nowhere.
	ErrStale = errors.New("the approvals were given for another state of the segment")
	// ErrForged says that a batch carries votes that nobody gave. It took effect nowhere.
	ErrForged = errors.New("the approvals were not given by the voters that they name")
)

// Question is what the votes on a batch have in common.
type Question struct {
	Mesh          anchormesh.MeshID
	Segment       anchormesh.SegmentID
	Generation    anchormesh.Generation
	Configuration uint64 // index of the entry that put the voters in force
	Term          uint64
	Sequence      uint64 // within the term, from 1
	Policy, Trust uint64 // versions
	Index         uint64 // of the log; it is judged behind it, and behind all batches approved before
	Requests      int
	Digest        anchormesh.Hash // of the requests, see Digest
}

// Refusal is a voter's no to one request.
type Refusal struct {
	Request int
	// Rule is the text that the client gets: which rule, and why.
	Rule string
	// Denied says that it is about who writes, and not about what is written.
	Denied bool
}

// Vote is one voter's word on a batch: what it does not refuse it approves.
type Vote struct {
	Node      anchormesh.NodeID
	Refusals  []Refusal // ascending by request
	Signature []byte
}

// Sum is the hash of one request.
func Sum(request []byte) anchormesh.Hash { return sha256.Sum256(request) }

// Digest is the hash of a batch: of its requests' hashes in their order. A request that
// was refused can so be left out of the entry.
func Digest(sums []anchormesh.Hash) anchormesh.Hash {
	h := sha256.New()
	for i := range sums {
		h.Write(sums[i][:])
	}
	return anchormesh.Hash(h.Sum(nil))
}

// Statement is what a voter signs.
func (q *Question) Statement(v *Vote) []byte {
	b := append(make([]byte, 0, 192), "anchormesh approval v1\n"...)
	b = q.append(b)
	b = fields.AppendBytes(b, []byte(v.Node))
	return v.appendRefusals(b)
}

func (q *Question) append(b []byte) []byte {
	for _, v := range []uint64{uint64(q.Mesh), uint64(q.Segment), uint64(q.Generation), q.Configuration,
		q.Term, q.Sequence, q.Policy, q.Trust, q.Index, uint64(q.Requests)} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, q.Digest[:]...)
}

func (v *Vote) appendRefusals(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v.Refusals)))
	for i := range v.Refusals {
		r := &v.Refusals[i]
		b = binary.AppendUvarint(b, uint64(r.Request))
		denied := byte(0)
		if r.Denied {
			denied = 1
		}
		b = fields.AppendBytes(append(b, denied), []byte(r.Rule))
	}
	return b
}

// AppendVote appends a vote as it travels, without its node.
func AppendVote(b []byte, v *Vote) []byte {
	return fields.AppendBytes(v.appendRefusals(b), v.Signature)
}

// ParseVote reads what AppendVote appended.
func ParseVote(b []byte) (*Vote, error) {
	r := reader{fields.Reader{Rest: b, Minimal: true}}
	v := &Vote{Refusals: r.refusals(), Signature: r.BytesAtMost(trust.SignatureBytesMax)}
	return v, r.end()
}

// AppendQuestion appends a question and the requests it is about, as they are shown.
func AppendQuestion(b []byte, q *Question, requests [][]byte) []byte {
	b = q.append(b)
	for _, r := range requests {
		b = fields.AppendBytes(b, r)
	}
	return b
}

// ParseQuestion reads what AppendQuestion appended, and checks that the digest is that
// of the requests. They alias b.
func ParseQuestion(b []byte) (*Question, [][]byte, error) {
	r := reader{fields.Reader{Rest: b, Minimal: true}}
	q := r.question()
	requests, sums := make([][]byte, q.Requests), make([]anchormesh.Hash, q.Requests)
	for i := range requests {
		requests[i] = r.Bytes()
		sums[i] = Sum(requests[i])
	}
	if err := r.end(); err != nil {
		return nil, nil, err
	}
	if Digest(sums) != q.Digest {
		return nil, nil, fmt.Errorf("%w: the digest is that of other requests", ErrEncoding)
	}
	return q, requests, nil
}

// reader reads; the first fault sticks.
type reader struct{ fields.Reader }

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return ErrEncoding
	}
	return nil
}

func (r *reader) hash() (h anchormesh.Hash) {
	if len(r.Rest) < len(h) {
		r.Fail()
		return h
	}
	r.Rest = r.Rest[copy(h[:], r.Rest):]
	return h
}

func (r *reader) question() *Question {
	const most = 1<<64 - 1
	q := &Question{Mesh: anchormesh.MeshID(r.AtMost(most)), Segment: anchormesh.SegmentID(r.AtMost(most)), Generation: anchormesh.Generation(r.AtMost(most))}
	for _, f := range []*uint64{&q.Configuration, &q.Term, &q.Sequence, &q.Policy, &q.Trust, &q.Index} {
		*f = r.AtMost(most)
	}
	q.Requests, q.Digest = int(r.AtMost(RequestsMax)), r.hash()
	if q.Requests == 0 {
		r.Fail()
	}
	return q
}

func (r *reader) refusals() (out []Refusal) {
	for range r.AtMost(RequestsMax) {
		x := Refusal{Request: int(r.AtMost(RequestsMax - 1))}
		denied := r.Byte()
		x.Denied, x.Rule = denied == 1, string(r.BytesAtMost(RuleBytesMax))
		if denied > 1 || len(out) > 0 && out[len(out)-1].Request >= x.Request {
			r.Fail()
		}
		if r.Bad {
			return nil
		}
		out = append(out, x)
	}
	return out
}

// refuses returns a voter's refusal of a request, if there is one.
func (v *Vote) refuses(request int) *Refusal {
	i, found := slices.BinarySearchFunc(v.Refusals, request, func(r Refusal, n int) int { return r.Request - n })
	if !found {
		return nil
	}
	return &v.Refusals[i]
}
