package mvcc

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// Options are a store's limits.
type Options struct {
	// CommitBytes of pending writes raise Store.Wanted, in bytes. Bigger commits
	// cost less per write and make recovery replay more of the log.
	CommitBytes int
	// MaxPendingBytes is where Segment.Begin waits for a commit to finish, in
	// bytes: a disk that falls behind slows apply down and does not fill memory.
	// Whoever applies must not be the one who commits.
	MaxPendingBytes int
}

// DefaultOptions suits a node's scope.
func DefaultOptions() Options {
	return Options{CommitBytes: 8 << 20, MaxPendingBytes: 256 << 20}
}

// Validate refuses what cannot work.
func (o Options) Validate() error {
	if o.CommitBytes <= 0 {
		return errors.New("mvcc: CommitBytes must be positive")
	}
	if o.MaxPendingBytes < o.CommitBytes {
		return errors.New("mvcc: MaxPendingBytes must be at least CommitBytes")
	}
	return nil
}

// Store is the applied state of one scope on one node: a backend and the segments
// in it. Its methods may be called from any goroutine.
type Store struct {
	backend bolt.Backend
	opts    Options
	wanted  chan struct{}
	pending atomic.Int64  // bytes applied and not committed
	drops   atomic.Uint64 // counts commits whose buffers may be dropped; written under commitMu
	origins originTable

	// commitMu serialises everything that writes the backend for live segments, so
	// that a segment's durable position is changed by one at a time. Taken before mu
	// and before any segment's lock.
	commitMu sync.Mutex

	mu         sync.Mutex // guards what follows; held for moments only
	segments   map[anchormesh.SegmentID]*Segment
	listed     []*Segment // of segments, sorted; nil: not made since they changed
	absent     map[anchormesh.SegmentID]*record
	installing map[anchormesh.SegmentID]bool
	failed     error
	drained    *sync.Cond // signalled when pending shrinks or the store fails
}

// Open reads what the backend holds and rebuilds the index of every segment. It
// starts no goroutine; commits and scrubs are the caller's to drive. The errors are
// ErrFormat, ErrCorrupt and the backend's.
func Open(backend bolt.Backend, opts Options) (*Store, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Store{
		backend:    backend,
		opts:       opts,
		wanted:     make(chan struct{}, 1),
		segments:   make(map[anchormesh.SegmentID]*Segment),
		absent:     make(map[anchormesh.SegmentID]*record),
		installing: make(map[anchormesh.SegmentID]bool),
	}
	s.drained = sync.NewCond(&s.mu)
	if err := s.restore(); err != nil {
		return nil, err
	}
	return s, nil
}

// Segment returns the present segment of this ID.
func (s *Store) Segment(id anchormesh.SegmentID) (*Segment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.segments[id]
	return g, ok
}

// Segments lists the present segments in order of their IDs.
func (s *Store) Segments() []anchormesh.SegmentID { return sortedIDs(&s.mu, s.segments) }

// Absent lists the segments whose install or removal was cut short. They hold
// nothing: install them again or remove them.
func (s *Store) Absent() []anchormesh.SegmentID { return sortedIDs(&s.mu, s.absent) }

func sortedIDs[V any](mu *sync.Mutex, m map[anchormesh.SegmentID]V) []anchormesh.SegmentID {
	mu.Lock()
	defer mu.Unlock()
	ids := make([]anchormesh.SegmentID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// live lists the present segments in order of their IDs; nobody may modify the list.
func (s *Store) live() []*Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed == nil {
		s.listed = slices.SortedFunc(maps.Values(s.segments), func(a, b *Segment) int { return cmp.Compare(a.id, b.id) })
	}
	return s.listed
}

// Create makes an empty segment at revision 1; it is durable when Create returns.
// The errors are ErrExists, ErrOverlap and the backend's.
func (s *Store) Create(id anchormesh.SegmentID, rng anchormesh.KeyRange, meta Meta) (*Segment, error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.admit(id, rng); err != nil {
		return nil, err
	}
	pos := position{Meta: meta, rng: rng, current: 1, compacted: -1, scrubbed: -1}
	err := s.update(func(tx bolt.Tx) error {
		return putRecord(tx, id, &record{position: pos})
	})
	if err != nil {
		return nil, err
	}
	g := storedSegment(s, id, pos, keyindex.New())
	s.mu.Lock()
	s.segments[id] = g
	s.listed = nil
	s.mu.Unlock()
	return g, nil
}

func (s *Store) admit(id anchormesh.SegmentID, rng anchormesh.KeyRange) error {
	if id == 0 || rng.Empty() {
		return fmt.Errorf("mvcc: cannot create segment %s of range %s", id, rng)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.segments[id] != nil || s.absent[id] != nil {
		return fmt.Errorf("%w: %s", ErrExists, id)
	}
	for other, g := range s.segments {
		if g.KeyRange().Overlaps(rng) {
			return fmt.Errorf("%w: %s and segment %s", ErrOverlap, rng, other)
		}
	}
	for other, r := range s.absent {
		if slices.ContainsFunc(r.clear, rng.Overlaps) {
			return fmt.Errorf("%w: %s and absent segment %s", ErrOverlap, rng, other)
		}
	}
	return nil
}

// Remove drops a segment, present or absent, with its keys, tables and record. It
// is done and durable when Remove returns; a crash before leaves it present or
// absent. Views of it go on, new reads of it fail with ErrGone.
func (s *Store) Remove(id anchormesh.SegmentID) error {
	if err := s.retire(id); err != nil {
		return err
	}
	if err := s.clear(id); err != nil {
		return err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err := s.update(func(tx bolt.Tx) error {
		b, err := tx.Bucket(bucketSegments)
		if err != nil {
			return err
		}
		return b.Delete(id.AppendKey(nil))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.absent, id)
	s.mu.Unlock()
	return nil
}

// retire marks a present segment absent, durably.
func (s *Store) retire(id anchormesh.SegmentID) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.settleShape(); err != nil {
		return err
	}
	s.mu.Lock()
	g, absent, busy := s.segments[id], s.absent[id], s.installing[id]
	s.mu.Unlock()
	switch {
	case busy:
		return fmt.Errorf("%w: segment %s", ErrBusy, id)
	case absent != nil:
		return nil
	case g == nil:
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	rng := g.KeyRange()
	r := &record{position: position{rng: rng}, absent: true, clear: []anchormesh.KeyRange{rng}}
	return s.becomeAbsent(map[anchormesh.SegmentID]*record{id: r}, []anchormesh.SegmentID{id})
}

// becomeAbsent writes the records and forgets the segments named in gone, in one
// transaction. commitMu is held.
func (s *Store) becomeAbsent(records map[anchormesh.SegmentID]*record, gone []anchormesh.SegmentID) error {
	err := s.update(func(tx bolt.Tx) error {
		for _, id := range gone {
			if records[id] == nil {
				if err := dropRecord(tx, id); err != nil {
					return err
				}
			}
		}
		for id, r := range records {
			if err := putRecord(tx, id, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	retired := make([]*Segment, 0, len(gone))
	for _, id := range gone {
		if g := s.segments[id]; g != nil {
			retired = append(retired, g)
		}
		delete(s.segments, id)
		s.listed = nil
		delete(s.absent, id)
	}
	for id, r := range records {
		s.absent[id] = r
	}
	s.mu.Unlock()
	for _, g := range retired {
		s.settle(g.retire())
	}
	return nil
}

// Pending is the bytes that are applied and not committed.
func (s *Store) Pending() int { return int(max(0, s.pending.Load())) }

// Wanted has a value when more than Options.CommitBytes wait for a commit, or an
// absorb does. Who cut a segment and wants the child soon calls its Commit.
func (s *Store) Wanted() <-chan struct{} { return s.wanted }

// charge counts what a batch added.
func (s *Store) charge(bytes int) {
	if s.pending.Add(int64(bytes)) >= int64(s.opts.CommitBytes) {
		s.want()
	}
}

// want asks for a commit.
func (s *Store) want() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// settle counts what is no longer pending.
func (s *Store) settle(bytes int) {
	s.mu.Lock()
	s.pending.Add(int64(-bytes))
	s.drained.Broadcast()
	s.mu.Unlock()
}

// awaitRoom blocks while the hard limit is reached. A failed store lets pass: its
// owner is about to crash, and must not hang on the way.
func (s *Store) awaitRoom() {
	if s.pending.Load() < int64(s.opts.MaxPendingBytes) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending.Load() >= int64(s.opts.MaxPendingBytes) && s.failed == nil {
		s.drained.Wait()
	}
}

// err is the failure that stopped the store, if one did.
func (s *Store) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// update is a transaction whose failure, whatever it is, stops the store: memory
// and disk may then differ. Reads go on, from the buffers and what was committed.
func (s *Store) update(fn func(tx bolt.Tx) error) error {
	if err := s.err(); err != nil {
		return err
	}
	err := s.backend.Update(fn)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.drained.Broadcast()
	return err
}

// SizeBytes is the backend's size and the part of it that holds data.
func (s *Store) SizeBytes() (total, inUse int64) { return s.backend.Size() }

// Defrag rewrites the backend without its free space. Commits wait, apply and
// reads go on.
func (s *Store) Defrag() error { return s.backend.Defrag() }

// Close commits and closes the backend. Nobody may apply any more; views stay
// readable until they are closed.
func (s *Store) Close() error {
	err := s.Commit()
	if cerr := s.backend.Close(); err == nil {
		err = cerr
	}
	return err
}
