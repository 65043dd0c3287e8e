package bolt

import (
	"fmt"

	"go.etcd.io/bbolt"
)

const (
	defragSuffix = ".defrag"
	// defragTxBytes bounds the memory of the copy.
	defragTxBytes = 8 << 20
)

// Defrag implements Backend: the live data is copied to a new file, synced, and
// renamed over the old one. A crash leaves the old file or the new one, which hold
// the same. Readers of the old file keep it open until they let go.
func (f *File) Defrag() error {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	f.mu.Lock()
	old, failed := f.db, f.failed
	f.mu.Unlock()
	if failed != nil {
		return failed
	}
	tmp := f.cfg.Path + defragSuffix
	fresh, err := copyTo(tmp, old, f.cfg)
	if err != nil {
		removeIfThere(tmp)
		return err
	}
	if err := renameSynced(tmp, f.cfg.Path); err != nil {
		// Whether the name points to the old or the new file is unknown now.
		fresh.release()
		return f.fail(err)
	}
	f.mu.Lock()
	f.dropKeptLocked()
	f.db, f.current = fresh, nil
	f.measure()
	f.mu.Unlock()
	return old.release()
}

// copyTo writes old's data to a new file at path and syncs it.
func copyTo(path string, old *handle, cfg FileConfig) (*handle, error) {
	if err := removeIfThere(path); err != nil {
		return nil, err
	}
	fresh, err := openDB(path, cfg)
	if err != nil {
		return nil, err
	}
	fresh.NoSync = true // one sync at the end; the file has no name that counts yet
	err = bbolt.Compact(fresh.DB, old.DB, defragTxBytes)
	if err == nil {
		fresh.NoSync = false
		err = fresh.Sync()
	}
	if err != nil {
		fresh.release()
		return nil, fmt.Errorf("bolt: defragment %s: %w", cfg.Path, err)
	}
	return fresh, nil
}
