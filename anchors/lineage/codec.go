package lineage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unique"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// version is the first byte of everything encoded here.
const version = 1

// ErrMalformed is returned for bytes that are not a canonical encoding.
var ErrMalformed = errors.New("lineage: malformed bytes")

// Append appends the entry's canonical encoding. It does not validate.
func (e *Entry) Append(b []byte) []byte {
	b = append(b, version, byte(e.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Mesh))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Segment))
	b = binary.AppendUvarint(b, e.Height)
	b = appendExtent(appendExtent(b, e.Before), e.After)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Other.Segment))
	b = appendExtent(b, e.Other.Extent)
	b = binary.AppendUvarint(binary.AppendUvarint(b, e.Index), e.Term)
	for _, set := range [][]anchormesh.NodeID{e.Voters.Incoming, e.Voters.Outgoing} {
		b = binary.AppendUvarint(b, uint64(len(set)))
		for _, id := range set {
			b = fields.AppendBytes(b, []byte(id))
		}
	}
	b = binary.AppendUvarint(b, uint64(e.Evidence.Reason))
	b = binary.AppendUvarint(binary.AppendUvarint(b, e.Evidence.Pressure), e.Evidence.Spread)
	b = binary.AppendUvarint(b, uint64(len(e.Evidence.Numbers)))
	for _, n := range e.Evidence.Numbers {
		b = binary.AppendUvarint(b, n)
	}
	b = fields.AppendBytes(b, []byte(e.Evidence.Operator))
	if e.ruled() {
		b = fields.AppendBytes(fields.AppendBytes(b, e.Rule.From), e.Rule.Scope)
		b = binary.AppendUvarint(b, e.Rule.Version)
		b = append(append(b, e.Rule.Policy[:]...), e.Rule.Decision[:]...)
	}
	b = append(b, byte(len(e.Previous)))
	for _, h := range e.Previous {
		b = append(b, h[:]...)
	}
	return b
}

// ruled reports whether entries of the kind have a rule.
func (e *Entry) ruled() bool { return e.Kind == Policy || e.Kind == Recovered }

func appendExtent(b []byte, x Extent) []byte {
	b = binary.AppendUvarint(b, uint64(x.Generation))
	return fields.AppendBytes(fields.AppendBytes(b, x.Range.Start), x.Range.End)
}

// DecodeEntry reads the canonical encoding of a valid entry and refuses anything
// else. The result shares no memory with b.
func DecodeEntry(b []byte) (*Entry, error) {
	e, err := parse(b)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(e.Append(nil), b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return e, e.Validate()
}

// parse is DecodeEntry of what was an entry's encoding once.
func parse(b []byte) (*Entry, error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	e := &Entry{Kind: Kind(r.Byte()), Mesh: anchormesh.MeshID(r.Fixed()), Segment: anchormesh.SegmentID(r.Fixed()), Height: r.Number()}
	e.Before, e.After = r.extent(), r.extent()
	e.Other = Neighbour{Segment: anchormesh.SegmentID(r.Fixed()), Extent: r.extent()}
	e.Index, e.Term = r.Number(), r.Number()
	e.Voters = Voters{Incoming: r.nodes(), Outgoing: r.nodes()}
	e.Evidence = r.evidence()
	if e.ruled() {
		e.Rule = Rule{From: r.bytes(KeyBytesMax), Scope: r.bytes(KeyBytesMax), Version: r.Number(), Policy: r.hash(), Decision: r.hash()}
	}
	for range r.count(uint64(r.Byte()), 2) {
		e.Previous = append(e.Previous, r.hash())
	}
	return e, r.end()
}

// reader takes an encoding apart. After the first failure it returns zeros.
type reader struct{ fields.Reader }

func (r *reader) end() error {
	if r.Bad {
		return fmt.Errorf("%w: cut short, over a limit or of another version", ErrMalformed)
	}
	if len(r.Rest) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.Rest))
	}
	return nil
}

func (r *reader) version() {
	if r.Byte() != version {
		r.Bad = true
	}
}

func (r *reader) hash() (h anchormesh.Hash) {
	copy(h[:], r.Take(uint64(len(h))))
	return h
}

// count passes n on if it is within the limit, so that no count makes a loop
// longer than the limit.
func (r *reader) count(n, limit uint64) uint64 {
	if n > limit {
		r.Bad = true
	}
	if r.Bad {
		return 0
	}
	return n
}

// bytes returns a copy of at most limit bytes, nil for none.
func (r *reader) bytes(limit uint64) []byte {
	return append([]byte(nil), r.Take(r.count(r.Number(), limit))...)
}

func (r *reader) extent() Extent {
	g := anchormesh.Generation(r.Number())
	return Extent{Generation: g, Range: anchormesh.KeyRange{Start: r.bytes(KeyBytesMax), End: r.bytes(KeyBytesMax)}}
}

func (r *reader) nodes() []anchormesh.NodeID {
	n := r.count(r.Number(), VotersMax)
	if n == 0 {
		return nil
	}
	out := make([]anchormesh.NodeID, 0, n)
	for range n {
		// Thousands of lineages name the same few nodes: they share the bytes.
		id := unique.Make(string(r.Take(r.count(r.Number(), NodeIDBytesMax))))
		out = append(out, anchormesh.NodeID(id.Value()))
	}
	return out
}

func (r *reader) evidence() Evidence {
	reason := r.Number()
	if reason > 1<<16-1 {
		r.Bad = true
	}
	v := Evidence{Reason: Reason(reason), Pressure: r.Number(), Spread: r.Number()}
	for range r.count(r.Number(), NumbersMax) {
		v.Numbers = append(v.Numbers, r.Number())
	}
	v.Operator = string(r.bytes(OperatorBytesMax))
	return v
}
