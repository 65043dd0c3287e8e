package fsys

import (
	"errors"
	"syscall"
)

// datasync is fdatasync(2), repeated when a signal interrupts it.
func (f osFile) datasync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Preallocate is fallocate(2); file systems without it get a sparse length.
func (f osFile) Preallocate(size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return f.Truncate(size)
	}
	return mapError(err)
}
