package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

func openDB(path string, cfg FileConfig) (*handle, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         cfg.LockTimeout,
		PageSize:        cfg.PageBytes,
		InitialMmapSize: cfg.MapBytes,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	h := &handle{DB: db}
	h.refs.Store(1)
	return h, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w: %s", ErrLocked, path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("%w: %s: %w", ErrForeign, path, err)
	}
	return fmt.Errorf("bolt: open %s: %w", path, err)
}

// probe reads a file from end to end before it is opened for writing. bbolt finds
// a damaged tree only while it gathers the free pages, on a goroutine of its own
// whose panic nobody can turn into a sentence; here damage, and pages beyond the
// end of a file that was cut off, become ErrForeign. The pages are read once more
// right after, from the page cache.
func probe(path string, cfg FileConfig) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrForeign, path, p)
		}
	}()
	// An empty file bbolt would make a store of; ours get their name when they are one.
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		return fmt.Errorf("%w: %s is empty", ErrForeign, path)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: cfg.LockTimeout, ReadOnly: true})
	if err != nil {
		return openError(path, err)
	}
	defer db.Close()
	tx, err := db.Begin(false)
	if err != nil {
		return openError(path, err)
	}
	defer tx.Rollback()
	if err := checkLength(tx, path); err != nil {
		return err
	}
	return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
		if b == nil {
			return fmt.Errorf("%w: %s has a key outside every bucket", ErrForeign, path)
		}
		c := b.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			_ = k[0]
		}
		return nil
	})
}

// checkLength refuses a file that was cut off.
func checkLength(tx *bbolt.Tx, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	if st.Size() < tx.Size() {
		return fmt.Errorf("%w: %s has %d bytes, its header says %d", ErrForeign, path, st.Size(), tx.Size())
	}
	return nil
}
