package replica

import (
	"bytes"
	"errors"
	"testing"
)

func TestEnvelopeFormat(t *testing.T) {
	env := Envelope{Term: 3, Generation: 1, Sequence: 300, Payloads: [][]byte{[]byte("a"), nil, []byte("bc")}}
	want := []byte{1, 3, 1, 0xac, 0x02, 3, 1, 'a', 0, 2, 'b', 'c'}
	got := env.append(nil)
	if !bytes.Equal(got, want) {
		t.Fatalf("the stored form changed: %x, want %x", got, want)
	}
	if len(got) > env.size() {
		t.Errorf("%d bytes, size said %d", len(got), env.size())
	}
	for cut := range len(got) {
		if _, err := ParseEnvelope(got[:cut]); !errors.Is(err, ErrEnvelope) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
	if _, err := ParseEnvelope(append(got, 0)); !errors.Is(err, ErrEnvelope) {
		t.Errorf("a byte too many: %v", err)
	}
}

// FuzzParseEnvelope: any bytes are parsed or refused, and what was parsed is
// encoded to the same meaning.
func FuzzParseEnvelope(f *testing.F) {
	env := Envelope{Term: 3, Generation: 1, Sequence: 300, Payloads: [][]byte{[]byte("a"), nil, []byte("bc")}}
	f.Add(env.append(nil))
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := ParseEnvelope(data)
		if err != nil {
			return
		}
		again, err := ParseEnvelope(env.append(nil))
		if err != nil || again.Term != env.Term || again.Generation != env.Generation || again.Sequence != env.Sequence ||
			len(again.Payloads) != len(env.Payloads) {
			t.Fatalf("%+v came back as %+v, %v", env, again, err)
		}
		for i := range env.Payloads {
			if !bytes.Equal(env.Payloads[i], again.Payloads[i]) {
				t.Fatalf("request %d changed", i)
			}
		}
	})
}
