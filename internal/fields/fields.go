package fields

import "encoding/binary"

// Reader takes an encoding apart. Its zero value reads nothing.
type Reader struct {
	// Rest is what has not been read. What is returned aliases it.
	Rest []byte
	// Bad says that something was cut short, above a limit, or called Fail.
	Bad bool
	// Minimal refuses numbers that are longer than they need be, so that one value has
	// one encoding.
	Minimal bool
}

// Fail notes a fault that the caller found.
func (r *Reader) Fail() { r.Bad, r.Rest = true, nil }

// Whole reports whether everything was read and was well formed.
func (r *Reader) Whole() bool { return !r.Bad && len(r.Rest) == 0 }

// Take returns the next n bytes, nil if there are fewer.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.Rest)) {
		r.Fail()
		return nil
	}
	out := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return out
}

// Byte returns the next byte.
func (r *Reader) Byte() byte {
	if b := r.Take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// Fixed returns a number of eight bytes.
func (r *Reader) Fixed() uint64 {
	if b := r.Take(8); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Number returns a number.
func (r *Reader) Number() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 || r.Minimal && n > 1 && r.Rest[n-1] == 0 {
		r.Fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// AtMost returns a number; above the limit it is a fault.
func (r *Reader) AtMost(limit uint64) uint64 {
	v := r.Number()
	if v > limit {
		r.Fail()
		return 0
	}
	return v
}

// Count returns the length of a list whose elements take at least one byte each.
func (r *Reader) Count() int {
	n := r.Number()
	if n > uint64(len(r.Rest)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Bytes returns a byte string, empty but not nil if it is so encoded.
func (r *Reader) Bytes() []byte { return r.Take(r.Number()) }

// BytesAtMost returns a byte string; if it is longer than the limit it is a fault.
func (r *Reader) BytesAtMost(limit uint64) []byte { return r.Take(r.AtMost(limit)) }

// AppendNumbers appends numbers.
func AppendNumbers(b []byte, all ...uint64) []byte {
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// AppendBytes appends a byte string.
func AppendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}
