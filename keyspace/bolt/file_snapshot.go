package bolt

import (
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// fileSnapshot is one read transaction shared by many readers. kept is true while
// the File itself holds a reference, so that the next reader finds it open; it
// belongs to File.mu.
type fileSnapshot struct {
	tx   *bbolt.Tx
	db   *handle
	refs atomic.Int64
	kept bool

	mu      sync.Mutex
	buckets map[string]Reader
}

// Snapshot implements Backend. It panics after Close: the owner joins its readers
// first.
func (f *File) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil && f.current.join() {
		return f.current
	}
	// Begin can wait for a commit that remaps the file, which waits for readers;
	// they need not f.mu to let go, so this ends.
	tx, err := f.db.Begin(false)
	if err != nil {
		panic(fmt.Sprintf("bolt: snapshot of %s: %v", f.cfg.Path, err))
	}
	s := &fileSnapshot{tx: tx, db: f.db, buckets: make(map[string]Reader)}
	s.db.refs.Add(1)
	s.refs.Store(1)
	if !f.updating {
		s.kept = true
		s.refs.Store(2)
	}
	f.current = s
	return s
}

// join adds a reader unless the last one has left.
func (s *fileSnapshot) join() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release implements Snapshot.
func (s *fileSnapshot) Release() {
	switch n := s.refs.Add(-1); {
	case n < 0:
		panic("bolt: snapshot released twice")
	case n == 0:
		s.tx.Rollback()
		s.db.release()
	}
}

// Bucket implements Snapshot. bbolt's read transactions cache nothing, so the
// opened buckets are kept here and may be read concurrently.
func (s *fileSnapshot) Bucket(name string) Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.buckets[name]
	if !ok {
		r = empty{}
		if b := s.tx.Bucket([]byte(name)); b != nil {
			r = fileBucket{b}
		}
		s.buckets[name] = r
	}
	return r
}
