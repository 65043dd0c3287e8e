package codec

import "google.golang.org/protobuf/encoding/protowire"

// Header is etcdserverpb.ResponseHeader. Inside a transaction only the revision
// is set, as in etcd.
type Header struct {
	ClusterID, MemberID uint64
	Revision            int64
	RaftTerm            uint64
}

// AppendHeader encodes h as the given field of the surrounding message. It is
// written even when empty: in Go's terms the pointer is not nil.
func AppendHeader(dst []byte, field protowire.Number, h Header) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(h.size()))
	dst = appendUint(dst, 1, h.ClusterID)
	dst = appendUint(dst, 2, h.MemberID)
	dst = appendInt(dst, 3, h.Revision)
	return appendUint(dst, 4, h.RaftTerm)
}

func (h Header) size() int {
	return sizeUint(h.ClusterID) + sizeUint(h.MemberID) + sizeUint(uint64(h.Revision)) + sizeUint(h.RaftTerm)
}

// KeyValue is mvccpb.KeyValue.
type KeyValue struct {
	Key                  []byte
	Create, Mod, Version int64
	Value                []byte
	Lease                int64
}

// Size returns the length of the encoded message, without tag and length.
func (kv *KeyValue) Size() int {
	return sizeBytes(kv.Key) + sizeUint(uint64(kv.Create)) + sizeUint(uint64(kv.Mod)) +
		sizeUint(uint64(kv.Version)) + sizeBytes(kv.Value) + sizeUint(uint64(kv.Lease))
}

// AppendKeyValue encodes kv, without tag and length.
func AppendKeyValue(dst []byte, kv *KeyValue) []byte {
	dst = appendBytes(dst, 1, kv.Key)
	dst = appendInt(dst, 2, kv.Create)
	dst = appendInt(dst, 3, kv.Mod)
	dst = appendInt(dst, 4, kv.Version)
	dst = appendBytes(dst, 5, kv.Value)
	return appendInt(dst, 6, kv.Lease)
}

// AppendKeyValueField encodes kv as the given field of the surrounding message.
func AppendKeyValueField(dst []byte, field protowire.Number, kv *KeyValue) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(kv.Size()))
	return AppendKeyValue(dst, kv)
}

// ParseKeyValue reads an encoded KeyValue; the error is ErrMalformed.
func ParseKeyValue(b []byte, kv *KeyValue) error {
	*kv = KeyValue{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | length:
			kv.Key = f.val
		case 2<<3 | varint:
			kv.Create = int64(f.v)
		case 3<<3 | varint:
			kv.Mod = int64(f.v)
		case 4<<3 | varint:
			kv.Version = int64(f.v)
		case 5<<3 | length:
			kv.Value = f.val
		case 6<<3 | varint:
			kv.Lease = int64(f.v)
		}
	}
	return f.end()
}

// AppendRaw writes an already encoded submessage as the given field.
func AppendRaw(dst []byte, field protowire.Number, raw []byte) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	return protowire.AppendBytes(dst, raw)
}

// AppendPutResponse encodes a PutResponse. prev is the encoded KeyValue before
// the put, nil for none.
func AppendPutResponse(dst []byte, h Header, prev []byte) []byte {
	dst = AppendHeader(dst, 1, h)
	if prev != nil {
		dst = AppendRaw(dst, 2, prev)
	}
	return dst
}

// AppendDeleteRangeResponse encodes a DeleteRangeResponse up to its previous
// key-values; the caller adds each with AppendRaw(dst, 3, kv).
func AppendDeleteRangeResponse(dst []byte, h Header, deleted int64) []byte {
	dst = AppendHeader(dst, 1, h)
	return appendInt(dst, 2, deleted)
}

// AppendRangeTail ends a RangeResponse whose header and key-values (fields 1 and
// 2) were written before.
func AppendRangeTail(dst []byte, more bool, count int64) []byte {
	dst = appendBool(dst, 3, more)
	return appendInt(dst, 4, count)
}

// AppendTxnResponse begins a TxnResponse; its operations follow, each between
// BeginResponseOp and EndResponseOp.
func AppendTxnResponse(dst []byte, h Header, succeeded bool) []byte {
	dst = AppendHeader(dst, 1, h)
	return appendBool(dst, 2, succeeded)
}

// OpMark remembers where the two length prefixes of a ResponseOp go.
type OpMark struct{ op, response int }

// BeginResponseOp opens one element of TxnResponse.responses that answers an
// operation of the given kind. KindNone opens an empty element.
func BeginResponseOp(dst []byte, kind OpKind) ([]byte, OpMark) {
	dst, op := beginMessage(dst, 3)
	if kind == KindNone {
		return dst, OpMark{op, -1}
	}
	dst, response := beginMessage(dst, protowire.Number(kind))
	return dst, OpMark{op, response}
}

// EndResponseOp closes what BeginResponseOp opened.
func EndResponseOp(dst []byte, m OpMark) []byte {
	if m.response >= 0 {
		dst = endMessage(dst, m.response)
	}
	return endMessage(dst, m.op)
}

// AppendHeaderResponse encodes the responses that hold nothing but a header:
// CompactionResponse, LeaseRevokeResponse, LeaseCheckpointResponse.
func AppendHeaderResponse(dst []byte, h Header) []byte { return AppendHeader(dst, 1, h) }

// AppendHashKVResponse encodes a HashKVResponse.
func AppendHashKVResponse(dst []byte, h Header, hash uint32, compactRev, hashRev int64) []byte {
	dst = AppendHeader(dst, 1, h)
	dst = appendUint(dst, 2, uint64(hash))
	dst = appendInt(dst, 3, compactRev)
	return appendInt(dst, 4, hashRev)
}

// AppendHashResponse encodes a HashResponse.
func AppendHashResponse(dst []byte, h Header, hash uint32) []byte {
	dst = AppendHeader(dst, 1, h)
	return appendUint(dst, 2, uint64(hash))
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

func appendInt(dst []byte, field protowire.Number, v int64) []byte {
	return appendUint(dst, field, uint64(v))
}

func appendBool(dst []byte, field protowire.Number, v bool) []byte {
	if !v {
		return dst
	}
	return appendUint(dst, field, 1)
}

func appendBytes(dst []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return AppendRaw(dst, field, v)
}

// sizeUint and sizeBytes hold for fields numbered below 16: one byte of tag.
func sizeUint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBytes(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(v))
}

// beginMessage opens a submessage of unknown length; endMessage puts the length
// in, moving the content when it needs more than the one byte left for it.
// (Sizing first would walk every answer twice.)
func beginMessage(dst []byte, field protowire.Number) ([]byte, int) {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	return append(dst, 0), len(dst) + 1
}

func endMessage(dst []byte, start int) []byte {
	size := len(dst) - start
	if size < 0x80 {
		dst[start-1] = byte(size)
		return dst
	}
	var prefix [10]byte
	p := protowire.AppendVarint(prefix[:0], uint64(size))
	dst = append(dst, p[1:]...)
	copy(dst[start-1+len(p):], dst[start:start+size])
	copy(dst[start-1:], p)
	return dst
}
