package entropy

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Evidence is what a decision rests on, as it is written into the log and the
// lineage: integers only, with one encoding.
type Evidence struct {
	Action Action
	Cause  Cause
	// Reversals is how often the segment's forebears went back and forth, this
	// decision included.
	Reversals uint8
	Numbers   Numbers
}

// ErrEvidence is what bytes that are no evidence are refused with.
var ErrEvidence = errors.New("entropy: malformed evidence")

// evidenceVersion is the first byte.
const evidenceVersion = 1

// fields are the numbers in the order of the encoding, which is fixed.
func (n *Numbers) fields() [15]*uint64 {
	return [...]*uint64{
		&n.WritesPerSec, &n.ReadsPerSec, &n.BytesPerSec, &n.CommitMicros, &n.Queue, &n.Size, &n.Keys,
		&n.Pressure, &n.Load, &n.Fill, &n.Peak, &n.Spread, &n.HotKey, &n.Edge, &n.Left,
	}
}

// Append appends the encoding:
//
//	version 1 | action | cause | reversals | pressing | 15 numbers, each a uvarint
//
// The first five are a byte each.
func (e Evidence) Append(b []byte) []byte {
	b = append(b, evidenceVersion, byte(e.Action), byte(e.Cause), e.Reversals, byte(e.Numbers.Pressing))
	for _, f := range e.Numbers.fields() {
		b = binary.AppendUvarint(b, *f)
	}
	return b
}

// ParseEvidence reads what Append wrote, and nothing else: what decodes encodes to
// the same bytes.
func ParseEvidence(b []byte) (Evidence, error) {
	if len(b) < 5 || b[0] != evidenceVersion || int(b[1]) >= len(actions) || int(b[2]) >= len(causes) ||
		b[3] > maxReversals || int(b[4]) >= len(causes) {
		return Evidence{}, ErrEvidence
	}
	e := Evidence{Action: Action(b[1]), Cause: Cause(b[2]), Reversals: b[3]}
	e.Numbers.Pressing = Cause(b[4])
	rest := b[5:]
	for _, f := range e.Numbers.fields() {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return Evidence{}, ErrEvidence
		}
		*f, rest = v, rest[n:]
	}
	if len(rest) > 0 || !bytes.Equal(e.Append(nil), b) {
		return Evidence{}, ErrEvidence
	}
	return e, nil
}

// Birth is what the segments made by the decision inherit from it. A leader that
// was not there when it fell reads it from the lineage.
func (e Evidence) Birth() Birth {
	if e.Action != Split && e.Action != Merge {
		return Birth{}
	}
	return Birth{Cause: e.Action, Reversals: e.Reversals}
}
