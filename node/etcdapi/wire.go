package etcdapi

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// frame is an encoded message of any type, in a buffer of its own.
type frame struct{ raw []byte }

// wireCodec is protobuf to the outside. Inside, requests may be taken as bytes
// (*Call, *frame) and answers given as bytes (codec.Chunks, *frame).
type wireCodec struct {
	proto encoding.CodecV2
}

func newWireCodec() wireCodec {
	return wireCodec{proto: encoding.GetCodecV2(proto.Name)}
}

// Name is protobuf's: clients see nothing unusual.
func (wireCodec) Name() string { return proto.Name }

// flattenMax is the size up to which an answer in several pieces is copied into
// one: below it the copy costs less than what gRPC does for each piece.
const flattenMax = 4 << 10

// Marshal encodes an answer. Bytes are referenced, not copied.
func (c wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case codec.Chunks:
		if len(m) > 1 && m.Size() <= flattenMax {
			return mem.BufferSlice{mem.SliceBuffer(m.Bytes())}, nil
		}
		out := make(mem.BufferSlice, len(m))
		for i, piece := range m {
			out[i] = mem.SliceBuffer(piece)
		}
		return out, nil
	case *frame:
		return mem.BufferSlice{mem.SliceBuffer(m.raw)}, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal takes a request. A *Call's and a *frame's bytes are copied out of
// gRPC's pooled buffers once, because they outlive the handler: a request goes
// into the log, and its key into indexes.
func (c wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Call:
		m.buf = make([]byte, 1+data.Len())
		data.CopyTo(m.buf[1:])
		return nil
	case *frame:
		m.raw = data.Materialize()
		return nil
	case codec.Chunks:
		return fmt.Errorf("etcdapi: chunks cannot be received")
	}
	return c.proto.Unmarshal(data, v)
}
