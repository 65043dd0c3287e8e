package mvcc

import (
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// Segment is the multi-version state of one segment. One goroutine applies, any
// number read.
//
// Where a revision's bytes are: the backend holds all up to the last commit, frozen
// what the running commit writes, active what came after. The three follow each
// other in the order of main revisions, because a commit freezes between batches.
type Segment struct {
	id    anchormesh.SegmentID
	rng   anchormesh.KeyRange
	store *Store

	published atomic.Pointer[position] // as of the last ended batch
	durable   atomic.Pointer[position] // as of the last commit; written under commitMu
	drops     atomic.Uint64            // counts frozen buffers dropped; written under mu

	// mu guards what follows. A batch holds it from Begin to End; readers for one
	// bounded walk over the index at a time.
	mu        sync.RWMutex
	index     *keyindex.Index
	origins   origins
	head      position
	active    *buffer
	frozen    tail
	aux       pendingAux
	pins      pins
	gone      bool
	dirty     bool
	scrub     scrubState
	publisher Publisher
	batch     Batch
}

func newSegment(s *Store, id anchormesh.SegmentID, rng anchormesh.KeyRange, pos position, index *keyindex.Index, o origins) *Segment {
	g := &Segment{id: id, rng: rng, store: s, index: index, origins: o, head: pos, active: &buffer{}}
	if len(o) == 0 {
		g.origins = origins{id}
	}
	g.pins.current = new(pin)
	g.aux.active = auxTable{}
	published, durable := pos, pos
	g.published.Store(&published)
	g.durable.Store(&durable)
	return g
}

// ID is the segment's name.
func (g *Segment) ID() anchormesh.SegmentID { return g.id }

// KeyRange is the range of keys that the segment holds.
func (g *Segment) KeyRange() anchormesh.KeyRange { return g.rng }

// SetPublisher says who is told of writes from the next batch on.
func (g *Segment) SetPublisher(p Publisher) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.publisher = p
}

// Applied is the log position of the last ended batch.
func (g *Segment) Applied() (index, term uint64) {
	p := g.published.Load()
	return p.Applied, p.Term
}

// Durable is the applied index of the last commit: after a crash the segment is at
// this index or later, so the log before it may go.
func (g *Segment) Durable() uint64 { return g.durable.Load().Applied }

// Meta is the state of the last ended batch. Do not modify its State.
func (g *Segment) Meta() Meta { return g.published.Load().Meta }

// Revision is the newest revision and the compacted one, which is -1 before the
// first compaction, as in etcd.
func (g *Segment) Revision() (current, compacted int64) {
	p := g.published.Load()
	return p.current, p.compacted
}

// freeze hands the pending writes to a commit, or nil if there is nothing new.
func (g *Segment) freeze() *frozen {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.dirty || g.gone {
		return nil
	}
	f := &frozen{seg: g, tail: g.active.tail, aux: g.aux.active, pos: g.head, bytes: g.active.bytes + g.aux.bytes}
	g.frozen = g.active.tail
	g.active = &buffer{}
	g.aux = pendingAux{active: auxTable{}, frozen: f.aux}
	g.dirty = false
	return f
}

// thaw drops the frozen writes: the backend has them now.
func (g *Segment) thaw(pos position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// A scrub that finished since the batch wrote its progress to durable and head;
	// commitMu keeps the two apart, so pos has it too.
	g.frozen, g.aux.frozen = tail{}, nil
	g.durable.Store(&pos)
	g.drops.Add(1)
}

// retire ends the segment's life in this store and returns the pending bytes it
// gives up.
func (g *Segment) retire() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = true
	return g.active.bytes + g.aux.bytes
}

// snapshot takes a backend snapshot that together with the buffers, as they are
// under the lock which lock takes, holds every revision of the index. The snapshot
// is taken before the lock, because taking it can wait for a commit that waits for
// readers; it is stale, and taken again, if a commit dropped a buffer in between.
func (g *Segment) snapshot(l sync.Locker) bolt.Snapshot {
	for {
		drops := g.drops.Load()
		snap := g.store.backend.Snapshot()
		l.Lock()
		if g.drops.Load() == drops {
			return snap
		}
		l.Unlock()
		snap.Release()
	}
}

// pins count the open views by the compaction they were opened under. Index
// entries that a compaction drops must stay until the views from before it close.
type pins struct {
	current *pin
	old     []pin0
}

type pin struct{ views atomic.Int64 }

type pin0 struct {
	*pin
	until int64 // the compaction that ended this pin's time
}

// turn starts a new count at a compaction to rev.
func (p *pins) turn(rev int64) {
	if p.current.views.Load() == 0 {
		return // the lock is held: nobody can join now
	}
	p.old = append(p.old, pin0{p.current, rev})
	p.current = new(pin)
}

// free reports whether no view from before the compaction to rev is open.
func (p *pins) free(rev int64) bool {
	for len(p.old) > 0 && p.old[0].views.Load() == 0 {
		p.old = p.old[1:]
	}
	return len(p.old) == 0 || p.old[0].until > rev
}
