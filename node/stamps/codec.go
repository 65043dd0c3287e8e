package stamps

import (
	"encoding/binary"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace/line"
)

// What a call of Method asks for: its first byte.
const (
	askNumbers = 1 // line.Request, answered by line.Answer
	askBarrier = 2 // line.Barrier, answered by the uvarint applied index
	askAdopt   = 3 // uvarints segment and generation, then the Adopter's; so is the answer
)

// listMax bounds what one message may hold of anything, before it is read.
const listMax = 1 << 16

var errMalformed = errors.New("malformed message about a line of revisions")

// reader reads uvarints and byte strings; the first fault sticks.
type reader struct{ fields.Reader }

// count reads the length of a list whose elements take at least one byte each.
func (r *reader) count() int {
	n := r.Number()
	if n > listMax || n > uint64(len(r.Rest)) {
		r.Bad = true
		return 0
	}
	return int(n)
}

func (r *reader) keys() anchormesh.KeyRange {
	return anchormesh.KeyRange{Start: r.Bytes(), End: r.Bytes()}
}

// end says whether everything was read and was well formed.
func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return errMalformed
	}
	return nil
}

func appendKeys(b []byte, k anchormesh.KeyRange) []byte {
	return fields.AppendBytes(fields.AppendBytes(b, k.Start), k.End)
}

func appendRequest(b []byte, r *line.Request) []byte {
	b = fields.AppendNumbers(b, uint64(r.Line), uint64(r.Segment), uint64(r.Generation), uint64(len(r.Asks)))
	for i := range r.Asks {
		a := &r.Asks[i]
		b = fields.AppendNumbers(b, uint64(a.Segment), uint64(a.Generation), a.Term, a.Seq, uint64(a.Count))
		b = appendKeys(b, a.Range)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Since)))
	for _, t := range r.Since {
		b = binary.AppendUvarint(b, uint64(t))
	}
	return fields.AppendNumbers(b, uint64(r.Raise), uint64(r.Claim))
}

func parseRequest(b []byte) (line.Request, error) {
	r := reader{fields.Reader{Rest: b}}
	out := line.Request{
		Line: line.ID(r.Number()), Segment: anchormesh.SegmentID(r.Number()), Generation: anchormesh.Generation(r.Number()),
	}
	for range r.count() {
		a := line.Ask{
			Segment: anchormesh.SegmentID(r.Number()), Generation: anchormesh.Generation(r.Number()), Term: r.Number(), Seq: r.Number(),
		}
		count := r.Number()
		if count > listMax {
			return out, errMalformed
		}
		a.Count, a.Range = int(count), r.keys()
		out.Asks = append(out.Asks, a)
	}
	for range r.count() {
		out.Since = append(out.Since, int64(r.Number()))
	}
	out.Raise, out.Claim = int64(r.Number()), int64(r.Number())
	if out.Raise < 0 || out.Claim < 0 {
		return out, errMalformed
	}
	return out, r.end()
}

func appendAnswer(b []byte, a *line.Answer) []byte {
	b = fields.AppendNumbers(b, uint64(a.T), uint64(len(a.Grants)))
	for i := range a.Grants {
		g := &a.Grants[i]
		b = fields.AppendNumbers(b, uint64(g.Segment), uint64(g.Generation), g.Term, g.Seq, uint64(g.First), uint64(g.Count))
	}
	b = binary.AppendUvarint(b, uint64(len(a.Spreads)))
	for i := range a.Spreads {
		s := &a.Spreads[i]
		all := uint64(0)
		if s.All {
			all = 1
		}
		b = fields.AppendNumbers(b, all, uint64(len(s.Ranges)))
		for _, k := range s.Ranges {
			b = appendKeys(b, k)
		}
	}
	claimed := uint64(0)
	if a.Claimed {
		claimed = 1
	}
	return binary.AppendUvarint(b, claimed)
}

func parseAnswer(b []byte) (line.Answer, error) {
	r := reader{fields.Reader{Rest: b}}
	out := line.Answer{T: int64(r.Number())}
	for range r.count() {
		g := line.Grant{
			Segment: anchormesh.SegmentID(r.Number()), Generation: anchormesh.Generation(r.Number()), Term: r.Number(), Seq: r.Number(),
			First: int64(r.Number()),
		}
		g.Count = int(r.Number())
		out.Grants = append(out.Grants, g)
	}
	for range r.count() {
		s := line.Spread{All: r.Number() != 0}
		for range r.count() {
			s.Ranges = append(s.Ranges, r.keys())
		}
		out.Spreads = append(out.Spreads, s)
	}
	out.Claimed = r.Number() != 0
	return out, r.end()
}

func appendBarrier(b []byte, q *line.Barrier) []byte {
	return fields.AppendNumbers(b, uint64(q.Line), uint64(q.Segment), uint64(q.Generation), uint64(q.T))
}

func parseBarrier(b []byte) (line.Barrier, error) {
	r := reader{fields.Reader{Rest: b}}
	out := line.Barrier{
		Line: line.ID(r.Number()), Segment: anchormesh.SegmentID(r.Number()), Generation: anchormesh.Generation(r.Number()),
		T: int64(r.Number()),
	}
	return out, r.end()
}
