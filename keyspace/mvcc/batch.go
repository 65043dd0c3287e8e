package mvcc

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// Batch is the application of one log entry. It is for one goroutine, and ends
// with End; there is no way back from it.
type Batch struct {
	g      *Segment
	snap   bolt.Snapshot
	reader bolt.Reader
	txn    Txn
	before int // pending bytes when it began
	events []Event
	late   bool // a commit came below what was applied before it
	shape  shape
}

// batches are not the segments' own: of thousands, few apply at a time.
var batches = sync.Pool{New: func() any { return new(Batch) }}

// Begin opens the batch of the log entry (index, term), which must be above the
// last applied one. Readers wait until End. It waits for a commit first if the
// store has Options.MaxPendingBytes pending. Applying to a segment that is gone
// from the store panics.
func (g *Segment) Begin(index, term uint64) *Batch {
	g.store.awaitRoom()
	snap := g.snapshot(&g.mu)
	if g.gone || index <= g.head.Applied {
		applied, gone := g.head.Applied, g.gone
		g.mu.Unlock()
		panic(fmt.Sprintf("mvcc: segment %s: entry %d applied after %d (gone %v)", g.id, index, applied, gone))
	}
	g.head.Applied, g.head.Term = index, term
	g.dirty = true
	b := batches.Get().(*Batch)
	*b = Batch{g: g, snap: snap, reader: snap.Bucket(bucketRevisions), before: g.active.bytes + g.aux.bytes}
	return b
}

// Index is that of the entry.
func (b *Batch) Index() uint64 { return b.g.head.Applied }

// SetState changes Meta.State with this entry. The store keeps state.
func (b *Batch) SetState(state []byte) {
	b.g.aux.bytes += len(state)
	b.g.head.State = state
}

// Txn begins a transaction at the next revision.
func (b *Batch) Txn() *Txn { return b.begin(b.g.head.current + 1) }

// TxnAt begins a transaction at a revision that was assigned elsewhere. It must be
// above the current one: ErrRevisionOrder.
func (b *Batch) TxnAt(rev int64) (*Txn, error) {
	if rev <= b.g.head.current {
		return nil, fmt.Errorf("%w: %d, current %d", ErrRevisionOrder, rev, b.g.head.current)
	}
	return b.begin(rev), nil
}

// CommitAt begins this segment's share of a transaction over several segments, at
// their common revision, which may lie at or below the current one. It only writes;
// Txn.Place says where in the revision. The caller keeps its keys from being written
// otherwise since Hold named a revision below rev, and calls this once for a revision.
func (b *Batch) CommitAt(rev int64) *Txn {
	t := b.begin(rev)
	if a := b.g.active; a.n > 0 && a.at(a.n-1).main >= rev {
		t.buf = &buffer{}
	}
	b.late = b.late || rev <= b.g.head.current
	return t
}

func (b *Batch) begin(rev int64) *Txn {
	b.idle()
	if len(b.shape.absorbed) > 0 {
		panic("mvcc: a transaction behind an absorb in its batch")
	}
	b.txn = Txn{b: b, g: b.g, buf: b.g.active, rev: rev, open: true}
	return &b.txn
}

// Hold keeps views that do not name their revision at or below rev from this batch on,
// until a call with another; zero is no limit. What CommitAt brings will be above it.
// It is not stored: see Segment.Hold.
func (b *Batch) Hold(rev int64) { b.g.hold = rev }

// Raise lifts the current revision to rev without a write; below it nothing happens.
func (b *Batch) Raise(rev int64) { b.g.head.current = max(b.g.head.current, rev) }

// Compact makes reads below rev fail from this entry on. What they alone could see
// is removed later, by Store.Scrub. The errors are etcd's: ErrCompacted at or below
// the compacted revision, ErrFutureRev above the current one.
func (b *Batch) Compact(rev int64) error {
	switch h := &b.g.head; {
	case rev <= h.compacted:
		return ErrCompacted
	case rev > h.current:
		return ErrFutureRev
	}
	b.g.head.compacted = rev
	b.g.pins.turn(rev)
	return nil
}

// idle panics if a transaction is open.
func (b *Batch) idle() {
	if b.txn.open {
		panic("mvcc: a transaction of this batch is still open")
	}
}

// End shows the batch to readers, then to the publisher.
func (b *Batch) End() {
	b.idle()
	g, snap, events, shape := b.g, b.snap, b.events, b.shape
	if b.late {
		slices.SortStableFunc(events, func(x, y Event) int {
			return cmp.Or(cmp.Compare(x.Main, y.Main), cmp.Compare(x.Sub, y.Sub))
		})
	}
	grown := g.active.bytes + g.aux.bytes - b.before
	pos := g.head
	publisher := g.publisher
	*b = Batch{}
	batches.Put(b)
	if shape.changed() {
		grown += g.store.reshape(g, &pos, shape)
	} else {
		g.published.Store(&pos)
	}
	g.mu.Unlock()
	snap.Release()
	g.store.charge(grown)
	if len(shape.absorbed) > 0 {
		g.store.want()
	}
	if publisher != nil && len(events) > 0 {
		publisher.Publish(events, pos.current)
	}
}
