package codec

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	// ErrMalformed: the bytes are not a protobuf message.
	ErrMalformed = errors.New("codec: malformed message")
	// ErrTooDeep: a transaction is nested deeper than TxnDepthMax.
	ErrTooDeep = errors.New("codec: transaction nested too deeply")
)

// Tags of the fields read here: number<<3 | wire type.
const (
	varint = uint64(protowire.VarintType)
	length = uint64(protowire.BytesType)
)

// fields walks the fields of one encoded message. After next has returned true,
// tag names the field and v or val holds its value; fields of other wire types
// are checked and leave val nil.
type fields struct {
	rest []byte
	tag  uint64
	v    uint64
	val  []byte
	bad  bool
}

// next moves to the next field; false is the end or, with bad set, malformed
// input.
func (f *fields) next() bool {
	b := f.rest
	if len(b) == 0 {
		return false
	}
	if b[0] < 0x80 {
		f.tag = uint64(b[0])
		b = b[1:]
	} else {
		tag, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return f.fail()
		}
		f.tag = tag
		b = b[n:]
	}
	if num := f.tag >> 3; num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
		return f.fail()
	}
	return f.value(b)
}

// value reads the value of the field named by f.tag from the front of b.
func (f *fields) value(b []byte) bool {
	switch f.tag & 7 {
	case varint:
		return f.varint(b)
	case length:
		size, n := uint64(0), 1
		if len(b) > 0 && b[0] < 0x80 {
			size = uint64(b[0])
		} else if size, n = protowire.ConsumeVarint(b); n < 0 {
			return f.fail()
		}
		b = b[n:]
		if size > uint64(len(b)) {
			return f.fail()
		}
		f.val, f.rest = b[:size:size], b[size:]
		return true
	default:
		n := protowire.ConsumeFieldValue(protowire.Number(f.tag>>3), protowire.Type(f.tag&7), b)
		if n < 0 {
			return f.fail()
		}
		f.rest = b[n:]
		return true
	}
}

func (f *fields) varint(b []byte) bool {
	if len(b) > 0 && b[0] < 0x80 {
		f.v, f.rest = uint64(b[0]), b[1:]
		return true
	}
	v, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return f.fail()
	}
	f.v, f.rest = v, b[n:]
	return true
}

func (f *fields) fail() bool {
	f.bad = true
	return false
}

// end is the parser's answer once next returned false.
func (f *fields) end() error {
	if f.bad {
		return ErrMalformed
	}
	return nil
}
