package mvcc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// installBatchBytes is how much an install gathers for one transaction.
const installBatchBytes = 4 << 20

// Installer replaces a segment by a snapshot. It is for one goroutine and ends with
// Finish or Abort. From the call of Install until Finish returns, the segment is
// absent, also after a crash.
type Installer struct {
	store *Store
	part  *part

	header   *record
	writes   []write
	bytes    int
	lastKey  []byte
	count    uint64
	complete bool
	err      error
}

// write is a record on its way to the backend.
type write struct {
	bucket     string
	key, value []byte
}

// Install clears the range of segment id and what of it this store held under other
// names, and waits for chunks. Segments of other IDs that lie wholly in rng are
// retired, in the transaction that marks id absent: the caller has proof that they
// were absorbed. One that lies partly in rng is ErrOverlap. Another install into the
// range is ErrBusy.
func (s *Store) Install(id anchormesh.SegmentID, rng anchormesh.KeyRange) (*Installer, error) {
	if err := s.beginInstall(id, rng); err != nil {
		return nil, err
	}
	if err := s.clear(id); err != nil {
		s.endInstall(id)
		return nil, err
	}
	p := &part{id: id, index: keyindex.New(), numbering: newNumbering(&s.origins, id)}
	return &Installer{store: s, part: p}, nil
}

func (s *Store) beginInstall(id anchormesh.SegmentID, rng anchormesh.KeyRange) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if id == 0 || rng.Empty() {
		return fmt.Errorf("mvcc: cannot install segment %s of range %s", id, rng)
	}
	if err := s.settleShape(); err != nil {
		return err
	}
	r := &record{position: position{rng: rng}, absent: true, clear: []anchormesh.KeyRange{rng}}
	records := map[anchormesh.SegmentID]*record{id: r}
	gone, err := s.displaced(id, records)
	if err != nil {
		return err
	}
	if err := s.becomeAbsent(records, gone); err != nil {
		return err
	}
	s.mu.Lock()
	s.installing[id] = true
	s.mu.Unlock()
	return nil
}

// displaced lists the segments that an install of id removes, and adds what they
// leave behind to what its record clears. Those that are absent stay so, with nothing left
// to clear: who holds their logs tells by that from a loss.
func (s *Store) displaced(id anchormesh.SegmentID, records map[anchormesh.SegmentID]*record) (gone []anchormesh.SegmentID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := records[id]
	for other, g := range s.segments {
		switch rng := g.KeyRange(); {
		case other == id:
			r.clear = append(r.clear, rng)
		case !rng.Overlaps(r.rng):
			continue
		case !r.rng.Covers(rng):
			return nil, fmt.Errorf("%w: %s and segment %s %s", ErrOverlap, r.rng, other, rng)
		}
		gone = append(gone, other)
	}
	for other, a := range s.absent {
		touches := other == id
		for _, c := range a.clear {
			touches = touches || c.Overlaps(r.rng)
		}
		if !touches {
			continue
		}
		if s.installing[other] {
			return nil, fmt.Errorf("%w: by segment %s", ErrBusy, other)
		}
		r.clear = append(r.clear, a.clear...)
		if other != id {
			records[other] = &record{position: a.position, absent: true}
		}
	}
	return gone, nil
}

func (s *Store) endInstall(id anchormesh.SegmentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.installing, id)
}

// Add takes the next chunk of an Export, in order. It keeps the chunk. An error is
// ErrBadSnapshot or the backend's, and final for this install.
func (i *Installer) Add(chunk []byte) error {
	if i.err == nil {
		i.err = i.add(chunk)
	}
	return i.err
}

func (i *Installer) add(chunk []byte) error {
	if len(chunk) <= 4 || binary.LittleEndian.Uint32(chunk) != crc32.Checksum(chunk[4:], castagnoli) {
		return fmt.Errorf("%w: checksum of a chunk of %d bytes", ErrBadSnapshot, len(chunk))
	}
	d := decoder{rest: chunk[4:]}
	for len(d.rest) > 0 {
		kind, k, v := d.byte(), d.bytes(), d.bytes()
		if d.bad {
			return fmt.Errorf("%w: a record is cut off", ErrBadSnapshot)
		}
		if err := i.record(kind, k, v); err != nil {
			return err
		}
		i.count++
	}
	if i.bytes >= installBatchBytes {
		return i.flush(nil)
	}
	return nil
}

func (i *Installer) record(kind byte, k, v []byte) error {
	switch {
	case i.complete || (kind == recordHeader) != (i.header == nil):
		return fmt.Errorf("%w: records out of order", ErrBadSnapshot)
	case kind == recordHeader:
		return i.readHeader(k, v)
	case kind == recordRevision:
		return i.revision(k, v)
	case kind == recordAux:
		if len(k) < 10 || binary.BigEndian.Uint64(k) != uint64(i.part.id) {
			return fmt.Errorf("%w: side table of another segment", ErrBadSnapshot)
		}
		i.push(bucketAux, k, v)
		return nil
	case kind == recordEnd:
		if len(k) != 8 || binary.BigEndian.Uint64(k) != i.count {
			return fmt.Errorf("%w: %d records arrived", ErrBadSnapshot, i.count)
		}
		i.complete = true
		return nil
	}
	return fmt.Errorf("%w: record of kind %d", ErrBadSnapshot, kind)
}

func (i *Installer) readHeader(k, v []byte) error {
	r, err := decodeRecord(v)
	if err != nil || r.absent {
		return fmt.Errorf("%w: header", ErrBadSnapshot)
	}
	i.store.mu.Lock()
	want := i.store.absent[i.part.id].rng
	i.store.mu.Unlock()
	if !bytes.Equal(k, i.part.id.AppendKey(nil)) || !r.rng.Equal(want) {
		return fmt.Errorf("%w: it is of segment %x %s, not of %s %s", ErrBadSnapshot, k, r.rng, i.part.id, want)
	}
	i.header, i.part.record = r, r
	return nil
}

func (i *Installer) revision(k, v []byte) error {
	rk, kv, err := parseRevision(k, v)
	if err != nil || bytes.Compare(k, i.lastKey) <= 0 || rk.main > i.header.current || !i.header.rng.Contains(kv.Key) {
		return fmt.Errorf("%w: revision %x of key %q", ErrBadSnapshot, k, kv.Key)
	}
	i.lastKey = k
	mod := keyindex.Revision{Main: rk.main, Sub: indexSub(i.part.numbering.of(rk.origin), rk.sub)}
	if !i.part.index.Restore(kv.Key, keyindex.Version{Mod: mod, Create: kv.Create, Number: kv.Version}) {
		return fmt.Errorf("%w: key %q has revision %d.%d twice", ErrBadSnapshot, kv.Key, rk.main, rk.sub)
	}
	i.push(bucketRevisions, k, v)
	return nil
}

func (i *Installer) push(bucket string, k, v []byte) {
	i.writes = append(i.writes, write{bucket, k, v})
	i.bytes += len(k) + len(v)
}

// flush writes what was gathered and, if final is set, the record that makes the
// segment present, in one transaction.
func (i *Installer) flush(final *record) error {
	err := i.store.update(func(tx bolt.Tx) error {
		revs, err := tx.Appending(bucketRevisions)
		if err != nil {
			return err
		}
		aux, err := tx.Bucket(bucketAux)
		if err != nil {
			return err
		}
		for _, w := range i.writes {
			b := revs
			if w.bucket == bucketAux {
				b = aux
			}
			if err := b.Put(w.key, w.value); err != nil {
				return err
			}
		}
		if final == nil {
			return nil
		}
		return putRecord(tx, i.part.id, final)
	})
	i.writes, i.bytes = nil, 0
	return err
}

// Finish makes the segment present with this Meta, whose Applied must be the
// export's; it is durable when Finish returns.
func (i *Installer) Finish(meta Meta) (*Segment, error) {
	defer i.store.endInstall(i.part.id)
	switch {
	case i.err != nil:
		return nil, i.err
	case !i.complete:
		return nil, fmt.Errorf("%w: it is incomplete", ErrBadSnapshot)
	case meta.Applied != i.header.Applied:
		return nil, fmt.Errorf("%w: it is at index %d, not %d", ErrBadSnapshot, i.header.Applied, meta.Applied)
	}
	s, p := i.store, i.part
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	p.Meta = meta
	if err := i.flush(p.record); err != nil {
		return nil, err
	}
	g := storedSegment(s, p.id, p.position, p.index)
	s.mu.Lock()
	delete(s.absent, p.id)
	s.segments[p.id] = g
	s.listed = nil
	s.mu.Unlock()
	return g, nil
}

// Abort gives up; the segment stays absent.
func (i *Installer) Abort() {
	i.err = fmt.Errorf("%w: the install was given up", ErrBadSnapshot)
	i.store.endInstall(i.part.id)
}
