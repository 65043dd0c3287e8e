package mvcc

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// clearStep bounds the deletions of one transaction, so that commits of other
// segments get their turn.
const clearStep = 10000

// clear deletes what an absent segment left in the store: the revisions of the
// ranges in its record, found by reading the bucket since no index survives a
// crash, and its side tables. Each step is a transaction; a crash in between is
// picked up by the next install or removal.
func (s *Store) clear(id anchormesh.SegmentID) error {
	s.mu.Lock()
	r := s.absent[id]
	s.mu.Unlock()
	if r == nil {
		return fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	ranges := r.clear
	waste := func(_, v []byte) bool {
		key, _, ok := parseKey(v)
		return ok && slices.ContainsFunc(ranges, func(r anchormesh.KeyRange) bool { return r.Contains(key) })
	}
	if err := s.clearBucket(bucketRevisions, nil, waste); err != nil {
		return err
	}
	prefix := id.AppendKey(nil)
	return s.clearBucket(bucketAux, prefix, func(k, _ []byte) bool { return true })
}

// clearBucket deletes the matching keys that begin with prefix.
func (s *Store) clearBucket(name string, prefix []byte, match func(k, v []byte) bool) error {
	from := prefix
	for {
		victims := s.victims(name, from, prefix, match)
		if len(victims) == 0 {
			return nil
		}
		err := s.update(func(tx bolt.Tx) error {
			b, err := tx.Bucket(name)
			if err != nil {
				return err
			}
			for _, k := range victims {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		from = victims[len(victims)-1]
	}
}

// victims copies up to clearStep matching keys. The snapshot is released before
// anything is deleted: a transaction may have to wait for it.
func (s *Store) victims(name string, from, prefix []byte, match func(k, v []byte) bool) (out [][]byte) {
	snap := s.backend.Snapshot()
	defer snap.Release()
	c := snap.Bucket(name).Cursor()
	for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix) && len(out) < clearStep; k, v = c.Next() {
		if match(k, v) {
			out = append(out, bytes.Clone(k))
		}
	}
	return out
}
