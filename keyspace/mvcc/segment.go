package mvcc

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// Segment is the multi-version state of one segment. One goroutine applies, any
// number read.
//
// Where a revision's bytes are: in active if the segment applied it since the last
// commit froze its writes; in one of sealed if a commit is writing it, or a cut or
// absorb came in between; else in the backend.
type Segment struct {
	id    anchormesh.SegmentID
	own   int64 // the store's number of id
	store *Store

	published atomic.Pointer[position] // as of the last ended batch
	durable   atomic.Pointer[position] // as of the last commit, nil before the first; written under commitMu

	// mu guards what follows. A batch holds it from Begin to End; readers for one
	// bounded walk over the index at a time.
	mu        sync.RWMutex
	index     *keyindex.Index
	head      position
	hold      int64 // see Hold; zero: none
	active    *buffer
	sealed    []*sealed // never changed in place: views keep it
	aux       pendingAux
	pins      pins
	gone      bool
	dirty     bool
	scrub     scrubState
	kin       kin
	publisher Publisher
	synced    chan struct{} // closed when durable is first set; nil if nobody waits for that
}

// isSynced is what all segments give to who asks once they are on disk.
var isSynced = closed()

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// newSegment is a segment that no commit has written yet.
func newSegment(s *Store, id anchormesh.SegmentID, pos position, index *keyindex.Index) *Segment {
	g := &Segment{id: id, own: s.origins.number(id), store: s, index: index, head: pos, active: &buffer{}}
	g.pins.current = new(pin)
	g.published.Store(&pos)
	return g
}

// storedSegment is a segment as the backend has it.
func storedSegment(s *Store, id anchormesh.SegmentID, pos position, index *keyindex.Index) *Segment {
	g := newSegment(s, id, pos, index)
	g.sync(pos)
	return g
}

// sync says that the backend holds the segment at pos. The first time the lock is held, or
// nobody else has the segment yet.
func (g *Segment) sync(pos position) {
	if g.durable.Swap(&pos) == nil && g.synced != nil {
		close(g.synced)
		g.synced = nil
	}
}

// ID is the segment's name.
func (g *Segment) ID() anchormesh.SegmentID { return g.id }

// KeyRange is the range of keys that the segment holds as of the last ended batch.
func (g *Segment) KeyRange() anchormesh.KeyRange { return g.published.Load().rng }

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
// this index or later, so the log before it may go. It is zero until Synced.
func (g *Segment) Durable() uint64 {
	if p := g.durable.Load(); p != nil {
		return p.Applied
	}
	return 0
}

// Synced is closed once a commit holds the segment. That is so from the beginning
// but for one that was cut off another: until then a crash leaves nothing of it but
// its parent's log, so nothing that depends on it may be written elsewhere.
func (g *Segment) Synced() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.durable.Load() != nil:
		return isSynced
	case g.synced == nil:
		g.synced = make(chan struct{})
	}
	return g.synced
}

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
	g.seal()
	f := &frozen{seg: g, sealed: waiting(g.sealed), aux: g.aux.active, pos: g.head, bytes: g.aux.bytes, kin: g.kin}
	g.aux = pendingAux{frozen: f.aux}
	g.kin.born, g.kin.absorbed = nil, nil
	g.dirty = false
	return f
}

// Hold keeps views that do not name their revision at or below rev: Batch.Hold for a
// segment that was just opened, whose owner knows from its side tables what is still
// to be committed.
func (g *Segment) Hold(rev int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = rev
}

// shown is the newest revision that is complete. The lock is held.
func (g *Segment) shown() int64 {
	if g.hold > 0 {
		return min(g.head.current, g.hold)
	}
	return g.head.current
}

// seal closes the active buffer, and those that commits went to. The lock is held.
func (g *Segment) seal() {
	for _, t := range g.sealed {
		if t.growing { // of those that are not, another segment may hold the same
			t.growing = false
		}
	}
	if g.active.n == 0 {
		return
	}
	t := &sealed{tail: g.active.tail, origin: g.id, number: g.own, bytes: g.active.bytes}
	g.sealed = append(slices.Clip(g.sealed), t)
	g.active = &buffer{}
}

// thaw drops the frozen writes: the backend has them now.
func (g *Segment) thaw(pos position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// A scrub that finished since the batch wrote its progress to durable and head;
	// commitMu keeps the two apart, so pos has it too.
	g.aux.frozen = nil
	g.sealed = waiting(g.sealed)
	g.sync(pos)
}

// drop lets go of what another segment's part of a commit wrote.
func (g *Segment) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sealed = waiting(g.sealed)
}

// retire ends the segment's life in this store and returns the pending bytes it
// gives up.
func (g *Segment) retire() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = true
	bytes := g.active.bytes + g.aux.bytes
	for _, t := range waiting(g.sealed) {
		bytes += t.bytes
	}
	return bytes
}

// snapshot takes a backend snapshot that together with the buffers, as they are
// under the lock which lock takes, holds every revision of the index. The snapshot
// is taken before the lock, because taking it can wait for a commit that waits for
// readers; it is stale, and taken again, if a commit dropped a buffer in between.
func (g *Segment) snapshot(l sync.Locker) bolt.Snapshot {
	for {
		drops := g.store.drops.Load()
		snap := g.store.backend.Snapshot()
		l.Lock()
		if g.store.drops.Load() == drops {
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
	until int64 // the compaction that ended this pin's time, or pinOpen
}

// pinOpen is the end of a pin that takes no more views and has seen no compaction.
const pinOpen = math.MaxInt64

// turn starts a new count at a compaction to rev.
func (p *pins) turn(rev int64) {
	for i := range p.old {
		if p.old[i].until == pinOpen {
			p.old[i].until = rev
		}
	}
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

// open reports whether any view is open.
func (p *pins) open() bool {
	return p.current.views.Load() > 0 || slices.ContainsFunc(p.old, func(o pin0) bool { return o.views.Load() > 0 })
}

// rest closes the current pin, if it has views, without a compaction, and forgets
// those whose views are closed.
func (p *pins) rest() {
	p.old = slices.DeleteFunc(p.old, func(o pin0) bool { return o.views.Load() == 0 })
	if p.current.views.Load() > 0 {
		p.old = append(p.old, pin0{p.current, pinOpen})
		p.current = new(pin)
	}
}

// shared is what a segment cut off this one begins with: the views that are open
// now read its index, too.
func (p *pins) shared() pins {
	p.rest()
	return pins{current: new(pin), old: slices.Clone(p.old)}
}

// join adds the views of an absorbed segment, whose pins are used up.
func (p *pins) join(o *pins) {
	p.rest()
	o.rest()
	for _, theirs := range o.old {
		if i := slices.IndexFunc(p.old, func(ours pin0) bool { return ours.pin == theirs.pin }); i < 0 {
			p.old = append(p.old, theirs)
		} else {
			p.old[i].until = min(p.old[i].until, theirs.until)
		}
	}
	slices.SortStableFunc(p.old, func(a, b pin0) int { return cmp.Compare(a.until, b.until) })
}
