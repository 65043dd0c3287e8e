package mvcc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// restore reads the records and then the revisions bucket once, from end to end.
func (s *Store) restore() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	snap := s.backend.Snapshot()
	defer snap.Release()
	records, err := readRecords(snap)
	if err != nil {
		return err
	}
	l := loader{}
	for _, id := range sortedRecords(records) {
		r := records[id]
		if r.absent {
			s.absent[id] = r
			l.waste = append(l.waste, r.clear...)
			continue
		}
		l.parts = append(l.parts, &part{id: id, record: r, index: keyindex.New(), numbering: newNumbering(&s.origins, id)})
	}
	if err := l.prepare(); err != nil {
		return err
	}
	if err := l.load(snap.Bucket(bucketRevisions).Cursor()); err != nil {
		return err
	}
	for _, p := range l.parts {
		s.segments[p.id] = storedSegment(s, p.id, p.position, p.index)
		s.listed = nil
	}
	return nil
}

// checkFormat stamps a new store and refuses one of another version.
func (s *Store) checkFormat() error {
	snap := s.backend.Snapshot()
	version := slices.Clone(snap.Bucket(bucketFormat).Get([]byte(keyFormat)))
	k, _ := snap.Bucket(bucketRevisions).Cursor().Seek(nil)
	used := k != nil
	snap.Release()
	switch {
	case version == nil && !used:
		return s.update(func(tx bolt.Tx) error {
			b, err := tx.Bucket(bucketFormat)
			if err != nil {
				return err
			}
			return b.Put([]byte(keyFormat), []byte{formatVersion})
		})
	case version == nil:
		return fmt.Errorf("%w: there is data and no version", ErrFormat)
	case len(version) != 1 || version[0] != formatVersion:
		return fmt.Errorf("%w: version %d, this program reads %d", ErrFormat, version, formatVersion)
	}
	return nil
}

func readRecords(snap bolt.Snapshot) (map[anchormesh.SegmentID]*record, error) {
	out := make(map[anchormesh.SegmentID]*record)
	c := snap.Bucket(bucketSegments).Cursor()
	for k, v := c.Seek(nil); k != nil; k, v = c.Next() {
		if len(k) != 8 {
			return nil, fmt.Errorf("%w: segment name %x", ErrCorrupt, k)
		}
		r, err := decodeRecord(v)
		if err != nil {
			return nil, err
		}
		out[anchormesh.SegmentID(binary.BigEndian.Uint64(k))] = r
	}
	return out, nil
}

func sortedRecords(m map[anchormesh.SegmentID]*record) []anchormesh.SegmentID {
	ids := make([]anchormesh.SegmentID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// part is a segment being loaded.
type part struct {
	*record
	id        anchormesh.SegmentID
	index     *keyindex.Index
	numbering numbering
}

// loader gives every revision to the segment whose range holds its key.
type loader struct {
	parts []*part // sorted by the start of their ranges, which do not overlap
	waste []anchormesh.KeyRange
	last  *part
}

func (l *loader) prepare() error {
	slices.SortFunc(l.parts, func(a, b *part) int { return bytes.Compare(a.rng.Start, b.rng.Start) })
	for i := 1; i < len(l.parts); i++ {
		if a, b := l.parts[i-1], l.parts[i]; a.rng.Overlaps(b.rng) {
			return fmt.Errorf("%w: segments %s %s and %s %s overlap", ErrCorrupt, a.id, a.rng, b.id, b.rng)
		}
	}
	return nil
}

// owner is the present segment of a key, or nil.
func (l *loader) owner(key []byte) *part {
	if l.last != nil && l.last.rng.Contains(key) {
		return l.last
	}
	i, found := slices.BinarySearchFunc(l.parts, key, func(p *part, key []byte) int { return bytes.Compare(p.rng.Start, key) })
	if !found {
		i--
	}
	if i < 0 || !l.parts[i].rng.Contains(key) {
		return nil
	}
	l.last = l.parts[i]
	return l.last
}

func (l *loader) load(c bolt.Cursor) error {
	for k, v := c.Seek(nil); k != nil; k, v = c.Next() {
		rk, kv, err := parseRevision(k, v)
		if err != nil {
			return err
		}
		p := l.owner(kv.Key)
		if p == nil {
			if slices.ContainsFunc(l.waste, func(r anchormesh.KeyRange) bool { return r.Contains(kv.Key) }) {
				continue
			}
			return fmt.Errorf("%w: revision %d holds key %q of no segment", ErrCorrupt, rk.main, kv.Key)
		}
		if rk.main > p.current {
			return fmt.Errorf("%w: revision %d above segment %s's current %d", ErrCorrupt, rk.main, p.id, p.current)
		}
		mod := keyindex.Revision{Main: rk.main, Sub: indexSub(p.numbering.of(rk.origin), rk.sub)}
		if !p.index.Restore(kv.Key, keyindex.Version{Mod: mod, Create: kv.Create, Number: kv.Version}) {
			return fmt.Errorf("%w: key %q has revision %d.%d twice", ErrCorrupt, kv.Key, rk.main, rk.sub)
		}
	}
	return nil
}

// parseRevision reads and checks a record of the revisions bucket.
func parseRevision(k, v []byte) (revKey, KV, error) {
	rk, ok := parseRevKey(k)
	if !ok {
		return rk, KV{}, fmt.Errorf("%w: revision key %x", ErrCorrupt, k)
	}
	kv, err := rk.parse(v)
	return rk, kv, err
}

// parse reads and checks the value stored under a key of the revisions bucket.
func (rk revKey) parse(v []byte) (KV, error) {
	kv, ok := parseKV(v)
	if !ok || rk.tomb != (kv.Version == 0) || !rk.tomb && (kv.Mod != rk.main || kv.Create > rk.main) {
		return kv, fmt.Errorf("%w: revision %d.%d holds %d bytes that do not belong there", ErrCorrupt, rk.main, rk.sub, len(v))
	}
	return kv, nil
}
