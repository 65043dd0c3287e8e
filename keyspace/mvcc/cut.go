package mvcc

import (
	"bytes"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// kin is what cuts and absorbs left behind in a segment.
type kin struct {
	born     []*Segment             // cut off since the last freeze
	absorbed []anchormesh.SegmentID // absorbed since the last freeze
	moved    []moved                // for views from before
}

// moved says that a part of a segment's keys went to another segment of the store.
type moved struct {
	rng anchormesh.KeyRange
	to  *Segment
}

// shape is what a batch does to the ranges of segments.
type shape struct {
	born     []*Child
	absorbed []*Segment
}

func (s *shape) changed() bool { return len(s.born)+len(s.absorbed) > 0 }

// Child is a segment that a batch cuts off. Readers and the store see it from the
// batch's End on.
type Child struct{ seg *Segment }

// Segment is the child. Nothing may be applied to it before the batch's End.
func (c *Child) Segment() *Segment { return c.seg }

// PutAux sets a key of a side table of the child, which begins without any.
func (c *Child) PutAux(table string, key, val []byte) {
	k := append(auxPrefix(c.seg.id, table), key...)
	c.seg.aux.set(string(k), append([]byte{}, val...))
}

// Cut divides the segment: it keeps its keys below at, and those from at on are from
// now on a segment of their own in the same store, at the same current and compacted
// revision and with their whole history. meta is where the child's log begins, and
// its state. at must lie inside the range, behind its start, and id be new.
//
// No data moves, and it takes microseconds however many keys there are: the index is
// cut along one path, and writes that no commit has taken yet stay in one buffer that
// both read. The next commit writes both records in one transaction; until then
// Child.Segment is not Synced, and a crash leaves the parent as it was before this
// entry, which cuts again when it is replayed. Views and exports from before go on.
func (b *Batch) Cut(id anchormesh.SegmentID, at []byte, meta Meta) *Child {
	b.idle()
	g := b.g
	rng := g.head.rng
	invariant.Always(id != 0 && id != g.id && rng.Contains(at) && bytes.Compare(at, rng.Start) > 0,
		"mvcc: segment %s %s cut at %q for segment %s", g.id, rng, at, id)
	at = bytes.Clone(at)
	b.before -= g.active.bytes
	g.seal()
	pos := g.head
	pos.Meta = meta
	pos.rng = anchormesh.KeyRange{Start: at, End: rng.End}
	c := newSegment(g.store, id, pos, g.index.Cut(at))
	c.sealed = waiting(g.sealed)
	c.dirty = true
	c.aux.bytes = entryOverhead + len(meta.State)
	c.scrub = g.scrub
	if g.pins.open() {
		g.kin.moved = append(slices.Clip(g.kin.moved), moved{pos.rng, c})
	} else {
		g.kin.moved = nil
	}
	c.pins = g.pins.shared()
	g.head.rng.End = at
	g.kin.born = append(g.kin.born, c)
	child := &Child{c}
	b.shape.born = append(b.shape.born, child)
	return child
}

// Absorb takes in the segment to the right of this one, which must be of the same
// store, end where its log ends, and have no batch open: range, history and buffers.
// The current revision becomes the largest of both and of current, the compacted one
// the larger. The right's side tables go; what of them is needed, the caller has
// written to this segment's. No transaction may follow in this batch.
//
// The next commit removes the right's record in the transaction that holds this
// entry. Until Durable has reached it, a crash brings both back and the entry is
// replayed, for which right must still be where it is now: its log may not be dropped
// before. Views of both from before go on; new reads of right are ErrGone.
func (b *Batch) Absorb(right *Segment, current int64) {
	b.idle()
	g := b.g
	right.mu.Lock()
	defer right.mu.Unlock()
	invariant.Always(right.store == g.store && !right.gone && len(g.head.rng.End) > 0 && bytes.Equal(g.head.rng.End, right.head.rng.Start),
		"mvcc: segment %s %s absorbs %s %s (gone %v)", g.id, g.head.rng, right.id, right.head.rng, right.gone)
	right.seal()
	g.sealed = united(waiting(g.sealed), waiting(right.sealed))
	g.aux.bytes += right.aux.bytes + entryOverhead // until the commit that takes the rows away
	b.before += right.aux.bytes
	g.joinPins(right)
	g.joinKin(right)
	g.index.Join(right.index)
	right.index = keyindex.New()
	right.gone = true
	g.head.rng.End = right.head.rng.End
	g.head.current = max(g.head.current, right.head.current, current)
	g.head.compacted = max(g.head.compacted, right.head.compacted)
	g.head.scrubbed = min(g.head.scrubbed, right.head.scrubbed)
	g.scrub = scrubState{}
	b.shape.absorbed = append(b.shape.absorbed, right)
}

// joinPins ends the views' times of both at the common compaction, where it is new
// to them.
func (g *Segment) joinPins(right *Segment) {
	if l, r := g.head.compacted, right.head.compacted; l < r {
		g.pins.turn(r)
	} else if r < l {
		right.pins.turn(l)
	}
	g.pins.join(&right.pins)
}

// joinKin leads views to where the keys are now. Keys that come back to g after it
// had been cut are found in it again.
func (g *Segment) joinKin(right *Segment) {
	rng := right.head.rng
	var kept []moved
	if g.pins.open() {
		for _, m := range g.kin.moved {
			for _, rest := range without(m.rng, rng) {
				kept = append(kept, moved{rest, m.to})
			}
		}
		right.kin.moved = append(slices.Clip(right.kin.moved), moved{rng, g})
	}
	g.kin.moved = kept
	g.kin.born = slices.DeleteFunc(slices.Concat(g.kin.born, right.kin.born), func(c *Segment) bool { return c == right })
	g.kin.absorbed = append(append(g.kin.absorbed, right.kin.absorbed...), right.id)
}

// holder returns the segment whose index has the key of this view's range now,
// locked for reading.
func (v *View) holder(key []byte) *Segment {
	g := v.g
	for {
		g.mu.RLock()
		i := slices.IndexFunc(g.kin.moved, func(m moved) bool { return m.rng.Contains(key) })
		if i < 0 {
			return g
		}
		to := g.kin.moved[i].to
		g.mu.RUnlock()
		g = to
	}
}

// reshape shows what a batch of g did: its new position, the segments cut off and
// those absorbed, all at once. It returns what the newborn will write. g's lock is
// held; nobody takes one of these with mu held.
func (s *Store) reshape(g *Segment, pos *position, done shape) (bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.published.Store(pos)
	for _, c := range done.born {
		id := c.seg.id
		invariant.Always(s.segments[id] == nil && s.absent[id] == nil, "mvcc: segment %s is cut off %s and exists", id, g.id)
		s.segments[id] = c.seg
		s.listed = nil
		bytes += c.seg.aux.bytes
	}
	for _, right := range done.absorbed {
		delete(s.segments, right.id)
		s.listed = nil
	}
	return bytes
}

// settleShape commits if a cut or an absorb waits for it: what is written outside of
// a commit must not come between the records of two ranges. commitMu is held.
func (s *Store) settleShape() error {
	for _, g := range s.live() {
		if d := g.durable.Load(); d == nil || !d.rng.Equal(g.KeyRange()) {
			return s.commit()
		}
	}
	return nil
}

// without is what of r lies outside of o: nothing, one range or two.
func without(r, o anchormesh.KeyRange) (out []anchormesh.KeyRange) {
	if !r.Overlaps(o) {
		return []anchormesh.KeyRange{r}
	}
	if bytes.Compare(r.Start, o.Start) < 0 {
		out = append(out, anchormesh.KeyRange{Start: r.Start, End: o.Start})
	}
	if len(o.End) > 0 && (len(r.End) == 0 || bytes.Compare(o.End, r.End) < 0) {
		out = append(out, anchormesh.KeyRange{Start: o.End, End: r.End})
	}
	return out
}
