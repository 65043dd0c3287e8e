package datadir

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// format of node.json; a newer one is refused.
const format = 1

// recordBytesMax bounds node.json: a segment that left costs about 50 bytes.
const recordBytesMax = 16 << 20

var (
	// ErrForeign says that the directory holds something else than a node.
	ErrForeign = errors.New("not an AnchorMesh data directory")
	// ErrInUse says that another process uses the directory.
	ErrInUse = errors.New("data directory is in use by another process")
)

// Record is what a node knows about itself outside of any segment.
type Record struct {
	// Mesh is zero until the node belongs to one.
	Mesh anchormesh.MeshID
	// Genesis is the segment this node created with the mesh, if it did.
	Genesis anchormesh.SegmentID
	// Retired holds, per segment, the highest replica ID that this node gave
	// up. It must not come back: it has forgotten its votes.
	Retired map[anchormesh.SegmentID]anchormesh.ReplicaID
}

// stored is the JSON form of a Record.
type stored struct {
	Format  int               `json:"format"`
	Mesh    string            `json:"mesh,omitempty"`
	Genesis string            `json:"genesis_segment,omitempty"`
	Retired map[string]uint64 `json:"retired_replicas,omitempty"`
}

// Dir is an opened data directory. It is not safe for concurrent use.
type Dir struct {
	fs     fsys.FS
	path   string
	lock   io.Closer
	record Record
}

// Open locks the directory, which is created if needed, and reads the record. A
// directory with files of somebody else is refused.
func Open(fsys fsys.FS, path string) (*Dir, error) {
	if err := fsys.MkdirAll(path); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be created: %w", path, err)
	}
	if err := refuseForeign(fsys, path); err != nil {
		return nil, err
	}
	d := &Dir{fs: fsys, path: path}
	lock, err := fsys.Lock(d.file("node.lock"))
	if err != nil {
		return nil, lockError(path, err)
	}
	d.lock = lock
	if err := d.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, sub := range []string{d.Log(), d.file("scopes")} {
		if err := fsys.MkdirAll(sub); err != nil {
			return nil, errors.Join(fmt.Errorf("data directory %s: %w", path, err), lock.Close())
		}
	}
	return d, fsys.SyncDir(path)
}

func lockError(path string, err error) error {
	if errors.Is(err, fsys.ErrLocked) {
		return fmt.Errorf("%w: %s", ErrInUse, path)
	}
	return fmt.Errorf("data directory %s cannot be locked: %w", path, err)
}

// refuseForeign accepts an empty directory and one that has a node in it; the
// mesh key may have been put there before the first start.
func refuseForeign(fsys fsys.FS, path string) error {
	names, err := fsys.List(path)
	if err != nil {
		return fmt.Errorf("data directory %s cannot be read: %w", path, err)
	}
	known := map[string]bool{
		"node.json": true, "node.json.tmp": true, "node.lock": true, "identity.key": true, "log": true, "scopes": true,
		"mesh.key": true, "lost+found": true, "identity.key.tmp": true, "epoch": true, "epoch.tmp": true,
	}
	for _, name := range names {
		if name == "node.json" {
			return nil
		}
	}
	for _, name := range names {
		if !known[name] {
			return fmt.Errorf("%w: %s holds %q; name an empty directory", ErrForeign, path, name)
		}
	}
	return nil
}

// Close releases the lock.
func (d *Dir) Close() error { return d.lock.Close() }

// FreeBytes returns the room left on the directory's disk.
func (d *Dir) FreeBytes() (uint64, error) { return d.fs.FreeBytes(d.path) }

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// Log returns the directory of the write-ahead log.
func (d *Dir) Log() string { return d.file("log") }

// Scope returns the store file of a scope.
func (d *Dir) Scope(prefix []byte) string {
	name := "root"
	if len(prefix) > 0 {
		name = hex.EncodeToString(prefix)
	}
	return filepath.Join(d.path, "scopes", name+".db")
}

// Scopes returns the prefixes of the scopes that have a store file.
func (d *Dir) Scopes() ([][]byte, error) {
	names, err := d.fs.List(d.file("scopes"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	var out [][]byte
	for _, name := range names {
		base := name[:len(name)-len(filepath.Ext(name))]
		if filepath.Ext(name) != ".db" {
			continue
		}
		if base == "root" {
			out = append(out, nil)
			continue
		}
		prefix, err := hex.DecodeString(base)
		if err != nil {
			return nil, fmt.Errorf("%w: %s is not a scope's store", ErrForeign, filepath.Join(d.path, "scopes", name))
		}
		out = append(out, prefix)
	}
	return out, nil
}

// Record returns a copy of the record.
func (d *Dir) Record() Record {
	r := d.record
	r.Retired = make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(d.record.Retired))
	for k, v := range d.record.Retired {
		r.Retired[k] = v
	}
	return r
}

// Save makes a new record durable.
func (d *Dir) Save(r Record) error {
	s := stored{Format: format, Retired: make(map[string]uint64, len(r.Retired))}
	if r.Mesh != 0 {
		s.Mesh = r.Mesh.String()
	}
	if r.Genesis != 0 {
		s.Genesis = r.Genesis.String()
	}
	for segment, id := range r.Retired {
		s.Retired[segment.String()] = uint64(id)
	}
	data, err := json.MarshalIndent(&s, "", "  ")
	if err != nil {
		return fmt.Errorf("node record: %w", err)
	}
	if err := fsys.WriteSmall(d.fs, d.path, "node.json", append(data, '\n')); err != nil {
		return fmt.Errorf("node record %s cannot be written: %w", d.file("node.json"), err)
	}
	d.record = r
	return nil
}

func (d *Dir) load() error {
	name := d.file("node.json")
	data, err := fsys.ReadSmall(d.fs, name, recordBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("node record %s cannot be read: %w", name, err)
	}
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("node record %s is damaged: %w", name, err)
	}
	if s.Format != format {
		return fmt.Errorf("node record %s has format %d, this program knows %d", name, s.Format, format)
	}
	return d.parse(name, &s)
}

func (d *Dir) parse(name string, s *stored) error {
	bad := func(err error) error { return fmt.Errorf("node record %s is damaged: %w", name, err) }
	var err error
	if s.Mesh != "" {
		if d.record.Mesh, err = anchormesh.ParseMeshID(s.Mesh); err != nil {
			return bad(err)
		}
	}
	if s.Genesis != "" {
		if d.record.Genesis, err = anchormesh.ParseSegmentID(s.Genesis); err != nil {
			return bad(err)
		}
	}
	d.record.Retired = make(map[anchormesh.SegmentID]anchormesh.ReplicaID, len(s.Retired))
	for key, id := range s.Retired {
		segment, err := anchormesh.ParseSegmentID(key)
		if err != nil {
			return bad(err)
		}
		d.record.Retired[segment] = anchormesh.ReplicaID(id)
	}
	return nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }
