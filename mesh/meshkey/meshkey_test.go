package meshkey

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeySurvivesItsFile(t *testing.T) {
	k := Generate()
	path := filepath.Join(t.TempDir(), "mesh.key")
	if err := os.WriteFile(path, []byte("\n  "+k.Encode()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || got != k {
		t.Fatalf("Read: %v, equal %v", err, got == k)
	}
}

func TestGoldenForm(t *testing.T) {
	var k Key
	for i := range k {
		k[i] = byte(i)
	}
	const text = "anchormesh-key-v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
	if k.Encode() != text {
		t.Fatalf("file form changed: %q", k.Encode())
	}
	if got := fmt.Sprintf("%x", k.Derive("gossip")); got != goldenGossip {
		t.Fatalf("derived key changed: %s", got)
	}
}

// A change of this value cuts off every node that runs the version before.
const goldenGossip = "210dedf20a1fbbfa0c49f69f8de5df3db226ef68c04e062742173947b7a7719b"

func TestWrongKeysAreOneSentence(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":  {"", ErrMalformed},
		"prefix": {"anchormesh-key-v2:AAAA", ErrMalformed},
		"base64": {"anchormesh-key-v1:***", ErrMalformed},
		"short":  {"anchormesh-key-v1:AAECAw==", ErrMalformed},
		"zero":   {Key{}.Encode(), ErrZero},
		"two":    {Generate().Encode() + Generate().Encode(), ErrMalformed},
		"big":    {strings.Repeat("x", fileBytesMax+1), ErrMalformed},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := Generate()
	secret := strings.TrimSpace(strings.TrimPrefix(k.Encode(), prefix))
	for _, form := range []string{"%v", "%s", "%#v", "%+v"} {
		if s := fmt.Sprintf(form, k); strings.Contains(s, secret) || len(s) > 40 {
			t.Errorf("%s printed %q", form, s)
		}
	}
	if k.Derive("gossip") == k.Derive("pnet") {
		t.Error("two uses share a key")
	}
}
