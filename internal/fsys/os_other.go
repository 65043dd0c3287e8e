//go:build !linux

package fsys

func (f osFile) datasync() error { return f.File.Sync() }

// Preallocate sets the length only.
func (f osFile) Preallocate(size int64) error { return f.Truncate(size) }
