package governor

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

// Kinds of questions between nodes.
const (
	askPropose = 1  // to the home's leader: a change; the answer is the proposal's number
	askVote    = 2  // to the home's leader: count a signed vote
	askSign    = 3  // to a voter: vote as an operator says
	askShow    = 4  // to the home's leader: the scope; the answer is a View
	askClose   = 5  // to the home's leader: withdraw a proposal
	askAdopt   = 6  // to a segment's leader: put a command into its log; the answer is its descriptor
	askCut     = 7  // to a segment's leader: split at a key
	askAlive   = 8  // to a segment's leader: does a read round succeed?
	askWhere   = 10 // to who leads, or led, the segment that holds a key: what holds it now?
	askRecover = 9  // to a survivor: begin the segment anew; the answer is its descriptor
)

// Codes of failed answers.
const (
	codeRefused = 1 // and will be refused again
	codeRetry   = 2 // somebody else may answer, or this node later
	codeNoScope = 3
	codeUnknown = 4
	codeNotNow  = 5
)

var errMalformed = errors.New("governor: malformed question")

// question is what one node asks another. Which fields count depends on the kind.
type question struct {
	kind       byte
	segment    anchormesh.SegmentID // the home, or the segment to change
	generation anchormesh.Generation
	id         uint64 // of a proposal
	flag       bool   // approve; any version
	text       []byte // key, reason, operator's name
	body       []byte // command, vote, change
}

// encode returns
//
//	kind | segment | generation | id | flag | length, text | length, body
func (q *question) encode() []byte {
	b := append([]byte{q.kind}, appendNumbers(nil, uint64(q.segment), uint64(q.generation), q.id)...)
	b = append(b, flagByte(q.flag))
	return appendBytes(appendBytes(b, q.text), q.body)
}

func parseQuestion(b []byte) (*question, error) {
	r := reader{rest: b}
	q := &question{kind: r.byte(), segment: anchormesh.SegmentID(r.number()), generation: anchormesh.Generation(r.number()), id: r.number()}
	q.flag, q.text, q.body = r.byte() == 1, r.bytes(), r.bytes()
	return q, r.end()
}

func (c *Change) encode() []byte {
	b := appendNumbers([]byte{byte(c.Kind), flagByte(c.AnyVersion)}, c.Expect, uint64(c.Segment))
	b = appendBytes(appendBytes(b, c.Prefix), scope.EncodePolicy(c.Policy))
	return appendBytes(appendBytes(b, []byte(c.Survivor)), []byte(c.Operator))
}

func parseChange(b []byte) (*Change, error) {
	r := reader{rest: b}
	c := &Change{Kind: scope.Kind(r.byte()), AnyVersion: r.byte() == 1, Expect: r.number(), Segment: anchormesh.SegmentID(r.number())}
	c.Prefix = r.bytes()
	policy, err := scope.DecodePolicy(r.bytes())
	if err != nil {
		return nil, err
	}
	c.Policy, c.Survivor, c.Operator = policy, anchormesh.NodeID(r.bytes()), string(r.bytes())
	return c, r.end()
}

func (v *View) encode() []byte {
	b := appendNumbers(appendBytes(nil, v.Prefix), uint64(v.Home), uint64(v.Anchors), uint64(len(v.Voters)))
	for _, n := range v.Voters {
		b = appendBytes(b, []byte(n))
	}
	b = appendBytes(appendBytes(b, []byte(v.Leader)), v.Record.Encode())
	b = appendNumbers(b, uint64(len(v.Open)))
	for _, o := range v.Open {
		t := &o.Tally
		b = appendNumbers(b, o.ID, t.Approved, t.Refused, t.Total, t.Needed, uint64(len(o.Waiting)))
		for _, n := range o.Waiting {
			b = appendBytes(b, []byte(n))
		}
	}
	b = appendNumbers(b, uint64(len(v.Segments)))
	for _, s := range v.Segments {
		b = append(appendNumbers(b, uint64(s.Segment), s.Version), flagByte(s.Entered))
		b = appendBytes(appendBytes(b, s.Range.Start), s.Range.End)
	}
	return b
}

func parseView(b []byte) (*View, error) {
	r := reader{rest: b}
	v := &View{Prefix: r.bytes(), Home: anchormesh.SegmentID(r.number()), Anchors: int(r.number())}
	v.Voters = r.nodes()
	v.Leader = anchormesh.NodeID(r.bytes())
	record, err := scope.Decode(r.bytes())
	if err != nil {
		return nil, err
	}
	v.Record = record
	for range r.count() {
		o := Standing{ID: r.number(), Tally: scope.Tally{Approved: r.number(), Refused: r.number(), Total: r.number(), Needed: r.number()}}
		o.Waiting = r.nodes()
		v.Open = append(v.Open, o)
	}
	for range r.count() {
		s := Adoption{Segment: anchormesh.SegmentID(r.number()), Version: r.number(), Entered: r.byte() == 1}
		s.Range = anchormesh.KeyRange{Start: r.bytes(), End: r.bytes()}
		v.Segments = append(v.Segments, s)
	}
	return v, r.end()
}

func appendNumbers(b []byte, all ...uint64) []byte {
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendBytes(b, v []byte) []byte { return append(appendNumbers(b, uint64(len(v))), v...) }

func flagByte(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// reader takes a message apart. After the first failure it returns zeros.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) end() error {
	if r.failed || len(r.rest) > 0 {
		return errMalformed
	}
	return nil
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count is a number of things, each of which takes a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return 0
	}
	return int(min(n, math.MaxInt32))
}

func (r *reader) bytes() []byte {
	n := r.count()
	out := append([]byte(nil), r.rest[:n]...)
	r.rest = r.rest[n:]
	return out
}

func (r *reader) nodes() (out []anchormesh.NodeID) {
	for range r.count() {
		out = append(out, anchormesh.NodeID(r.bytes()))
	}
	return out
}
