package trust

import (
	"encoding/binary"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// What a call asks.
//
//	askApplied   count, then per segment: segment, generation, revision (0: no piece), length, first key
//	  answer     count, then per segment: 0 (not here), or 1, applied index, 0, or 1 and the piece's hash 32
//	askReport    segment, generation, term, version of the ledger
//	  answer     count, measures of five numbers, length, signature
const (
	askApplied = 1
	askReport  = 2
)

var errMalformed = errors.New("trust: the message cannot be read")

// question asks one voter about one segment.
type question struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	revision   anchormesh.Revision // at which a piece is compared; 0: none is
	from       []byte
}

// reply is the answer to one question.
type reply struct {
	here    bool
	applied uint64
	hashed  bool
	hash    [32]byte
}

// SegmentsMax bounds the segments of one call.
const SegmentsMax = 4096

// keyMax bounds the first key of a piece.
const keyMax = 64 << 10

func appendQuestions(b []byte, list []question) []byte {
	b = binary.AppendUvarint(append(b, askApplied), uint64(len(list)))
	for _, q := range list {
		for _, v := range []uint64{uint64(q.segment), uint64(q.generation), uint64(q.revision), uint64(len(q.from))} {
			b = binary.AppendUvarint(b, v)
		}
		b = append(b, q.from...)
	}
	return b
}

func parseQuestions(b []byte) (out []question, err error) {
	r := reader{fields.Reader{Rest: b}}
	for range r.AtMost(SegmentsMax) {
		q := question{segment: anchormesh.SegmentID(r.AtMost(1<<64 - 1)), generation: anchormesh.Generation(r.AtMost(1<<64 - 1))}
		q.revision, q.from = anchormesh.Revision(r.AtMost(1<<63-1)), r.bytes(keyMax)
		if r.Bad {
			break
		}
		out = append(out, q)
	}
	return out, r.end()
}

func appendReplies(b []byte, list []reply) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		a := &list[i]
		if !a.here {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(append(b, 1), a.applied)
		if !a.hashed {
			b = append(b, 0)
			continue
		}
		b = append(append(b, 1), a.hash[:]...)
	}
	return b
}

func parseReplies(b []byte) (out []reply, err error) {
	r := reader{fields.Reader{Rest: b}}
	for range r.AtMost(SegmentsMax) {
		var a reply
		if a.here = r.AtMost(1) == 1; a.here {
			a.applied = r.AtMost(1<<64 - 1)
			if a.hashed = r.AtMost(1) == 1; a.hashed {
				copy(a.hash[:], r.take(len(a.hash)))
			}
		}
		if r.Bad {
			break
		}
		out = append(out, a)
	}
	return out, r.end()
}

// wanted asks for a report.
type wanted struct {
	segment       anchormesh.SegmentID
	generation    anchormesh.Generation
	term, version uint64
}

func (w *wanted) append(b []byte) []byte {
	b = append(b, askReport)
	for _, v := range []uint64{uint64(w.segment), uint64(w.generation), w.term, w.version} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func parseWanted(b []byte) (w wanted, err error) {
	r := reader{fields.Reader{Rest: b}}
	w.segment, w.generation = anchormesh.SegmentID(r.AtMost(1<<64-1)), anchormesh.Generation(r.AtMost(1<<64-1))
	w.term, w.version = r.AtMost(1<<64-1), r.AtMost(1<<64-1)
	return w, r.end()
}

func appendReport(b []byte, r *trust.Report) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.Measures)))
	for _, m := range r.Measures {
		for _, v := range []uint32{m.Answered, m.Missed, m.Late, m.Invalid, m.Differs} {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	return append(binary.AppendUvarint(b, uint64(len(r.Signature))), r.Signature...)
}

func parseReport(b []byte) (out trust.Report, err error) {
	r := reader{fields.Reader{Rest: b}}
	for range r.AtMost(trust.VotersMax) {
		var m trust.Measure
		for _, f := range []*uint32{&m.Answered, &m.Missed, &m.Late, &m.Invalid, &m.Differs} {
			*f = uint32(r.AtMost(1<<32 - 1))
		}
		out.Measures = append(out.Measures, m)
	}
	out.Signature = r.bytes(trust.SignatureBytesMax)
	return out, r.end()
}

// reader reads; the first fault sticks.
type reader struct{ fields.Reader }

func (r *reader) take(n int) []byte {
	if n > len(r.Rest) {
		r.Bad, r.Rest = true, nil
		return nil
	}
	out := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return out
}

func (r *reader) bytes(most uint64) []byte { return r.take(int(r.AtMost(most))) }

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return errMalformed
	}
	return nil
}
