package mvcc

import (
	"bytes"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// frozen is what one segment hands to a commit: its writes up to a batch's end, the
// position they reach, and how it was cut and what it absorbed since the last one.
type frozen struct {
	seg    *Segment
	sealed []*sealed
	aux    auxTable
	pos    position
	bytes  int // of aux
	kin    kin
}

// commit is one transaction of the backend in the making.
type commit struct {
	work     []*frozen
	sealed   []*sealed
	seen     map[*sealed]bool
	absorbed []anchormesh.SegmentID
}

// take freezes a segment. What was cut off it belongs into the same transaction,
// even if the list of segments was made before the cut.
func (c *commit) take(g *Segment) {
	f := g.freeze()
	if f == nil {
		return
	}
	c.work = append(c.work, f)
	for _, t := range f.sealed { // after a cut, two segments hold the same
		if !c.seen[t] {
			c.seen[t] = true
			c.sealed = append(c.sealed, t)
		}
	}
	c.absorbed = append(c.absorbed, f.kin.absorbed...)
	for _, child := range f.kin.born {
		c.take(child)
	}
}

// Commit writes everything applied so far, of every segment, with the applied
// indexes, in one backend transaction. Apply and reads go on meanwhile: each
// segment is locked for two moments only, to freeze its buffer and to drop it. An
// error is final: the owner must crash and recover from its log.
func (s *Store) Commit() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	return s.commit()
}

// Commit writes what was applied of this segment, of those cut off it since the last
// commit and of those it absorbed, like Store.Commit, and leaves the others for later:
// whoever waits for a cut does not wait for what all of the store was written.
func (g *Segment) Commit() error {
	g.store.commitMu.Lock()
	defer g.store.commitMu.Unlock()
	if g.durable.Load() == nil {
		return g.store.commit() // only its parent's record can make room for its own
	}
	return g.store.commitOf([]*Segment{g})
}

func (s *Store) commit() error { return s.commitOf(s.live()) }

func (s *Store) commitOf(segments []*Segment) error {
	if err := s.err(); err != nil {
		return err // the frozen buffers of the commit that failed must not be replaced
	}
	c := commit{seen: make(map[*sealed]bool)}
	for _, g := range segments {
		c.take(g)
	}
	if len(c.work) == 0 {
		return nil
	}
	failpoint.Hit("store/before-commit")
	if err := s.update(c.write); err != nil {
		return err // sealed buffers stay: reads need them
	}
	failpoint.Hit("store/after-commit")
	bytes := 0
	for _, t := range c.sealed {
		t.stored.Store(true)
		bytes += t.bytes
	}
	s.drops.Add(1)
	for _, f := range c.work {
		bytes += f.bytes
		f.seg.thaw(f.pos)
	}
	for _, g := range s.live() { // those cut off meanwhile hold the buffers, too
		g.drop()
	}
	s.settle(bytes)
	return nil
}

func (c *commit) write(tx bolt.Tx) error {
	if len(c.sealed) > 0 {
		revs, err := tx.Appending(bucketRevisions)
		if err != nil {
			return err
		}
		for _, t := range c.sealed {
			if err := t.write(revs); err != nil {
				return err
			}
		}
	}
	for _, f := range c.work {
		if len(f.aux) > 0 {
			if err := f.writeAux(tx); err != nil {
				return err
			}
		}
		if err := putRecord(tx, f.seg.id, &record{position: f.pos}); err != nil {
			return err
		}
	}
	for _, id := range c.absorbed {
		if err := dropSegment(tx, id); err != nil {
			return err
		}
	}
	return nil
}

func (t *sealed) write(revs bolt.Bucket) error {
	own := origins{t.origin}
	key := make([]byte, 0, revKeyMax)
	for i := range t.n {
		e := t.at(i)
		raw := e.raw
		if e.tomb {
			_, end, _ := parseKey(raw)
			raw = raw[:end]
		}
		key = own.appendRevKey(key[:0], revisionOf(e), e.tomb)
		if err := revs.Put(key, raw); err != nil {
			return err
		}
	}
	return nil
}

func (f *frozen) writeAux(tx bolt.Tx) error {
	b, err := tx.Bucket(bucketAux)
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(f.aux)) {
		if v := f.aux[k]; v == nil {
			err = b.Delete([]byte(k))
		} else {
			err = b.Put([]byte(k), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func putRecord(tx bolt.Tx, id anchormesh.SegmentID, r *record) error {
	b, err := tx.Bucket(bucketSegments)
	if err != nil {
		return err
	}
	return b.Put(id.AppendKey(nil), r.encode())
}

func dropRecord(tx bolt.Tx, id anchormesh.SegmentID) error {
	b, err := tx.Bucket(bucketSegments)
	if err != nil {
		return err
	}
	return b.Delete(id.AppendKey(nil))
}

// dropSegment removes the record and the side tables of an absorbed segment.
func dropSegment(tx bolt.Tx, id anchormesh.SegmentID) error {
	if err := dropRecord(tx, id); err != nil {
		return err
	}
	b, err := tx.Bucket(bucketAux)
	if err != nil {
		return err
	}
	var rows [][]byte
	prefix := id.AppendKey(nil)
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		rows = append(rows, bytes.Clone(k))
	}
	for _, k := range rows {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
