package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

// meshKeyFile is the mesh key's place in a data directory.
const meshKeyFile = "mesh.key"

// ErrNoMeshKey means that the node was given no mesh key and may not make one.
var ErrNoMeshKey = errors.New("no mesh key")

// KeyPath is the mesh key file in force.
func (c *Config) KeyPath() string {
	if c.Mesh.KeyFile != "" {
		return c.Mesh.KeyFile
	}
	return filepath.Join(c.Identity.Dir(), meshKeyFile)
}

// MeshKey reads the mesh key. A genesis node that was named no key file makes a
// key in its data directory, readable by its owner only and on disk before it is
// returned; a file that exists is never overwritten.
func (c *Config) MeshKey() (meshkey.Key, error) {
	path := c.KeyPath()
	key, err := meshkey.Read(path)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return key, err
	case c.Mesh.KeyFile != "":
		return key, fmt.Errorf("--mesh-key-file: %w at %s: make one with `anchormesh key new > FILE` and give every node the same", ErrNoMeshKey, path)
	case !c.Mesh.Genesis:
		return key, fmt.Errorf("%w: give the file that the mesh's other nodes use with --mesh-key-file, or create a mesh with --genesis", ErrNoMeshKey)
	}
	key = meshkey.Generate()
	return key, WriteMeshKey(path, key)
}

// WriteMeshKey writes key to a new file, and makes the file's directory if it is
// missing.
func WriteMeshKey(path string, key meshkey.Key) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mesh key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("mesh key: %w", err)
	}
	_, err = f.WriteString(key.Encode())
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

// syncDir makes a new name in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
