package mvcc

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

type Options struct {
	CommitBytes     int
	MaxPendingBytes int
}

type Store struct{}

func Open(backend bolt.Backend, opts Options) (*Store, error)     { panic("not yet") }
func (s *Store) Segment(id anchormesh.SegmentID) (*Segment, bool) { panic("not yet") }
func (s *Store) Segments() []anchormesh.SegmentID                 { panic("not yet") }
func (s *Store) Absent() []anchormesh.SegmentID                   { panic("not yet") }
func (s *Store) Create(id anchormesh.SegmentID, rng anchormesh.KeyRange, meta Meta) (*Segment, error) {
	panic("not yet")
}
func (s *Store) Remove(id anchormesh.SegmentID) error { panic("not yet") }
func (s *Store) Commit() error                        { panic("not yet") }

// Wanted gets a value when pending bytes pass Options.CommitBytes.
func (s *Store) Wanted() <-chan struct{}                 { panic("not yet") }
func (s *Store) Pending() int                            { panic("not yet") }
func (s *Store) Scrub(budget int) (more bool, err error) { panic("not yet") }
func (s *Store) Install(id anchormesh.SegmentID, rng anchormesh.KeyRange) (*Installer, error) {
	panic("not yet")
}
func (s *Store) SizeBytes() (total, inUse int64) { panic("not yet") }
func (s *Store) Defrag() error                   { panic("not yet") }
func (s *Store) Close() error                    { panic("not yet") }

type Segment struct{}

func (g *Segment) ID() anchormesh.SegmentID                             { panic("not yet") }
func (g *Segment) KeyRange() anchormesh.KeyRange                        { panic("not yet") }
func (g *Segment) SetPublisher(p Publisher)                             { panic("not yet") }
func (g *Segment) Applied() (index, term uint64)                        { panic("not yet") }
func (g *Segment) Durable() uint64                                      { panic("not yet") }
func (g *Segment) Meta() Meta                                           { panic("not yet") }
func (g *Segment) Revision() (current, compacted int64)                 { panic("not yet") }
func (g *Segment) Begin(index, term uint64) *Batch                      { panic("not yet") }
func (g *Segment) ForEachAux(bucket string, fn func(key, value []byte)) { panic("not yet") }
func (g *Segment) Read() *View                                          { panic("not yet") }
func (g *Segment) History(from, to int64, rng anchormesh.KeyRange, maxBytes int) (events []Event, next int64, err error) {
	panic("not yet")
}
func (g *Segment) PrevKV(key []byte, main int64) (KV, bool) { panic("not yet") }
func (g *Segment) Hash(atRev int64) (hash uint32, compactRev, rev int64, err error) {
	panic("not yet")
}
func (g *Segment) Export() (*Export, error) { panic("not yet") }

type Batch struct{}

func (b *Batch) SetState(state []byte)                 { panic("not yet") }
func (b *Batch) Txn() *Txn                             { panic("not yet") }
func (b *Batch) TxnAt(rev int64) (*Txn, error)         { panic("not yet") }
func (b *Batch) Compact(rev int64) error               { panic("not yet") }
func (b *Batch) PutAux(bucket string, key, val []byte) { panic("not yet") }
func (b *Batch) DeleteAux(bucket string, key []byte)   { panic("not yet") }
func (b *Batch) End()                                  { panic("not yet") }

type Txn struct{}

func (t *Txn) Rev() int64 { panic("not yet") }
func (t *Txn) Range(key, end []byte, atRev, limit int64, countOnly bool) (Result, error) {
	panic("not yet")
}
func (t *Txn) Get(key []byte) (KV, bool)                             { panic("not yet") }
func (t *Txn) Stat(key []byte) (create, mod, version int64, ok bool) { panic("not yet") }
func (t *Txn) Put(key, value []byte, lease int64) Revision           { panic("not yet") }
func (t *Txn) Delete(key []byte) bool                                { panic("not yet") }
func (t *Txn) DeleteRange(key, end []byte) int64                     { panic("not yet") }
func (t *Txn) Changed() bool                                         { panic("not yet") }
func (t *Txn) End() (rev int64)                                      { panic("not yet") }

type View struct{}

func (v *View) Rev() int64       { panic("not yet") }
func (v *View) Compacted() int64 { panic("not yet") }
func (v *View) Range(key, end []byte, atRev, limit int64, countOnly bool) (Result, error) {
	panic("not yet")
}
func (v *View) Close() { panic("not yet") }

type Export struct{}

func (e *Export) Meta() Meta            { panic("not yet") }
func (e *Export) Next() ([]byte, error) { panic("not yet") }
func (e *Export) Close()                { panic("not yet") }

type Installer struct{}

func (i *Installer) Add(chunk []byte) error             { panic("not yet") }
func (i *Installer) Finish(meta Meta) (*Segment, error) { panic("not yet") }
func (i *Installer) Abort()                             { panic("not yet") }
