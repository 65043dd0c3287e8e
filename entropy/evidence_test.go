package entropy

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

// TestEvidence: what is written is read back, and its first bytes are what they
// have always been.
func TestEvidence(t *testing.T) {
	e := Evidence{Action: Split, Cause: ByWrites, Reversals: 2, Numbers: Numbers{
		WritesPerSec: 8000, ReadsPerSec: 1, BytesPerSec: math.MaxUint64, CommitMicros: 4, Queue: 5, Size: 6, Keys: 7, Pressing: ByWrites,
		Pressure: 1600, Load: 9, Fill: 10, Peak: 11, Spread: 1000, HotKey: 13, Edge: 14, Left: 500,
	}}
	b := e.Append(nil)
	if want := []byte{1, 1, 1, 2, 1, 0xc0, 0x3e, 1}; !bytes.HasPrefix(b, want) {
		t.Errorf("encoded as % x, want it to begin % x", b, want)
	}
	got, err := ParseEvidence(b)
	if err != nil || got != e {
		t.Errorf("read back %+v, %v", got, err)
	}
	if b := got.Birth(); b.Cause != Split || b.Reversals != 2 {
		t.Errorf("its children's birth is %+v", b)
	}
	for _, bad := range [][]byte{nil, b[:len(b)-1], append(bytes.Clone(b), 0), append([]byte{2}, b[1:]...)} {
		if _, err := ParseEvidence(bad); !errors.Is(err, ErrEvidence) {
			t.Errorf("% x: %v", bad, err)
		}
	}
}

// FuzzParseEvidence: whatever decodes is canonical and prints.
func FuzzParseEvidence(f *testing.F) {
	f.Add(Evidence{}.Append(nil))
	f.Add(Evidence{Action: Merge, Cause: ByRest, Reversals: maxReversals, Numbers: Numbers{Size: 1 << 40}}.Append(nil))
	f.Add([]byte{1, 1, 1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			return
		}
		if got := e.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("% x decodes and encodes to % x", b, got)
		}
		_ = e.Action.String() + e.Cause.String() + e.Numbers.Pressing.String()
	})
}
