package config

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMeshKeyFile(t *testing.T) {
	k, err := NewMeshKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "new", "mesh.key")
	if _, err := ReadMeshKey(path); !errors.Is(err, ErrNoMeshKey) || !strings.Contains(err.Error(), "anchormesh key new") {
		t.Fatalf("missing file: %v", err)
	}
	if err := NewMeshKeyFile(path, k); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if got, err := ReadMeshKey(path); err != nil || got != k {
		t.Fatalf("read back %v", err)
	}
	if err := NewMeshKeyFile(path, MeshKey{1}); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrote a key: %v", err)
	}
	if strings.Contains(k.String(), k.Text()[25:30]) {
		t.Error("String shows the key")
	}
}

func TestMeshKeyFormatIsPinned(t *testing.T) {
	k := MeshKey{0: 0xab, 31: 0x01}
	want := "anchormesh-mesh-key-1 ab" + strings.Repeat("00", 30) + "01\n"
	if k.Text() != want {
		t.Fatalf("file format changed: %q", k.Text())
	}
	for _, bad := range []string{"", "ab", "anchormesh-mesh-key-2 " + strings.Repeat("ab", 32), "anchormesh-mesh-key-1 abc", "anchormesh-mesh-key-1 " + strings.Repeat("00", 32), want + want} {
		if _, err := ParseMeshKey(bad); !errors.Is(err, ErrBadMeshKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
