package etcdapi

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// What goes in as bytes is what a generated message would have been, and the
// other way round.
func TestWirePassesBytesThrough(t *testing.T) {
	c := newWireCodec()
	req := &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 5000), Lease: 3}
	sent, err := c.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	raw := sent.Materialize()
	// gRPC hands messages over in pieces.
	pieces := mem.BufferSlice{mem.SliceBuffer(bytes.Clone(raw[:1000])), mem.SliceBuffer(bytes.Clone(raw[1000:]))}
	var call Call
	var fr frame
	var again pb.PutRequest
	for _, into := range []any{&call, &fr, &again} {
		if err := c.Unmarshal(pieces, into); err != nil {
			t.Fatal(err)
		}
	}
	clear(pieces[0].ReadOnlyData()) // its memory goes back to gRPC
	if !bytes.Equal(call.Raw(), raw) || !bytes.Equal(fr.raw, raw) || !proto.Equal(&again, req) {
		t.Error("the request changed on its way")
	}
	for _, v := range []any{
		codec.Chunks{raw}, codec.Chunks{raw[:10], raw[10:]}, codec.Chunks{raw[:10], raw[10:20]}, &frame{raw}, codec.Chunks(nil),
	} {
		out, err := c.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want := raw
		switch m := v.(type) {
		case codec.Chunks:
			want = m.Bytes()
		}
		if !bytes.Equal(out.Materialize(), want) {
			t.Errorf("%T of %d bytes came out as %d", v, len(want), out.Len())
		}
	}
	if err := c.Unmarshal(pieces, codec.Chunks{}); err == nil {
		t.Error("chunks were received")
	}
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, &again); err == nil {
		t.Error("malformed bytes were received")
	}
	if c.Name() != "proto" {
		t.Error("clients would see another codec")
	}
}

// Large answers are referenced, small ones put together.
func TestWireReferences(t *testing.T) {
	c := newWireCodec()
	big := make([]byte, 100<<10)
	out, _ := c.Marshal(codec.Chunks{{1}, big})
	if len(out) != 2 || &out[1].ReadOnlyData()[0] != &big[0] {
		t.Error("a large value was copied")
	}
	if out, _ := c.Marshal(codec.Chunks{{1}, {2}}); len(out) != 1 {
		t.Errorf("a small answer goes out in %d pieces", len(out))
	}
}

func TestSplitRangeAnswer(t *testing.T) {
	for _, broken := range [][]byte{{0xff}, {0x0a, 5}, {0x12}} {
		if _, err := splitRangeAnswer(broken); err == nil {
			t.Errorf("%x is no answer", broken)
		}
	}
}
