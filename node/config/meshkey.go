package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The mesh key file is one line: a format name, a space, 64 hex digits.
const (
	meshKeyFormat = "anchormesh-mesh-key-1"
	meshKeyBytes  = 32
	// meshKeyFile is the key's place in a data directory.
	meshKeyFile = "mesh.key"
)

var (
	// ErrNoMeshKey means that the mesh key file does not exist.
	ErrNoMeshKey = errors.New("no mesh key")
	// ErrBadMeshKey means that the file is not what `anchormesh key new` writes.
	ErrBadMeshKey = errors.New("not a mesh key")
)

// MeshKey is the secret that the nodes of a mesh share.
type MeshKey [meshKeyBytes]byte

// String hides the key from logs.
func (MeshKey) String() string { return "mesh key (hidden)" }

// Text is the line that the key file holds, newline included.
func (k MeshKey) Text() string {
	return meshKeyFormat + " " + hex.EncodeToString(k[:]) + "\n"
}

// NewMeshKey draws a key from random (crypto/rand.Reader).
func NewMeshKey(random io.Reader) (MeshKey, error) {
	var k MeshKey
	_, err := io.ReadFull(random, k[:])
	return k, err
}

// ParseMeshKey reads what Text writes; white space around it is allowed.
func ParseMeshKey(text string) (MeshKey, error) {
	var k MeshKey
	fields := strings.Fields(text)
	if len(fields) != 2 || fields[0] != meshKeyFormat {
		return k, fmt.Errorf("%w: want one line \"%s <64 hex digits>\", as `anchormesh key new` prints", ErrBadMeshKey, meshKeyFormat)
	}
	raw, err := hex.DecodeString(fields[1])
	if err != nil || len(raw) != meshKeyBytes {
		return k, fmt.Errorf("%w: want 64 hex digits", ErrBadMeshKey)
	}
	copy(k[:], raw)
	if k == (MeshKey{}) {
		return k, fmt.Errorf("%w: all digits are zero", ErrBadMeshKey)
	}
	return k, nil
}

// KeyPath is the mesh key file in force.
func (c *Config) KeyPath() string {
	if c.Mesh.KeyFile != "" {
		return c.Mesh.KeyFile
	}
	return filepath.Join(c.Identity.Dir(), meshKeyFile)
}

// ReadMeshKey reads a key file. ErrNoMeshKey if there is none.
func ReadMeshKey(path string) (MeshKey, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return MeshKey{}, fmt.Errorf("%w at %s: make one with `anchormesh key new > FILE` and give every node the same with --mesh-key-file", ErrNoMeshKey, path)
	case err != nil:
		return MeshKey{}, fmt.Errorf("mesh key: %w", err)
	}
	k, err := ParseMeshKey(string(text))
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// NewMeshKeyFile writes k to path, readable by its owner only, and its directory
// if missing. An existing file is never overwritten.
func NewMeshKeyFile(path string, k MeshKey) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("mesh key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("mesh key: %w", err)
	}
	_, err = f.WriteString(k.Text())
	return errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

// syncDir makes a new name in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
