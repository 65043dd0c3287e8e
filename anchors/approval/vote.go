package approval

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
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
	b = appendBytes(b, []byte(v.Node))
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
		b = appendBytes(append(b, denied), []byte(r.Rule))
	}
	return b
}

// AppendVote appends a vote as it travels, without its node.
func AppendVote(b []byte, v *Vote) []byte { return appendBytes(v.appendRefusals(b), v.Signature) }

// ParseVote reads what AppendVote appended.
func ParseVote(b []byte) (*Vote, error) {
	r := reader{b: b}
	v := &Vote{Refusals: r.refusals(), Signature: r.bytes(trust.SignatureBytesMax)}
	return v, r.end()
}

// AppendQuestion appends a question and the requests it is about, as they are shown.
func AppendQuestion(b []byte, q *Question, requests [][]byte) []byte {
	b = q.append(b)
	for _, r := range requests {
		b = appendBytes(b, r)
	}
	return b
}

// ParseQuestion reads what AppendQuestion appended, and checks that the digest is that
// of the requests. They alias b.
func ParseQuestion(b []byte) (*Question, [][]byte, error) {
	r := reader{b: b}
	q := r.question()
	requests, sums := make([][]byte, q.Requests), make([]anchormesh.Hash, q.Requests)
	for i := range requests {
		requests[i] = r.bytes(len(b))
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

func appendBytes(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }

// reader reads; the first fault sticks.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return ErrEncoding
	}
	return nil
}

func (r *reader) uint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most || n > 1 && r.b[n-1] == 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes(most int) []byte {
	n := r.uint(uint64(most))
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) hash() (h anchormesh.Hash) {
	if len(r.b) < len(h) {
		r.fail()
		return h
	}
	r.b = r.b[copy(h[:], r.b):]
	return h
}

func (r *reader) question() *Question {
	const most = 1<<64 - 1
	q := &Question{Mesh: anchormesh.MeshID(r.uint(most)), Segment: anchormesh.SegmentID(r.uint(most)), Generation: anchormesh.Generation(r.uint(most))}
	for _, f := range []*uint64{&q.Configuration, &q.Term, &q.Sequence, &q.Policy, &q.Trust, &q.Index} {
		*f = r.uint(most)
	}
	q.Requests, q.Digest = int(r.uint(RequestsMax)), r.hash()
	if q.Requests == 0 {
		r.fail()
	}
	return q
}

func (r *reader) refusals() (out []Refusal) {
	for range r.uint(RequestsMax) {
		x := Refusal{Request: int(r.uint(RequestsMax - 1))}
		denied := r.byte()
		x.Denied, x.Rule = denied == 1, string(r.bytes(RuleBytesMax))
		if denied > 1 || len(out) > 0 && out[len(out)-1].Request >= x.Request {
			r.fail()
		}
		if r.bad {
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
