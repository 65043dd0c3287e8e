package etcdapi

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// firstPieceKeys is how many keys the first message of a range stream holds, as
// in etcd; the following aim at MaxRequestBytes.
const firstPieceKeys = 10

// rangeStream answers a range in pieces: each is a range request of its own at
// the revision of the first, so that no large answer is ever held at once. Only
// the last message carries header, more and count.
func (s *Server) rangeStream(_ any, stream grpc.ServerStream) error {
	call := &Call{Method: MethodRange}
	if err := stream.RecvMsg(call); err != nil {
		return err
	}
	if err := s.checker.check(call); err != nil {
		return err
	}
	if err := checkRangeStream(&call.Range); err != nil {
		return err
	}
	p := newPieces(call)
	for {
		answer, err := s.do(stream.Context(), p.call())
		if err != nil {
			return err
		}
		message, last, err := p.take(answer, s.cfg.MaxRequestBytes)
		if err != nil {
			return toWire(err)
		}
		if err := stream.SendMsg(message); err != nil || last {
			return err
		}
	}
}

// pieces is the state between two messages of a range stream.
type pieces struct {
	raw      []byte // the client's request
	all      bool   // one piece answers it: a count
	from     []byte // first key of the next piece; nil is the request's own
	revision int64
	left     int64 // keys that may still be sent
	sent     int64
	keys     int64  // asked for in the next piece
	header   []byte // the first answer's header field, which goes out last
}

func newPieces(c *Call) *pieces {
	p := &pieces{raw: c.Raw(), all: c.Range.CountOnly, revision: c.Range.Revision, left: c.Range.Limit, keys: firstPieceKeys}
	if p.left <= 0 {
		p.left = math.MaxInt64
	}
	return p
}

// call makes the next request: the client's bytes and, behind them, the fields
// that differ, because the last one of a name counts in protobuf.
func (p *pieces) call() *Call {
	c := NewCall(MethodRange, p.raw)
	if p.all {
		return c
	}
	p.keys = min(p.keys, p.left)
	c.buf = protowire.AppendTag(c.buf, 3, protowire.VarintType)
	c.buf = protowire.AppendVarint(c.buf, uint64(p.keys))
	if p.from != nil {
		c.buf = codec.AppendRaw(c.buf, 1, p.from)
		c.buf = protowire.AppendTag(c.buf, 4, protowire.VarintType)
		c.buf = protowire.AppendVarint(c.buf, uint64(p.revision))
	}
	return c
}

// take turns an answer into the stream's next message.
func (p *pieces) take(answer codec.Chunks, target int) (message codec.Chunks, last bool, err error) {
	a, err := splitRangeAnswer(answer.Bytes())
	if err != nil {
		return nil, false, err
	}
	if p.header == nil {
		p.header = codec.AppendRaw(nil, 1, a.header)
		if p.revision == 0 {
			var h pb.ResponseHeader
			if err := proto.Unmarshal(a.header, &h); err != nil {
				return nil, false, err
			}
			p.revision = h.Revision
		}
	}
	before := p.sent
	p.sent += a.keys
	p.left -= a.keys
	if a.more && p.left > 0 && !p.all {
		var kv codec.KeyValue
		if err := codec.ParseKeyValue(a.lastKV, &kv); err != nil {
			return nil, false, err
		}
		p.from = append(append(make([]byte, 0, len(kv.Key)+1), kv.Key...), 0)
		p.aim(len(a.kvs), target)
		return codec.WrapChunks(codec.Chunks{a.kvs}, 1), false, nil
	}
	// The answer counted the keys from its first one on.
	tail := codec.AppendRangeTail(nil, a.more, before+a.count)
	return codec.WrapChunks(codec.Chunks{p.header, a.kvs, tail}, 1), true, nil
}

// aim doubles or halves the next piece when the last one was far from target.
func (p *pieces) aim(size, target int) {
	switch {
	case size < target/2:
		p.keys *= 2
	case size > target*2:
		p.keys = max(p.keys/2, 1)
	}
}

// rangeAnswer is an encoded RangeResponse taken apart. The slices alias it.
type rangeAnswer struct {
	header []byte
	kvs    []byte // all key-value fields; they stand next to each other
	keys   int64
	lastKV []byte
	more   bool
	count  int64
}

func splitRangeAnswer(b []byte) (a rangeAnswer, err error) {
	first := -1
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return a, codec.ErrMalformed
		}
		size := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if size < 0 {
			return a, codec.ErrMalformed
		}
		value, end := b[at+n:at+n+size], at+n+size
		switch {
		case num == 1 && typ == protowire.BytesType:
			a.header, _ = protowire.ConsumeBytes(value)
		case num == 2 && typ == protowire.BytesType:
			if first < 0 {
				first = at
			}
			a.kvs = b[first:end]
			a.lastKV, _ = protowire.ConsumeBytes(value)
			a.keys++
		case num == 3 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			a.more = v != 0
		case num == 4 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			a.count = int64(v)
		}
		at = end
	}
	return a, nil
}
