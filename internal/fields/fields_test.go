package fields

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestReaderReturnsWhatWasAppended(t *testing.T) {
	b := AppendNumbers(nil, 0, 127, 128, 1<<63)
	b = AppendBytes(AppendBytes(b, []byte("key")), nil)
	b = binary.BigEndian.AppendUint64(append(b, 9), 5)
	r := Reader{Rest: b, Minimal: true}
	if a, b, c, d := r.Number(), r.AtMost(127), r.Number(), r.Number(); a != 0 || b != 127 || c != 128 || d != 1<<63 {
		t.Errorf("numbers %d %d %d %d", a, b, c, d)
	}
	if k, none := r.BytesAtMost(3), r.Bytes(); string(k) != "key" || none == nil || len(none) != 0 {
		t.Errorf("bytes %q %v", k, none)
	}
	if c, f := r.Byte(), r.Fixed(); c != 9 || f != 5 || !r.Whole() {
		t.Errorf("byte %d, fixed %d, whole %v", c, f, r.Whole())
	}
}

func TestTheFirstFaultSticks(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		read func(*Reader)
	}{
		"number cut short":       {[]byte{0x80}, func(r *Reader) { r.Number() }},
		"number above a limit":   {[]byte{9, 1}, func(r *Reader) { r.AtMost(8) }},
		"number of eleven bytes": {bytes.Repeat([]byte{0xff}, 11), func(r *Reader) { r.Number() }},
		"number longer than it need be": {[]byte{0x81, 0x00, 1}, func(r *Reader) {
			r.Minimal = true
			r.Number()
		}},
		"bytes cut short":     {[]byte{2, 'a'}, func(r *Reader) { r.Bytes() }},
		"bytes above a limit": {[]byte{2, 'a', 'b', 1}, func(r *Reader) { r.BytesAtMost(1) }},
		"length near 2^64":    {append(AppendNumbers(nil, 1<<64-1), 'a'), func(r *Reader) { r.Bytes() }},
		"list cut short":      {[]byte{2, 'a'}, func(r *Reader) { r.Count() }},
		"fixed cut short":     {[]byte{1, 2, 3, 4, 5, 6, 7}, func(r *Reader) { r.Fixed() }},
		"the caller's":        {[]byte{1}, func(r *Reader) { r.Fail() }},
	} {
		r := Reader{Rest: c.b}
		c.read(&r)
		if !r.Bad || r.Whole() || r.Byte() != 0 || r.Number() != 0 || r.Count() != 0 || r.Bytes() != nil || r.Fixed() != 0 {
			t.Errorf("%s: goes on", name)
		}
	}
	left := Reader{Rest: []byte{1, 2}}
	if left.Byte(); left.Whole() {
		t.Error("a byte is left, and it is whole")
	}
}
