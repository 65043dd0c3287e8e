package governor

import (
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/fields"
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
	askOrder   = 13 // to a segment's leader: carry out an order, or (flag) say whether it can be
	askRecover = 9  // to a survivor: begin the segment anew; the answer is its descriptor
	askDead    = 11 // to a keeper's leader: enter what is reported of a replica
	askReach   = 12 // to who has a replica: where does it end? the answer is term and index
	askFit     = 14 // to a segment's leader: could it be cut for the scope of that prefix?
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
	b := append([]byte{q.kind}, fields.AppendNumbers(nil, uint64(q.segment), uint64(q.generation), q.id)...)
	b = append(b, flagByte(q.flag))
	return fields.AppendBytes(fields.AppendBytes(b, q.text), q.body)
}

func parseQuestion(b []byte) (*question, error) {
	r := reader{fields.Reader{Rest: b}}
	q := &question{kind: r.Byte(), segment: anchormesh.SegmentID(r.Number()), generation: anchormesh.Generation(r.Number()), id: r.Number()}
	q.flag, q.text, q.body = r.Byte() == 1, r.bytes(), r.bytes()
	return q, r.end()
}

func (c *Change) encode() []byte {
	b := fields.AppendNumbers([]byte{byte(c.Kind), flagByte(c.AnyVersion)}, c.Expect, uint64(c.Segment))
	b = fields.AppendBytes(fields.AppendBytes(b, c.Prefix), scope.EncodePolicy(c.Policy))
	b = fields.AppendBytes(fields.AppendBytes(b, []byte(c.Survivor)), []byte(c.Operator))
	return fields.AppendBytes(fields.AppendBytes(fields.AppendBytes(b, c.Key), []byte(c.From)), []byte(c.To))
}

func parseChange(b []byte) (*Change, error) {
	r := reader{fields.Reader{Rest: b}}
	c := &Change{Kind: scope.Kind(r.Byte()), AnyVersion: r.Byte() == 1, Expect: r.Number(), Segment: anchormesh.SegmentID(r.Number())}
	c.Prefix = r.bytes()
	policy, err := scope.DecodePolicy(r.bytes())
	if err != nil {
		return nil, err
	}
	c.Policy, c.Survivor, c.Operator = policy, anchormesh.NodeID(r.bytes()), string(r.bytes())
	c.Key, c.From, c.To = r.bytes(), anchormesh.NodeID(r.bytes()), anchormesh.NodeID(r.bytes())
	return c, r.end()
}

func (v *View) encode() []byte {
	b := fields.AppendNumbers(fields.AppendBytes(nil, v.Prefix), uint64(v.Home), uint64(v.Anchors), uint64(len(v.Voters)))
	for _, n := range v.Voters {
		b = fields.AppendBytes(b, []byte(n))
	}
	b = fields.AppendNumbers(fields.AppendNumbers(b, v.Weights...), v.Needed)
	b = fields.AppendBytes(fields.AppendBytes(b, []byte(v.Leader)), v.Record.Encode())
	b = fields.AppendNumbers(b, uint64(len(v.Open)))
	for _, o := range v.Open {
		t := &o.Tally
		b = fields.AppendNumbers(b, o.ID, t.Approved, t.Refused, t.Total, t.Needed, uint64(len(o.Waiting)))
		for _, n := range o.Waiting {
			b = fields.AppendBytes(b, []byte(n))
		}
	}
	b = fields.AppendNumbers(b, uint64(len(v.Segments)))
	for _, s := range v.Segments {
		b = append(fields.AppendNumbers(b, uint64(s.Segment), s.Version), flagByte(s.Entered))
		b = fields.AppendBytes(fields.AppendBytes(b, s.Range.Start), s.Range.End)
	}
	return b
}

func parseView(b []byte) (*View, error) {
	r := reader{fields.Reader{Rest: b}}
	v := &View{Prefix: r.bytes(), Home: anchormesh.SegmentID(r.Number()), Anchors: int(r.Number())}
	v.Voters = r.nodes()
	for range v.Voters {
		v.Weights = append(v.Weights, r.Number())
	}
	v.Needed = r.Number()
	v.Leader = anchormesh.NodeID(r.bytes())
	record, err := scope.Decode(r.bytes())
	if err != nil {
		return nil, err
	}
	v.Record = record
	for range r.Count() {
		o := Standing{ID: r.Number(), Tally: scope.Tally{Approved: r.Number(), Refused: r.Number(), Total: r.Number(), Needed: r.Number()}}
		o.Waiting = r.nodes()
		v.Open = append(v.Open, o)
	}
	for range r.Count() {
		s := Adoption{Segment: anchormesh.SegmentID(r.Number()), Version: r.Number(), Entered: r.Byte() == 1}
		s.Range = anchormesh.KeyRange{Start: r.bytes(), End: r.bytes()}
		v.Segments = append(v.Segments, s)
	}
	return v, r.end()
}

func flagByte(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// reader takes a message apart. After the first failure it returns zeros.
type reader struct{ fields.Reader }

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return errMalformed
	}
	return nil
}

func (r *reader) bytes() []byte {
	n := r.Count()
	out := append([]byte(nil), r.Rest[:n]...)
	r.Rest = r.Rest[n:]
	return out
}

func (r *reader) nodes() (out []anchormesh.NodeID) {
	for range r.Count() {
		out = append(out, anchormesh.NodeID(r.bytes()))
	}
	return out
}
