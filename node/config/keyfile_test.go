package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

func TestMeshKeyIsMadeOnceByGenesisOnly(t *testing.T) {
	c := Default()
	c.Identity.DataDir = filepath.Join(t.TempDir(), "new")
	if _, err := c.MeshKey(); !errors.Is(err, ErrNoMeshKey) || !strings.Contains(err.Error(), "--mesh-key-file") {
		t.Fatalf("without --genesis: %v", err)
	}
	c.Mesh.Genesis = true
	made, err := c.MeshKey()
	if err != nil || made.Validate() != nil {
		t.Fatalf("genesis: %v", err)
	}
	if info, err := os.Stat(c.KeyPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info, err)
	}
	c.Mesh.Genesis = false
	if again, err := c.MeshKey(); err != nil || again != made {
		t.Errorf("the second start read another key (%v)", err)
	}
	if err := WriteMeshKey(c.KeyPath(), meshkey.Generate()); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwrote a key: %v", err)
	}
}

func TestNamedMeshKeyFileIsNeverMade(t *testing.T) {
	c := Default()
	c.Mesh.Genesis, c.Mesh.KeyFile = true, filepath.Join(t.TempDir(), "mesh.key")
	if _, err := c.MeshKey(); !errors.Is(err, ErrNoMeshKey) || !strings.Contains(err.Error(), "anchormesh key new") {
		t.Fatalf("missing file: %v", err)
	}
	if err := os.WriteFile(c.Mesh.KeyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MeshKey(); !errors.Is(err, meshkey.ErrMalformed) {
		t.Fatalf("bad file: %v", err)
	}
}

func TestGenesisMakesNoKeyAmongOtherFiles(t *testing.T) {
	c := Default()
	c.Mesh.Genesis, c.Identity.DataDir = true, t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Identity.DataDir, "node.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MeshKey(); !errors.Is(err, ErrNoMeshKey) || !strings.Contains(err.Error(), "holds other files") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(c.KeyPath()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a key was made: %v", err)
	}
}
