package classes

import (
	"bytes"
	"testing"
)

// A word is read back as it was said, and nothing else is read as one.
func FuzzWord(f *testing.F) {
	f.Add(word{forgot, 7, 3}.encode())
	f.Add(word{onDisk, 1 << 63, 0}.encode())
	f.Add([]byte{wordVersion, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWord(b)
		if err != nil {
			return
		}
		again, err := parseWord(w.encode())
		if err != nil || again != w || w.segment == 0 || w.kind != forgot && w.kind != onDisk {
			t.Fatalf("%x was read as %+v, and that as %+v, %v", b, w, again, err)
		}
		if len(b) == len(w.encode()) && !bytes.Equal(b, w.encode()) {
			t.Fatalf("%x and %x say the same", b, w.encode())
		}
	})
}

func TestWordsThatAreNone(t *testing.T) {
	good := word{forgot, 7, 300}.encode()
	for name, b := range map[string][]byte{
		"empty": nil, "cut short": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "another version": append([]byte{2}, good[1:]...),
		"unknown kind": append([]byte{wordVersion, 9}, good[2:]...), "no segment": word{forgot, 0, 3}.encode(),
	} {
		if w, err := parseWord(b); err == nil {
			t.Errorf("%s: read as %+v", name, w)
		}
	}
}
