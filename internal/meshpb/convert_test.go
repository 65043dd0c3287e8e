package meshpb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"google.golang.org/protobuf/proto"
)

func sample() *anchormesh.Descriptor {
	return &anchormesh.Descriptor{
		Mesh: 0xa1, Segment: 0xb2,
		Range:      anchormesh.KeyRange{Start: []byte("a/b"), End: []byte("a/x")},
		Scope:      []byte("a/"),
		Generation: 3, Changed: 700, NextReplica: 300,
		Anchors: []anchormesh.Anchor{
			{Node: "n1", Replica: 1, Role: anchormesh.Voter, Zone: "east"},
			{Node: "n2", Replica: 2, Role: anchormesh.Learner},
			{Node: "n3", Replica: 299, Role: anchormesh.Voter, Zone: "west"},
		},
	}
}

// whole is the descriptor of the first segment of a mesh.
func whole() *anchormesh.Descriptor {
	return &anchormesh.Descriptor{
		Mesh: 1, Segment: 1, NextReplica: 2,
		Anchors: []anchormesh.Anchor{{Node: "n", Replica: 1, Role: anchormesh.Voter}},
	}
}

func TestDescriptorEncodingIsPinned(t *testing.T) {
	const want = "09a10000000000000011b2000000000000001a03612f622203612f782a02612f3003" +
		"38bc05" + "420e0a026e31100118012204" + "65617374" + "42080a026e3210021802" +
		"420f0a026e3310ab0218012204" + "77657374" + "48ac02"
	if got := hex.EncodeToString(EncodeDescriptor(sample())); got != want {
		t.Fatalf("stored format changed:\n got %s\nwant %s", got, want)
	}
}

// full is sample with the fields that came later.
func full() *anchormesh.Descriptor {
	d := sample()
	d.Stamped, d.Joint = true, true
	for i := range d.Lineage {
		d.Lineage[i] = byte(i)
	}
	return d
}

// TestOldBytesDecode: what was stored before lineages and stamps is canonical
// still, and the new fields only ever append.
func TestOldBytesDecode(t *testing.T) {
	old := EncodeDescriptor(sample())
	d, err := DecodeDescriptor(old)
	if err != nil || d.Stamped || !d.Lineage.IsZero() {
		t.Fatalf("old bytes give %+v, %v", d, err)
	}
	const added = "5220000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f58016001"
	if got := hex.EncodeToString(EncodeDescriptor(full())); got != hex.EncodeToString(old)+added {
		t.Fatalf("stored format changed:\n got %s", got)
	}
}

func TestDescriptorRoundTrip(t *testing.T) {
	for _, d := range []*anchormesh.Descriptor{sample(), whole(), full()} {
		b := EncodeDescriptor(d)
		lib, err := proto.MarshalOptions{Deterministic: true}.Marshal(ToPB(d))
		if err != nil || !bytes.Equal(b, lib) {
			t.Fatalf("encoder and protobuf differ (%v):\n%x\n%x", err, b, lib)
		}
		got, err := DecodeDescriptor(b)
		if err != nil {
			t.Fatal(err)
		}
		if got.Lineage != d.Lineage || got.Stamped != d.Stamped || got.Joint != d.Joint || !bytes.Equal(EncodeDescriptor(got), b) || len(got.Anchors) != len(d.Anchors) || !got.Range.Equal(d.Range) {
			t.Fatalf("decoded %+v, want %+v", got, d)
		}
		for i := range b {
			b[i] ^= 0xff // the result must not alias its input
		}
		if !got.Range.Equal(d.Range) || got.Anchors[0] != d.Anchors[0] {
			t.Fatal("the decoded descriptor aliases the input")
		}
	}
}

func TestValidateDescriptorNamesTheRule(t *testing.T) {
	tests := []struct {
		name, want string
		edit       func(*anchormesh.Descriptor)
	}{
		{"no mesh", "no mesh ID", func(d *anchormesh.Descriptor) { d.Mesh = 0 }},
		{"no segment", "no segment ID", func(d *anchormesh.Descriptor) { d.Segment = 0 }},
		{"empty range", "is empty", func(d *anchormesh.Descriptor) { d.Range.End = d.Range.Start }},
		{"open range in a scope", "leaves the scope", func(d *anchormesh.Descriptor) { d.Range.End = nil }},
		{"below the scope", "leaves the scope", func(d *anchormesh.Descriptor) { d.Range.Start = []byte("a") }},
		{"unsorted", "ascending", func(d *anchormesh.Descriptor) { d.Anchors[0], d.Anchors[1] = d.Anchors[1], d.Anchors[0] }},
		{"replica twice", "ascending", func(d *anchormesh.Descriptor) { d.Anchors[1].Replica = 1 }},
		{"node twice", "twice", func(d *anchormesh.Descriptor) { d.Anchors[1].Node = "n1" }},
		{"replica zero", "replica ID 0", func(d *anchormesh.Descriptor) { d.Anchors[0].Replica = 0 }},
		{"no node", "no usable node ID", func(d *anchormesh.Descriptor) { d.Anchors[0].Node = "" }},
		{"role", "role 9", func(d *anchormesh.Descriptor) { d.Anchors[0].Role = 9 }},
		{"next replica", "not below the next", func(d *anchormesh.Descriptor) { d.NextReplica = 299 }},
		{"zone", "no usable zone", func(d *anchormesh.Descriptor) { d.Anchors[0].Zone = strings.Repeat("z", 65) }},
		{"no anchors", "no anchor votes", func(d *anchormesh.Descriptor) { d.Anchors = nil }},
		{"too many", "at most 32", func(d *anchormesh.Descriptor) { d.Anchors = make([]anchormesh.Anchor, 33) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := sample()
			tt.edit(d)
			err := ValidateDescriptor(d)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want ErrInvalid naming %q", err, tt.want)
			}
			if _, err := DecodeDescriptor(EncodeDescriptor(d)); !errors.Is(err, ErrInvalid) {
				t.Fatalf("DecodeDescriptor accepted it: %v", err)
			}
		})
	}
}

func TestScopeOfHighBytesReachesTheEndOfTheKeyspace(t *testing.T) {
	d := whole()
	d.Scope, d.Range.Start = []byte{0xff, 0xff}, []byte{0xff, 0xff, 1}
	if err := ValidateDescriptor(d); err != nil {
		t.Fatal(err)
	}
}

func TestDecodeDescriptorRefusesOtherEncodings(t *testing.T) {
	b := EncodeDescriptor(sample())
	bad := map[string][]byte{
		"truncated":     b[:len(b)-1],
		"unknown field": append(bytes.Clone(b), 0x50, 1),
		"field again":   append(bytes.Clone(b), 0x48, 0xac, 0x02),
		"long varint":   append(bytes.Clone(b[:len(b)-2]), 0xac, 0x82, 0x00),
	}
	for name, in := range bad {
		if _, err := DecodeDescriptor(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	for name, in := range map[string][]byte{
		"a zero lineage": append(bytes.Clone(b), append([]byte{0x52, 32}, make([]byte, 32)...)...),
		"stamped twice":  append(EncodeDescriptor(full()), 0x58, 1),
		"stamped by two": append(bytes.Clone(b), 0x58, 2),
	} {
		if _, err := DecodeDescriptor(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if _, err := DecodeDescriptor(append(bytes.Clone(b), 0x52, 1, 7)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a lineage of one byte: got %v, want ErrInvalid", err)
	}
	if _, err := FromPB(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("nil: got %v, want ErrInvalid", err)
	}
	if _, err := FromPB(&Descriptor{Anchors: []*Anchor{{Role: 257}}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("role 257: got %v, want ErrInvalid", err)
	}
}

func FuzzDecodeDescriptor(f *testing.F) {
	f.Add(EncodeDescriptor(sample()))
	f.Add(EncodeDescriptor(whole()))
	f.Add(EncodeDescriptor(full()))
	f.Add([]byte{})
	f.Add([]byte{0x42, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDescriptor(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrInvalid) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(EncodeDescriptor(d), b) {
			t.Fatalf("two encodings of one descriptor: %x", b)
		}
		if err := ValidateDescriptor(d); err != nil {
			t.Fatalf("decoded an invalid descriptor: %v", err)
		}
	})
}
