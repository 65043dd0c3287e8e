package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/route"
)

// Kinds of questions and answers, the first byte of each.
const (
	kindAsk byte = iota + 1
	kindSums
	kindWant
	kindPush
	kindSame
	kindCompare
	kindVersions
	kindBodies
)

// Kinds of bodies.
const (
	bodyDescriptor byte = iota + 1
	bodyTombstone
)

// Limits of what one message holds.
const (
	// AnswerBytesMax bounds an answer, but for its last body.
	AnswerBytesMax = 64 << 10
	// PushBytesMax bounds a push likewise.
	PushBytesMax = 16 << 10
	// versionsMax is about AnswerBytesMax of versions.
	versionsMax = 4096
	wantsMax    = 1024
	// successorsMax bounds a tombstone.
	successorsMax = 16
	keyBytesMax   = 64 << 10
)

// ErrMalformed is returned for bytes that are not a message of this version.
var ErrMalformed = errors.New("exchange: malformed message")

// Item is what is told: a descriptor, or a tombstone if there is none.
type Item struct {
	Descriptor *anchormesh.Descriptor
	Tombstone  anchormesh.Tombstone
}

// version returns what the item is in the journal's words.
func (i Item) version() route.Version {
	if d := i.Descriptor; d != nil {
		return route.Version{Segment: d.Segment, Generation: d.Generation, Changed: d.Changed}
	}
	return route.Version{Segment: i.Tombstone.Segment, Generation: i.Tombstone.Generation, Buried: true}
}

func appendFixed(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func appendVersion(b []byte, v route.Version) []byte {
	b = appendFixed(b, uint64(v.Segment))
	if v.Buried {
		return binary.AppendUvarint(append(b, 1), uint64(v.Generation))
	}
	return binary.AppendUvarint(binary.AppendUvarint(append(b, 0), uint64(v.Generation)), v.Changed)
}

func appendItem(b []byte, i Item) []byte {
	if i.Descriptor != nil {
		return fields.AppendBytes(append(b, bodyDescriptor), meshpb.EncodeDescriptor(i.Descriptor))
	}
	t := i.Tombstone
	b = appendFixed(append(b, bodyTombstone), uint64(t.Segment))
	b = binary.AppendUvarint(b, uint64(t.Generation))
	b = fields.AppendBytes(fields.AppendBytes(b, t.Range.Start), t.Range.End)
	b = binary.AppendUvarint(b, uint64(len(t.Successors)))
	for _, id := range t.Successors {
		b = appendFixed(b, uint64(id))
	}
	return b
}

// reader takes a message apart. After the first failure it returns zeros.
type reader struct{ fields.Reader }

// bytes returns a copy, nil for none.
func (r *reader) bytes() []byte { return append([]byte(nil), r.Take(r.AtMost(keyBytesMax))...) }

func (r *reader) segment() anchormesh.SegmentID { return anchormesh.SegmentID(r.Fixed()) }

func (r *reader) version() route.Version {
	v := route.Version{Segment: r.segment()}
	v.Buried = r.Byte() == 1
	if v.Generation = anchormesh.Generation(r.Number()); !v.Buried {
		v.Changed = r.Number()
	}
	return v
}

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return fmt.Errorf("%w: cut short, too long or of another version", ErrMalformed)
	}
	return nil
}

// item returns one body. An unreadable descriptor in a readable frame, as a later
// version may send, is an error of its own and costs only itself.
func (r *reader) item() (Item, error) {
	switch r.Byte() {
	case bodyDescriptor:
		b := r.Take(r.Number())
		if r.Bad {
			return Item{}, nil
		}
		d, err := meshpb.DecodeDescriptor(b)
		return Item{Descriptor: d}, err
	case bodyTombstone:
		t := anchormesh.Tombstone{Segment: r.segment(), Generation: anchormesh.Generation(r.Number())}
		t.Range = anchormesh.KeyRange{Start: r.bytes(), End: r.bytes()}
		for range r.AtMost(successorsMax) {
			t.Successors = append(t.Successors, r.segment())
		}
		if t.Segment == 0 || t.Range.Empty() {
			r.Bad = true
		}
		return Item{Tombstone: t}, nil
	}
	r.Bad = true
	return Item{}, nil
}

// items returns all bodies up to the end, and what was wrong with some.
func (r *reader) items() ([]Item, error) {
	var out []Item
	var bad error
	for len(r.Rest) > 0 && !r.Bad {
		i, err := r.item()
		if err != nil {
			bad = errors.Join(bad, err)
		} else if !r.Bad {
			out = append(out, i)
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return out, bad
}
