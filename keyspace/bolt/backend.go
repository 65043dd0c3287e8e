package bolt

// Backend is an ordered store of named buckets.
type Backend interface {
	// Update runs fn in one transaction that is durable when Update returns nil.
	Update(fn func(tx Tx) error) error
	// Snapshot is the newest committed state, shared by all who ask between two commits.
	Snapshot() Snapshot
	// Size is the bytes allocated and the bytes of them in use.
	Size() (total, inUse int64)
	Defrag() error
	Close() error
}

// Tx is a writable transaction.
type Tx interface {
	Bucket(name string) Bucket
	// Appending is Bucket for keys that mostly arrive in ascending order.
	Appending(name string) Bucket
}

// Bucket is a bucket inside a writable transaction.
type Bucket interface {
	Reader
	Put(key, value []byte) error
	Delete(key []byte) error
}

// Reader reads one bucket.
type Reader interface {
	Get(key []byte) []byte
	Cursor() Cursor
}

// Cursor walks a bucket in key order.
type Cursor interface {
	Seek(key []byte) (k, v []byte)
	Next() (k, v []byte)
}

// Snapshot is a read-only state of the whole store.
type Snapshot interface {
	Bucket(name string) Reader
	Release()
}
