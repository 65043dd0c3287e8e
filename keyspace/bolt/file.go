package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// FileConfig says how a bbolt file is kept.
type FileConfig struct {
	Path string
	// LockTimeout is how long another process may hold the file; a restart
	// overlaps the dying process by less.
	LockTimeout time.Duration
	// MapBytes of address space are reserved for the file (not memory). A file
	// that outgrows it makes some commits wait for all readers.
	MapBytes int
	// PageBytes is fixed when the file is made.
	PageBytes int
}

// DefaultFileConfig suits a node's scope.
func DefaultFileConfig(path string) FileConfig {
	return FileConfig{Path: path, LockTimeout: 5 * time.Second, MapBytes: 16 << 30, PageBytes: 8 << 10}
}

// Validate refuses what cannot work.
func (c FileConfig) Validate() error {
	switch {
	case c.Path == "":
		return errors.New("bolt: the path is empty")
	case c.LockTimeout <= 0:
		return errors.New("bolt: the lock timeout must be positive")
	case c.MapBytes < 1<<20:
		return errors.New("bolt: the map must be at least 1 MiB")
	case c.PageBytes < 4<<10 || c.PageBytes > 64<<10 || c.PageBytes&(c.PageBytes-1) != 0:
		return errors.New("bolt: the page size must be a power of two from 4 KiB to 64 KiB")
	}
	return nil
}

// appendFill leaves a little room for the records of a segment that lags behind
// the others of its file.
const appendFill = 0.95

// File is a Backend in a bbolt file.
type File struct {
	cfg FileConfig

	writeMu sync.Mutex // held by Update, Defrag and Close

	mu       sync.Mutex // guards what follows; never held while waiting for a reader
	db       *handle
	current  *fileSnapshot // the newest state, if somebody reads or idle
	updating bool
	failed   error // fatal, or ErrClosed

	total, inUse atomic.Int64
}

// handle is an open bbolt file, closed when the last of its users lets go. Defrag
// replaces the file while readers still use the old one.
type handle struct {
	*bbolt.DB
	refs atomic.Int64
}

func (h *handle) release() error {
	if h.refs.Add(-1) == 0 {
		return h.DB.Close()
	}
	return nil
}

// OpenFile opens the file or makes it. The errors are ErrLocked, ErrForeign and
// those of the operating system.
func OpenFile(cfg FileConfig) (*File, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := removeIfThere(cfg.Path + defragSuffix); err != nil {
		return nil, err
	}
	if err := createFile(cfg); err != nil {
		return nil, err
	}
	if err := probe(cfg.Path, cfg); err != nil {
		return nil, err
	}
	db, err := openDB(cfg.Path, cfg)
	if err != nil {
		return nil, err
	}
	f := &File{cfg: cfg, db: db}
	f.measure()
	return f, nil
}

const createSuffix = ".new"

// createFile makes an empty store under another name first, so that a crash leaves
// no half-written header, and syncs the directory, which bbolt does not.
func createFile(cfg FileConfig) error {
	if _, err := os.Stat(cfg.Path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp := cfg.Path + createSuffix
	if err := removeIfThere(tmp); err != nil {
		return err
	}
	db, err := openDB(tmp, cfg)
	if err != nil {
		return err
	}
	if err := db.release(); err != nil {
		return fmt.Errorf("bolt: close %s: %w", tmp, err)
	}
	return renameSynced(tmp, cfg.Path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("bolt: remove leftover: %w", err)
	}
	return nil
}

func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("bolt: sync directory: %w", err)
	}
	return nil
}

// Update implements Backend.
func (f *File) Update(fn func(tx Tx) error) error {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	db, err := f.beginUpdate()
	if err != nil {
		return err
	}
	defer f.endUpdate()
	tx, err := db.Begin(true)
	if err != nil {
		return f.fail(err)
	}
	defer tx.Rollback() // of no effect after Commit
	if err := fn(fileTx{tx}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return f.fail(err)
	}
	return nil
}

// beginUpdate lets go of the idle snapshot: its pages can be reused, and a commit
// that must remap the file does not wait for it.
func (f *File) beginUpdate() (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, f.failed
	}
	f.updating = true
	f.dropKeptLocked()
	return f.db, nil
}

// endUpdate forgets the snapshot of the state before, whoever still reads it.
func (f *File) endUpdate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updating = false
	f.current = nil
	f.measure()
}

func (f *File) dropKeptLocked() {
	if s := f.current; s != nil && s.kept {
		s.kept = false
		s.Release()
	}
}

// fail makes the first failure final.
func (f *File) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = fmt.Errorf("%w: %s: %w", ErrFatal, f.cfg.Path, err)
	}
	return f.failed
}

// measure takes the sizes after a commit; bbolt counts free pages only then.
func (f *File) measure() {
	st := f.db.Stats()
	f.db.View(func(tx *bbolt.Tx) error {
		f.total.Store(tx.Size())
		f.inUse.Store(tx.Size() - int64(st.FreePageN+st.PendingPageN)*int64(f.db.Info().PageSize))
		return nil
	})
}

// Size implements Backend.
func (f *File) Size() (total, inUse int64) { return f.total.Load(), f.inUse.Load() }

// Close implements Backend.
func (f *File) Close() error {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.failed, ErrClosed) {
		return nil
	}
	f.failed = ErrClosed
	f.dropKeptLocked()
	f.current = nil
	return f.db.release()
}

// fileTx adapts a bbolt transaction.
type fileTx struct{ tx *bbolt.Tx }

func (t fileTx) Bucket(name string) (Bucket, error) {
	b, err := t.tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return nil, fmt.Errorf("bolt: bucket %s: %w", name, err)
	}
	return fileBucket{b}, nil
}

func (t fileTx) Appending(name string) (Bucket, error) {
	b, err := t.tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return nil, fmt.Errorf("bolt: bucket %s: %w", name, err)
	}
	b.FillPercent = appendFill
	return fileBucket{b}, nil
}

// fileBucket adapts a bbolt bucket.
type fileBucket struct{ b *bbolt.Bucket }

func (b fileBucket) Get(key []byte) []byte { return b.b.Get(key) }
func (b fileBucket) Cursor() Cursor        { return b.b.Cursor() }
func (b fileBucket) Delete(key []byte) error {
	return b.b.Delete(key)
}
func (b fileBucket) Put(key, value []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	return b.b.Put(key, value)
}
