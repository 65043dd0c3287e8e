package mvcc

import (
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// frozen is what one segment hands to a commit: its writes up to a batch's end and
// the position they reach.
type frozen struct {
	seg *Segment
	tail
	aux   auxTable
	pos   position
	bytes int
}

// Commit writes everything applied so far, of every segment, with the applied
// indexes, in one backend transaction. Apply and reads go on meanwhile: each
// segment is locked for two moments only, to freeze its buffer and to drop it. An
// error is final: the owner must crash and recover from its log.
func (s *Store) Commit() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.err(); err != nil {
		return err // the frozen buffers of the commit that failed must not be replaced
	}
	var work []*frozen
	for _, g := range s.live() {
		if f := g.freeze(); f != nil {
			work = append(work, f)
		}
	}
	if len(work) == 0 {
		return nil
	}
	err := s.update(func(tx bolt.Tx) error {
		for _, f := range work {
			if err := f.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err // frozen buffers stay: reads need them
	}
	bytes := 0
	for _, f := range work {
		bytes += f.bytes
		f.seg.thaw(f.pos)
	}
	s.settle(bytes)
	return nil
}

func (f *frozen) write(tx bolt.Tx) error {
	if f.n > 0 {
		revs, err := tx.Appending(bucketRevisions)
		if err != nil {
			return err
		}
		if err := f.writeRevisions(revs); err != nil {
			return err
		}
	}
	if len(f.aux) > 0 {
		if err := f.writeAux(tx); err != nil {
			return err
		}
	}
	return putRecord(tx, f.seg.id, &record{position: f.pos, rng: f.seg.rng})
}

func (f *frozen) writeRevisions(revs bolt.Bucket) error {
	own := origins{f.seg.id}
	key := make([]byte, 0, revKeyMax)
	for i := range f.n {
		e := f.at(i)
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
