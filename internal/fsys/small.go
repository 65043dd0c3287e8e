package fsys

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// TemporarySuffix ends the name under which WriteSmall prepares a file; a crash
// may leave one.
const TemporarySuffix = ".tmp"

// ReadSmall reads a whole file of at most limit bytes.
func ReadSmall(files FS, path string, limit int64) ([]byte, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("it has %d bytes, at most %d expected", size, limit)
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return text, nil
}

// WriteSmall replaces dir/name by text, durably and atomically.
func WriteSmall(files FS, dir, name string, text []byte) error {
	tmp := filepath.Join(dir, name+TemporarySuffix)
	f, err := files.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := files.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return files.SyncDir(dir)
}
