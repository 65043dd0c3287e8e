package datadir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// The names in a data directory; those of the identity are package mesh's.
const (
	recordName   = "node.json"
	lockName     = "node.lock"
	identityName = "identity.key"
	logName      = "log"
	scopesName   = "scopes"
)

var (
	// ErrForeign says that the directory holds something else than a node.
	ErrForeign = errors.New("not an AnchorMesh data directory")
	// ErrInUse says that another process uses the directory.
	ErrInUse = errors.New("data directory is in use by another process")
	// ErrIncomplete says that something is gone without which the node would
	// break promises it has made to others.
	ErrIncomplete = errors.New("data directory is incomplete")
	// ErrNewer: the node record was written by a newer program.
	ErrNewer = errors.New("node record of a newer format")
	// ErrDamaged: the node record is not what was written.
	ErrDamaged = errors.New("node record is damaged")
)

// Dir is an opened data directory. It is not safe for concurrent use.
type Dir struct {
	fs     fsys.FS
	path   string
	lock   io.Closer
	record Record
}

// Open locks the directory, which is created if needed, and reads the record. A
// directory with files of somebody else is refused.
func Open(files fsys.FS, path string) (*Dir, error) {
	if err := files.MkdirAll(path); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be created: %w", path, err)
	}
	// Its own name, too: what is synced inside is lost with it.
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made durable in its parent: %w", path, err)
	}
	if err := refuseForeign(files, path); err != nil {
		return nil, err
	}
	d := &Dir{fs: files, path: path}
	lock, err := files.Lock(d.file(lockName))
	if err != nil {
		return nil, lockError(path, err)
	}
	d.lock = lock
	if err := d.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, sub := range []string{d.Log(), d.file(scopesName)} {
		if err := files.MkdirAll(sub); err != nil {
			return nil, errors.Join(fmt.Errorf("data directory %s: %w", path, err), lock.Close())
		}
	}
	return d, files.SyncDir(path)
}

func lockError(path string, err error) error {
	if errors.Is(err, fsys.ErrLocked) {
		return fmt.Errorf("%w: %s", ErrInUse, path)
	}
	return fmt.Errorf("data directory %s cannot be locked: %w", path, err)
}

// ours may be in a directory without a record: what an operator or mkfs put
// there, what a first start cut short leaves, and what a lost record leaves,
// which has an error of its own.
var ours = []string{recordName, lockName, identityName, logName, scopesName, "mesh.key", "record.epoch", "gossip.known", "lost+found"}

// refuseForeign accepts an empty directory and one that has a node in it; the
// mesh key may have been put there before the first start.
func refuseForeign(files fsys.FS, path string) error {
	names, err := files.List(path)
	if err != nil {
		return fmt.Errorf("data directory %s cannot be read: %w", path, err)
	}
	if slices.Contains(names, recordName) {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(ours, strings.TrimSuffix(name, fsys.TemporarySuffix)) {
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
func (d *Dir) Log() string { return d.file(logName) }

// Scope returns the store file of a scope.
func (d *Dir) Scope(prefix []byte) string {
	return filepath.Join(d.path, scopesName, scopeName(prefix)+storeSuffix)
}

const storeSuffix = ".db"

// scopeName is a prefix as the name of a file.
func scopeName(prefix []byte) string {
	if len(prefix) == 0 {
		return "root"
	}
	return hex.EncodeToString(prefix)
}

func scopePrefix(name string) ([]byte, bool) {
	if name == "root" {
		return nil, true
	}
	prefix, err := hex.DecodeString(name)
	return prefix, err == nil && len(prefix) > 0
}

// Scopes returns the prefixes of the scopes that have a store file.
func (d *Dir) Scopes() ([][]byte, error) {
	names, err := d.fs.List(d.file(scopesName))
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	var out [][]byte
	for _, name := range names {
		base, ok := strings.CutSuffix(name, storeSuffix)
		if !ok {
			continue
		}
		prefix, ok := scopePrefix(base)
		if !ok {
			return nil, fmt.Errorf("%w: %s is not a scope's store", ErrForeign, filepath.Join(d.path, scopesName, name))
		}
		out = append(out, prefix)
	}
	return out, nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }
