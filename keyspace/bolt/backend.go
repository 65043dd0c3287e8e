package bolt

import "errors"

var (
	// ErrFatal: a write or sync failed, and what is on disk is unknown; the owner must crash.
	ErrFatal = errors.New("bolt: the store failed to write and cannot be trusted until it is reopened")
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("bolt: the file is in use by another process")
	// ErrForeign: the file is no store, or is damaged beyond its header.
	ErrForeign = errors.New("bolt: the file is not a store or is damaged")
	// ErrClosed: the backend was closed.
	ErrClosed = errors.New("bolt: the store is closed")
	// ErrEmptyKey: a key of no bytes cannot be stored.
	ErrEmptyKey = errors.New("bolt: the key is empty")
)

// Backend is an ordered store of named buckets.
type Backend interface {
	// Update runs fn in one transaction, which is durable when Update returns nil
	// and leaves no trace when fn returns an error.
	Update(fn func(tx Tx) error) error
	// Snapshot is the newest committed state. It must be released.
	Snapshot() Snapshot
	// Size is the bytes allocated and the part of them that holds data.
	Size() (total, inUse int64)
	// Defrag rewrites the store without its free space. Updates wait, snapshots do not.
	Defrag() error
	// Close waits for a running Update. Snapshots stay readable until released.
	Close() error
}

// Tx is a writable transaction, for one goroutine.
type Tx interface {
	// Bucket returns the bucket, made if it did not exist.
	Bucket(name string) (Bucket, error)
	// Appending is Bucket for keys that mostly arrive in ascending order: its
	// pages are packed.
	Appending(name string) (Bucket, error)
}

// Bucket is a bucket inside a writable transaction.
type Bucket interface {
	Reader
	Put(key, value []byte) error // replaces; ErrEmptyKey
	Delete(key []byte) error     // a missing key is no error
}

// Reader reads one bucket.
type Reader interface {
	Get(key []byte) []byte // nil: no such key
	Cursor() Cursor
}

// Cursor walks a bucket in key order, for one goroutine. Keys are never empty, so
// a nil key means the end.
type Cursor interface {
	Seek(key []byte) (k, v []byte) // the first key at or after key
	Next() (k, v []byte)
}

// Snapshot is an unchanging state of the whole store, for any number of goroutines.
type Snapshot interface {
	Bucket(name string) Reader // a bucket that does not exist reads as empty
	Release()                  // once; what was read must not be used afterwards
}

// empty reads a bucket that does not exist.
type empty struct{}

func (empty) Get([]byte) []byte            { return nil }
func (empty) Cursor() Cursor               { return empty{} }
func (empty) Seek([]byte) ([]byte, []byte) { return nil, nil }
func (empty) Next() ([]byte, []byte)       { return nil, nil }
