package mvcc

import (
	"encoding/binary"
	"math/bits"
)

// Tags of mvccpb.KeyValue's fields: number<<3 | wire type.
const (
	tagKey     = 1<<3 | 2
	tagCreate  = 2 << 3
	tagMod     = 3 << 3
	tagVersion = 4 << 3
	tagValue   = 5<<3 | 2
	tagLease   = 6 << 3
)

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// sizeKV bounds the encoded size from above.
func sizeKV(key, value []byte) int {
	return len(key) + len(value) + 2*(1+binary.MaxVarintLen64) + 4*(1+binary.MaxVarintLen64)
}

func appendBytes(dst []byte, tag byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return append(binary.AppendUvarint(append(dst, tag), uint64(len(b))), b...)
}

func appendInt(dst []byte, tag byte, v int64) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tag), uint64(v))
}

// appendKV encodes a mvccpb.KeyValue byte for byte as proto.Marshal does, and
// returns where the value begins.
func appendKV(dst, key, value []byte, create, mod, version, lease int64) (enc []byte, valueOff int) {
	start := len(dst)
	dst = appendBytes(dst, tagKey, key)
	dst = appendInt(dst, tagCreate, create)
	dst = appendInt(dst, tagMod, mod)
	dst = appendInt(dst, tagVersion, version)
	dst = appendBytes(dst, tagValue, value)
	valueOff = len(dst) - start - len(value)
	return appendInt(dst, tagLease, lease), valueOff
}

// parseKV reads an encoded mvccpb.KeyValue without copying. ok is false if raw is
// none.
func parseKV(raw []byte) (kv KV, ok bool) {
	kv.Raw = raw
	for i := 0; i < len(raw); {
		tag := raw[i]
		i++
		v, n := uvarint(raw[i:])
		if n <= 0 {
			return kv, false
		}
		i += n
		switch tag {
		case tagKey, tagValue:
			if v > uint64(len(raw)-i) {
				return kv, false
			}
			if tag == tagKey {
				kv.Key = raw[i : i+int(v) : i+int(v)]
			} else {
				kv.valueOff, kv.ValueLen = i, int(v)
			}
			i += int(v)
		case tagCreate:
			kv.Create = int64(v)
		case tagMod:
			kv.Mod = int64(v)
		case tagVersion:
			kv.Version = int64(v)
		case tagLease:
			kv.Lease = int64(v)
		default:
			return kv, false
		}
	}
	return kv, true
}

// uvarint is binary.Uvarint with a fast path for the one byte that lengths and
// young versions take.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// parseKey reads only the key of an encoded mvccpb.KeyValue, its first field, and
// says where it ends.
func parseKey(raw []byte) (key []byte, end int, ok bool) {
	if len(raw) == 0 || raw[0] != tagKey {
		return nil, 0, len(raw) == 0
	}
	v, n := uvarint(raw[1:])
	if n <= 0 || v > uint64(len(raw)-1-n) {
		return nil, 0, false
	}
	end = 1 + n + int(v)
	return raw[1+n : end : end], end, true
}

// slab hands out pieces of append-only memory, so that a write costs no object of
// its own. Pieces are never moved or reused: the collector takes a block when
// nobody refers to it.
type slab struct{ block []byte }

const (
	slabMin = 4 << 10
	slabMax = 256 << 10
)

// room returns an empty slice with capacity for n bytes; take what was appended
// with take.
func (s *slab) room(n int) []byte {
	if cap(s.block)-len(s.block) < n {
		size := min(max(2*cap(s.block), slabMin), slabMax)
		if n > size/4 {
			return make([]byte, 0, n) // a big piece leaves the block to others
		}
		s.block = make([]byte, 0, size)
	}
	return s.block[len(s.block):len(s.block)]
}

// take fixes what was appended to the slice that room gave out.
func (s *slab) take(b []byte) []byte {
	if end := len(s.block) + len(b); end <= cap(s.block) && len(b) > 0 && &b[0] == &s.block[:end][len(s.block)] {
		s.block = s.block[:end]
	}
	return b[:len(b):len(b)]
}

func (s *slab) clone(b []byte) []byte { return s.take(append(s.room(len(b)), b...)) }
