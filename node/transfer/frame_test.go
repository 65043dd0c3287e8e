package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

func encoded(t testing.TB, h header, chunks ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := bufio.NewWriter(&buf)
	if err := h.write(w); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(chunks, "") {
		if err := writeChunk(w, []byte(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestStreamIsReadBackAsItWasWritten(t *testing.T) {
	h := header{to: 300, meta: mvcc.Meta{Applied: 1 << 40, Term: 7, State: []byte("state")}}
	r := bufio.NewReader(bytes.NewReader(encoded(t, h, "one", "two")))
	got, err := readHeader(r)
	if err != nil || got.to != h.to || got.meta.Applied != h.meta.Applied || got.meta.Term != 7 || string(got.meta.State) != "state" {
		t.Fatalf("%+v came as %+v, %v", h, got, err)
	}
	for _, want := range []string{"one", "two", ""} {
		chunk, err := readChunk(r)
		if err != nil || string(chunk) != want {
			t.Fatalf("chunk %q, %v; want %q", chunk, err, want)
		}
	}
}

func TestDamagedChunksAreRefused(t *testing.T) {
	stream := encoded(t, header{}, "payload")
	stream[len(stream)-10] ^= 1
	r := bufio.NewReader(bytes.NewReader(stream))
	if _, err := readHeader(r); err != nil {
		t.Fatal(err)
	}
	if _, err := readChunk(r); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a flipped bit gives %v", err)
	}
}

// FuzzStream: any bytes are read or refused.
func FuzzStream(f *testing.F) {
	f.Add(encoded(f, header{to: 2, meta: mvcc.Meta{Applied: 5, Term: 1, State: []byte("s")}}, "a", "b"))
	f.Add([]byte{1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		if _, err := readHeader(r); err != nil {
			return
		}
		for {
			chunk, err := readChunk(r)
			if err == nil && chunk != nil {
				continue
			}
			if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			return
		}
	})
}
