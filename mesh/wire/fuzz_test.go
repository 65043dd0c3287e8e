package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// FuzzFrames: any bytes are frames or an error, never a panic, and what was
// appended is what is read.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'x'}, []byte("payload"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, []byte{})
	f.Fuzz(func(t *testing.T, junk, payload []byte) {
		const limit = 1 << 16
		for _, read := range []func(*frameReader) ([]byte, error){
			func(r *frameReader) ([]byte, error) { return r.message() },
			func(r *frameReader) ([]byte, error) { _, p, err := r.request(); return p, err },
			func(r *frameReader) ([]byte, error) { _, p, err := r.answer(); return p, err },
		} {
			r := newFrameReader(iotest.OneByteReader(bytes.NewReader(junk)), limit)
			for {
				p, err := read(r)
				if len(p) > limit || len(p) > len(junk) {
					t.Fatalf("a payload of %d bytes", len(p))
				}
				if err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errFrame) {
						t.Fatal(err)
					}
					break
				}
			}
		}
		if len(payload) > limit {
			return
		}
		parts := [][]byte{payload[:len(payload)/2], payload[len(payload)/2:]}
		q := request{id: 7 << 40, timeout: 9, method: 3}
		a := answer{id: 8 << 40, code: 5}
		b := appendRequest(nil, q, len(payload), parts)
		b = appendRequest(b, q, 0, nil)
		r := newFrameReader(bytes.NewReader(b), limit)
		if got, p, err := r.request(); err != nil || got != q || !bytes.Equal(p, payload) {
			t.Fatalf("request %+v %q %v", got, p, err)
		}
		if got, p, err := r.request(); err != nil || got != q || len(p) > 0 {
			t.Fatalf("second request %+v %q %v", got, p, err)
		}
		r = newFrameReader(bytes.NewReader(appendAnswer(nil, a, len(payload), parts)), limit)
		if got, p, err := r.answer(); err != nil || got != a || !bytes.Equal(p, payload) {
			t.Fatalf("answer %+v %q %v", got, p, err)
		}
		r = newFrameReader(bytes.NewReader(appendMessage(nil, len(payload), parts)), limit)
		if p, err := r.message(); err != nil || !bytes.Equal(p, payload) {
			t.Fatalf("message %q %v", p, err)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{version: 1, class: 3, mesh: 9, boot: 8, name: "snapshot"}.append(nil))
	f.Add(welcome{version: 1, status: 2, boot: 8, text: "why"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := readHello(bytes.NewReader(b)); err == nil && h.version == helloVersion {
			if !bytes.HasPrefix(b, h.append(nil)) {
				t.Fatalf("%+v is not what was read", h)
			}
		}
		if w, err := readWelcome(bytes.NewReader(b)); err == nil {
			if !bytes.HasPrefix(b, w.append(nil)) {
				t.Fatalf("%+v is not what was read", w)
			}
		}
	})
}

func TestLargePayloadIsReadInSteps(t *testing.T) {
	want := bytes.Repeat([]byte("abcdefg"), 1<<20)
	b := appendMessage(nil, len(want), [][]byte{want})
	r := newFrameReader(iotest.HalfReader(bytes.NewReader(b)), len(want))
	if got, err := r.message(); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r = newFrameReader(bytes.NewReader(b[:10]), len(want))
	if n := testing.AllocsPerRun(1, func() { r.message() }); n > 10 {
		t.Fatalf("%v allocations", n)
	}
}

// TestGoldenFrames pins the wire format.
func TestGoldenFrames(t *testing.T) {
	parts := [][]byte{[]byte("a"), []byte("b")}
	for _, x := range []struct{ got, want []byte }{
		{appendMessage(nil, 2, parts), []byte("\x00\x00\x00\x02ab")},
		{appendRequest(nil, request{1, 2, 3}, 2, parts), []byte("\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x03ab")},
		{appendAnswer(nil, answer{1, 2}, 2, parts), []byte("\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02ab")},
		{hello{1, 2, 3, 4, "x"}.append(nil), []byte("\x01\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04\x01x")},
		{welcome{1, 2, 3, "x"}.append(nil), []byte("\x01\x02\x00\x00\x00\x00\x00\x00\x00\x03\x01x")},
	} {
		if !bytes.Equal(x.got, x.want) {
			t.Errorf("%q, want %q", x.got, x.want)
		}
	}
}

// FuzzIdentity: any text is an identity or refused as none, and an identity has the name
// that its key gives it.
func FuzzIdentity(f *testing.F) {
	files := fsys.NewMem()
	if _, err := LoadIdentity(files, ""); err != nil {
		f.Fatal(err)
	}
	text, err := fsys.ReadSmall(files, IdentityFile, identityBytesMax)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(identityPrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, err := parseIdentity(text)
		if err != nil && !errors.Is(err, ErrIdentity) || err == nil && !id.pid.MatchesPrivateKey(id.key) {
			t.Fatalf("%q: %v, %v", text, id.pid, err)
		}
	})
}
