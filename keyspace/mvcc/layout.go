package mvcc

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// The names and numbers of this file are the disk format drawn in doc.go.
const (
	formatVersion = 1

	bucketFormat    = "format"
	bucketSegments  = "segments"
	bucketAux       = "aux"
	bucketRevisions = "revisions"

	keyFormat = "version"

	revKeyLen  = 8 + 4 + 8
	revKeyMax  = revKeyLen + 1
	tombSuffix = 't'
	maxSub     = 1<<32 - 1
)

// origins turns the 64-bit ID of the segment that made a write into a small number
// that fits beside the sub revision in the index.
type origins []anchormesh.SegmentID

// originTable numbers the origins of one store. The numbers are the same for all of
// its segments, because indexes are cut and joined as they are. They die with the
// process: the backend holds IDs. It only grows.
type originTable struct {
	list atomic.Pointer[origins]

	mu      sync.Mutex
	numbers map[anchormesh.SegmentID]int64
}

// names is the table as it is now: every number that an index holds is in it.
func (t *originTable) names() origins {
	if list := t.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (t *originTable) number(id anchormesh.SegmentID) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[id]; ok {
		return n
	}
	if t.numbers == nil {
		t.numbers = make(map[anchormesh.SegmentID]int64)
	}
	list := append(slices.Clip(t.names()), id)
	n := int64(len(list) - 1)
	t.numbers[id] = n
	t.list.Store(&list)
	return n
}

// numbering asks a table for one number after the other, mostly the same.
type numbering struct {
	table *originTable
	id    anchormesh.SegmentID
	n     int64
}

func newNumbering(t *originTable, id anchormesh.SegmentID) numbering {
	return numbering{table: t, id: id, n: t.number(id)}
}

func (m *numbering) of(id anchormesh.SegmentID) int64 {
	if id != m.id {
		m.id, m.n = id, m.table.number(id)
	}
	return m.n
}

// indexSub is the Sub of the index: origin number and sub revision.
func indexSub(origin, sub int64) int64 { return origin<<32 | sub }

func subOf(indexSub int64) int64 { return indexSub & maxSub }

// appendRevKey encodes the bucket key of a revision of the index.
func (o origins) appendRevKey(dst []byte, mod keyindex.Revision, tomb bool) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(mod.Main))
	dst = binary.BigEndian.AppendUint32(dst, uint32(mod.Sub))
	dst = o[mod.Sub>>32].AppendKey(dst)
	if tomb {
		dst = append(dst, tombSuffix)
	}
	return dst
}

// revKey is a decoded key of the revisions bucket.
type revKey struct {
	main, sub int64
	origin    anchormesh.SegmentID
	tomb      bool
}

// before is the order of the bucket's keys.
func (r revKey) before(o revKey) bool {
	switch {
	case r.main != o.main:
		return r.main < o.main
	case r.sub != o.sub:
		return r.sub < o.sub
	}
	return r.origin < o.origin
}

func parseRevKey(k []byte) (r revKey, ok bool) {
	if len(k) != revKeyLen && (len(k) != revKeyMax || k[revKeyLen] != tombSuffix) {
		return r, false
	}
	r.main = int64(binary.BigEndian.Uint64(k))
	r.sub = int64(binary.BigEndian.Uint32(k[8:]))
	r.origin = anchormesh.SegmentID(binary.BigEndian.Uint64(k[12:]))
	r.tomb = len(k) == revKeyMax
	return r, r.main > 0
}

// auxPrefix is the start of the aux bucket's keys of a segment's table.
func auxPrefix(id anchormesh.SegmentID, table string) []byte {
	if len(table) == 0 || len(table) > 255 {
		panic(fmt.Sprintf("mvcc: aux table name %q: want 1 to 255 bytes", table))
	}
	k := id.AppendKey(make([]byte, 0, 8+1+len(table)+32))
	return append(append(k, byte(len(table))), table...)
}

// position is what a segment's record says of its data.
type position struct {
	Meta
	rng                anchormesh.KeyRange
	current, compacted int64 // etcd's revisions; compacted is -1 before the first compaction
	scrubbed           int64 // the last compaction whose physical removal is complete
}

// record is a segment's entry in the segments bucket.
type record struct {
	position
	// absent: the segment holds nothing that may be served; what lies in clear is
	// waste of an unfinished install or removal.
	absent bool
	clear  []anchormesh.KeyRange
}

const flagAbsent = 1

func (r *record) encode() []byte {
	b := make([]byte, 0, 64+len(r.State)+len(r.rng.Start)+len(r.rng.End))
	var flags byte
	if r.absent {
		flags |= flagAbsent
	}
	b = append(b, flags)
	for _, v := range []uint64{r.Applied, r.Term, uint64(r.current), uint64(r.compacted + 1), uint64(r.scrubbed + 1)} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendRange(b, r.rng)
	b = appendBlob(b, r.State)
	b = binary.AppendUvarint(b, uint64(len(r.clear)))
	for _, c := range r.clear {
		b = appendRange(b, c)
	}
	return b
}

func appendBlob(b, v []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(v))), v...) }

func appendRange(b []byte, r anchormesh.KeyRange) []byte {
	return appendBlob(appendBlob(b, r.Start), r.End)
}

// decodeRecord reads what encode wrote; the result shares nothing with b.
func decodeRecord(b []byte) (*record, error) {
	d := decoder{rest: b}
	flags := d.byte()
	r := &record{absent: flags&flagAbsent != 0}
	r.Applied, r.Term = d.uvarint(), d.uvarint()
	r.current, r.compacted, r.scrubbed = int64(d.uvarint()), int64(d.uvarint())-1, int64(d.uvarint())-1
	r.rng = d.keyRange()
	r.State = d.blob()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		r.clear = append(r.clear, d.keyRange())
	}
	if d.bad || len(d.rest) != 0 || flags&^flagAbsent != 0 {
		return nil, fmt.Errorf("%w: segment record of %d bytes", ErrCorrupt, len(b))
	}
	return r, nil
}

// decoder reads fields until one is bad; the caller asks once, at the end.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() { d.bad, d.rest = true, nil }

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// bytes aliases the input.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) blob() []byte {
	if b := d.bytes(); len(b) > 0 {
		return append([]byte(nil), b...)
	}
	return nil
}

func (d *decoder) keyRange() anchormesh.KeyRange {
	return anchormesh.KeyRange{Start: d.blob(), End: d.blob()}
}
