package pairing

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
)

// Method is the mesh call of this package.
const Method = 16

// Kinds of questions, all to a segment's leader.
const (
	askSide  = 1 // how do you stand? the answer is a side
	askAlign = 2 // move a replica; the answer is empty
	askHold  = 3 // begin nothing of your own with the segment for a while; the answer is empty
)

var (
	errMalformed = errors.New("pairing: malformed message")
	errNotLeader = errors.New("this node does not lead the segment")
)

// codeFailed is that of every failed answer: somebody else may answer, or this node
// later.
const codeFailed = 1

type question struct {
	kind     byte
	segment  anchormesh.SegmentID
	from, to anchormesh.NodeID // of an order
}

// encode: kind | segment 8 | length, from | to
func (q *question) encode() []byte {
	b := q.segment.AppendKey([]byte{q.kind})
	b = append(binary.AppendUvarint(b, uint64(len(q.from))), q.from...)
	return append(b, q.to...)
}

func parseQuestion(b []byte) (question, error) {
	if len(b) < 10 {
		return question{}, errMalformed
	}
	q := question{kind: b[0], segment: anchormesh.SegmentID(binary.BigEndian.Uint64(b[1:]))}
	size, n := binary.Uvarint(b[9:])
	if n <= 0 || size > uint64(len(b)-9-n) {
		return question{}, errMalformed
	}
	from := 9 + n
	q.from, q.to = anchormesh.NodeID(b[from:from+int(size)]), anchormesh.NodeID(b[from+int(size):])
	return q, nil
}

// Serve answers another node's question; it does not block.
func (p *Pairing) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	q, err := parseQuestion(payload)
	var answer []byte
	if err == nil {
		answer, err = p.answer(q)
	}
	if err != nil {
		to.Fail(codeFailed, err.Error())
		return
	}
	to.Reply(answer)
}

func (p *Pairing) answer(q question) ([]byte, error) {
	switch q.kind {
	case askSide:
		side, ok := p.cfg.Side(q.segment)
		if !ok {
			return nil, errNotLeader
		}
		return appendSide(nil, &side), nil
	case askAlign:
		return nil, p.cfg.Align(place.Order{Segment: q.segment, Kind: place.Replace, From: q.from, To: q.to, Align: true})
	case askHold:
		return nil, p.cfg.Hold(q.segment)
	}
	return nil, errMalformed
}

// appendSide: flags (1 dormant, 2 busy) | peak | fill | bytes | policy | length, degraded | descriptor
func appendSide(b []byte, s *place.Side) []byte {
	var flags uint64
	if s.Dormant {
		flags |= 1
	}
	if s.Busy {
		flags |= 2
	}
	for _, v := range []uint64{flags, s.Peak, s.Fill, uint64(max(s.Bytes, 0)), s.Policy, uint64(len(s.Degraded))} {
		b = binary.AppendUvarint(b, v)
	}
	return append(append(b, s.Degraded...), meshpb.EncodeDescriptor(s.Descriptor)...)
}

func parseSide(b []byte) (s place.Side, err error) {
	var flags, bytes, size uint64
	for _, v := range []*uint64{&flags, &s.Peak, &s.Fill, &bytes, &s.Policy, &size} {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return s, errMalformed
		}
		*v, b = x, b[n:]
	}
	if flags > 3 || bytes > math.MaxInt64 || size > uint64(len(b)) {
		return s, errMalformed
	}
	s.Dormant, s.Busy, s.Bytes, s.Degraded = flags&1 != 0, flags&2 != 0, int64(bytes), string(b[:size])
	s.Descriptor, err = meshpb.DecodeDescriptor(b[size:])
	return s, err
}
