package fsys

import (
	"errors"
	"io"
)

// SectorBytes is the unit that a disk writes whole or not at all.
const SectorBytes = 512

var (
	// ErrLocked is returned by Lock when another holder has the lock.
	ErrLocked = errors.New("locked by another process")
	// ErrNoSpace is returned when the disk is full.
	ErrNoSpace = errors.New("no space left on device")
)

// FS is a file system. Errors match the sentinels of io/fs (fs.ErrNotExist,
// fs.ErrExist) and ErrNoSpace by errors.Is.
type FS interface {
	// Create makes an empty file for reading and writing; an old one of that
	// name is emptied.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenFile opens an existing file for reading and writing.
	OpenFile(name string) (File, error)
	// Rename moves a file over an old one of that name, if there is one.
	Rename(from, to string) error
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and its parents, private to the user.
	MkdirAll(dir string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes an advisory lock on a file, which it creates, until the
	// returned Closer is closed or the process ends. It fails with ErrLocked at
	// once if another holder has it.
	Lock(name string) (io.Closer, error)
	// FreeBytes returns the room that is left for this user on dir's disk.
	FreeBytes(dir string) (uint64, error)
}

// File is an open file. Reads and writes name their offset; there is no cursor.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length; a longer file gains zeros.
	Truncate(size int64) error
	// Preallocate asks the disk for room up to size and sets the length. The
	// new bytes read as zeros. It may be a mere Truncate where the file system
	// knows no better; only written bytes are sure to have a place.
	Preallocate(size int64) error
	// Sync makes contents and length durable.
	Sync() error
	// Datasync makes the contents within a length that is already durable
	// durable, without the cost of writing times and other metadata.
	Datasync() error
}
