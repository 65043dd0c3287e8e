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

// MeshKey reads the mesh key. A genesis node that was named no key file and whose
// data directory is empty or missing makes a key there, readable by its owner only
// and on disk before it is returned. In a directory that is in use a new key would
// cut the node off from its mesh, or litter somebody else's files.
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
	if err := wantEmpty(c.Identity.Dir()); err != nil {
		return key, err
	}
	key = meshkey.Generate()
	return key, WriteMeshKey(path, key)
}

// wantEmpty refuses a directory with anything in it but what mkfs leaves.
func wantEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--data-dir: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w: %s holds other files and no %s; name an empty directory, or the mesh's key with --mesh-key-file", ErrNoMeshKey, dir, meshKeyFile)
		}
	}
	return nil
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
