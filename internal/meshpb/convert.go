package meshpb

import (
	"bytes"
	"errors"
	"fmt"
	"unique"

	"github.com/anchormesh/anchormesh"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

var (
	// ErrMalformed is returned for bytes that are not the canonical encoding of
	// a descriptor.
	ErrMalformed = errors.New("meshpb: not a descriptor in canonical encoding")
	// ErrInvalid is returned for a descriptor that breaks one of its own rules.
	ErrInvalid = errors.New("meshpb: invalid descriptor")
)

// EncodeDescriptor returns the canonical encoding of d.
func EncodeDescriptor(d *anchormesh.Descriptor) []byte { return AppendDescriptor(nil, d) }

// AppendDescriptor appends the canonical encoding of d to dst. It does not
// validate.
func AppendDescriptor(dst []byte, d *anchormesh.Descriptor) []byte {
	dst = appendFixed64(dst, 1, uint64(d.Mesh))
	dst = appendFixed64(dst, 2, uint64(d.Segment))
	dst = appendBytes(dst, 3, d.Range.Start)
	dst = appendBytes(dst, 4, d.Range.End)
	dst = appendBytes(dst, 5, d.Scope)
	dst = appendVarint(dst, 6, uint64(d.Generation))
	dst = appendVarint(dst, 7, d.Changed)
	var scratch []byte
	for i := range d.Anchors {
		scratch = appendAnchor(scratch[:0], &d.Anchors[i])
		dst = protowire.AppendTag(dst, 8, protowire.BytesType)
		dst = protowire.AppendBytes(dst, scratch)
	}
	dst = appendVarint(dst, 9, uint64(d.NextReplica))
	if !d.Lineage.IsZero() {
		dst = appendBytes(dst, 10, d.Lineage[:])
	}
	if d.Stamped {
		dst = appendVarint(dst, 11, 1)
	}
	if d.Joint {
		dst = appendVarint(dst, 12, 1)
	}
	dst = appendBytes(dst, 13, d.Line)
	dst = appendVarint(dst, 14, d.Policy)
	return appendVarint(dst, 15, uint64(d.Class))
}

func appendAnchor(dst []byte, a *anchormesh.Anchor) []byte {
	dst = appendBytes(dst, 1, []byte(a.Node))
	dst = appendVarint(dst, 2, uint64(a.Replica))
	dst = appendVarint(dst, 3, uint64(a.Role))
	return appendBytes(dst, 4, []byte(a.Zone))
}

func appendFixed64(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendFixed64(protowire.AppendTag(dst, n, protowire.Fixed64Type), v)
}

func appendVarint(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

func appendBytes(dst []byte, n protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), v)
}

// DecodeDescriptor reads the canonical encoding of a valid descriptor. The
// result shares no memory with b. Any other input, unknown fields included, is
// refused with ErrMalformed or ErrInvalid: an old program must not drop what a
// newer one wrote.
func DecodeDescriptor(b []byte) (*anchormesh.Descriptor, error) {
	var pb Descriptor
	if err := proto.Unmarshal(b, &pb); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	d, err := FromPB(&pb)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(EncodeDescriptor(d), b) {
		return nil, fmt.Errorf("%w: unknown fields or another order", ErrMalformed)
	}
	return d, nil
}

// ToPB returns d as a message for another message to carry.
func ToPB(d *anchormesh.Descriptor) *Descriptor {
	pb := &Descriptor{
		Mesh: uint64(d.Mesh), Segment: uint64(d.Segment),
		Start: d.Range.Start, End: d.Range.End, Scope: d.Scope,
		Generation: uint64(d.Generation), Changed: d.Changed, NextReplica: uint64(d.NextReplica),
		Stamped: d.Stamped, Joint: d.Joint, Line: d.Line, Policy: d.Policy, Class: uint32(d.Class),
	}
	if !d.Lineage.IsZero() {
		pb.Lineage = bytes.Clone(d.Lineage[:])
	}
	for _, a := range d.Anchors {
		pb.Anchors = append(pb.Anchors, &Anchor{
			Node: string(a.Node), Replica: uint64(a.Replica), Role: Role(a.Role), Zone: a.Zone,
		})
	}
	return pb
}

// shared returns the string with bytes that all equal ones share: thousands of
// descriptors name the same few nodes and zones.
func shared(s string) string { return unique.Make(s).Value() }

// FromPB returns the descriptor that pb carries, validated. A nil pb and a
// descriptor with fields this version does not know are refused.
func FromPB(pb *Descriptor) (*anchormesh.Descriptor, error) {
	if pb == nil {
		return nil, fmt.Errorf("%w: missing", ErrInvalid)
	}
	if len(pb.ProtoReflect().GetUnknown()) != 0 {
		return nil, fmt.Errorf("%w: unknown fields", ErrMalformed)
	}
	d := &anchormesh.Descriptor{
		Mesh: anchormesh.MeshID(pb.Mesh), Segment: anchormesh.SegmentID(pb.Segment),
		Range:      anchormesh.KeyRange{Start: pb.Start, End: pb.End},
		Scope:      pb.Scope,
		Generation: anchormesh.Generation(pb.Generation), Changed: pb.Changed,
		NextReplica: anchormesh.ReplicaID(pb.NextReplica),
		Stamped:     pb.Stamped, Joint: pb.Joint, Line: pb.Line, Policy: pb.Policy,
	}
	if pb.Class > uint32(anchormesh.Strong) {
		return nil, fmt.Errorf("%w: class %d", ErrInvalid, pb.Class)
	}
	d.Class = anchormesh.Class(pb.Class)
	if n := len(pb.Lineage); n != 0 && n != len(d.Lineage) {
		return nil, fmt.Errorf("%w: the lineage head has %d bytes", ErrInvalid, n)
	}
	copy(d.Lineage[:], pb.Lineage)
	for _, a := range pb.Anchors {
		role, err := roleFromPB(a.GetRole())
		if err != nil {
			return nil, err
		}
		d.Anchors = append(d.Anchors, anchormesh.Anchor{
			Node: anchormesh.NodeID(shared(a.GetNode())), Replica: anchormesh.ReplicaID(a.GetReplica()),
			Role: role, Zone: shared(a.GetZone()),
		})
	}
	return d, ValidateDescriptor(d)
}

// roleFromPB refuses numbers that would not survive the narrower type.
func roleFromPB(r Role) (anchormesh.Role, error) {
	switch r {
	case Role_ROLE_VOTER:
		return anchormesh.Voter, nil
	case Role_ROLE_LEARNER:
		return anchormesh.Learner, nil
	}
	return 0, fmt.Errorf("%w: anchor role %d", ErrInvalid, r)
}
