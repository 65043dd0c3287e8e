package wal

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/frame"
	"go.etcd.io/raft/v3/raftpb"
)

// Flags of a record; part of the stored format.
const (
	flagHardState = 1 << iota // the head has a hard state
	flagEntries               // entries follow the head
	flagRestart               // the group's log is emptied first
	flagRemove                // the group is gone; nothing follows
	flagCarried               // the entries were moved here; what follows them stays
	flagMemory                // what follows may be acknowledged before it is synced
	flagsAll      = 1<<iota - 1
)

// Bits of an entry's kind byte beside its type. raftpb tells absent fields from
// zero ones; an entry is read back as it was appended.
const (
	kindTypeMask = 0x0f
	kindNoType   = 0x80
	kindNoData   = 0x40
)

const (
	entrySumBytes   = 4
	entryBytesMin   = entrySumBytes + 3
	recordBytesMin  = 9
	headBytesBudget = 48 // what a record costs beside its entries, for accounting
)

var errMalformed = errors.New("a record cannot be decoded")

// head is a group's state beside its entries. Every record states all of it, so
// the newest record of a group alone decides and older ones are dead.
type head struct {
	hasState           bool
	term, vote, commit uint64
	mark               Mark // the log begins behind this position
	memory             bool // see Memory
}

// ref is an entry in the index: where it is, and itself while it is cached.
type ref struct {
	ent  *raftpb.Entry // nil: only in the file
	term uint64
	off  uint32 // in the file; while staged, in the batch
	size uint32 // of the data
	file uint32 // 0: a hole, known only while the log is recovered
	kind uint8
}

// diskBytes is the encoded size of the entry.
func (r *ref) diskBytes() int {
	return entrySumBytes + uvarintBytes(r.term) + 1 + uvarintBytes(uint64(r.size)) + int(r.size)
}

// protoBytes is proto.Size of the entry, which raft's limits are stated in.
func (r *ref) protoBytes(index uint64) uint64 {
	n := 2 + uvarintBytes(r.term) + uvarintBytes(index)
	if r.kind&kindNoType == 0 {
		n += 2
	}
	if r.kind&kindNoData == 0 {
		n += 1 + uvarintBytes(uint64(r.size)) + int(r.size)
	}
	return uint64(n)
}

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// record is one group's part of a batch.
type record struct {
	flags uint8
	group anchormesh.SegmentID
	head  head
	first uint64 // index of the first entry
	refs  []ref
}

func (r *record) is(flag uint8) bool { return r.flags&flag != 0 }

// appendRecordHead encodes everything of a record that stands before its
// entries.
func appendRecordHead(b []byte, flags uint8, group anchormesh.SegmentID, h head) []byte {
	if h.hasState {
		flags |= flagHardState
	}
	if h.memory {
		flags |= flagMemory
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(group))
	if flags&flagRemove != 0 {
		return b
	}
	if h.hasState {
		b = binary.AppendUvarint(b, h.term)
		b = binary.AppendUvarint(b, h.vote)
		b = binary.AppendUvarint(b, h.commit)
	}
	b = binary.AppendUvarint(b, h.mark.Index)
	return binary.AppendUvarint(b, h.mark.Term)
}

// appendEntriesHead encodes the run of indexes that the entries have.
func appendEntriesHead(b []byte, first uint64, count int) []byte {
	b = binary.AppendUvarint(b, first)
	return binary.AppendUvarint(b, uint64(count))
}

// refOf describes an entry that is about to be encoded at off.
func refOf(e *raftpb.Entry, off int) ref {
	kind := uint8(e.GetType()) & kindTypeMask
	if e.Type == nil {
		kind |= kindNoType
	}
	if e.Data == nil {
		kind |= kindNoData
	}
	return ref{ent: e, term: e.GetTerm(), off: uint32(off), size: uint32(len(e.Data)), kind: kind}
}

// appendEntry encodes an entry: checksum, term, kind, length, data. The
// checksum covers group and index too, so that an entry read through a wrong
// index is noticed.
func appendEntry(b []byte, group anchormesh.SegmentID, index uint64, r *ref, data []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.AppendUvarint(b, r.term)
	b = append(b, r.kind)
	b = binary.AppendUvarint(b, uint64(r.size))
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[at:], entrySum(group, index, b[at+entrySumBytes:]))
	return b
}

func entrySum(group anchormesh.SegmentID, index uint64, body []byte) uint32 {
	return frame.Checksum(frame.Mix(uint64(group), index), body)
}

// entryIntact reports whether b is the encoded entry that r describes.
func entryIntact(b []byte, group anchormesh.SegmentID, index uint64, r *ref) bool {
	if binary.LittleEndian.Uint32(b) != entrySum(group, index, b[entrySumBytes:]) {
		return false
	}
	d := decoder{b: b, off: entrySumBytes}
	return d.uvarint() == r.term && d.byte() == r.kind && d.uvarint() == uint64(r.size) && !d.bad
}

// decoder reads a batch; after the first thing that does not fit it is bad and
// returns zeros.
type decoder struct {
	b   []byte
	off int
	bad bool
}

func (d *decoder) left() int { return len(d.b) - d.off }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b[d.off:])
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) byte() uint8 {
	if d.left() < 1 {
		d.bad = true
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

func (d *decoder) uint64() uint64 {
	if d.left() < 8 {
		d.bad = true
		return 0
	}
	d.off += 8
	return binary.LittleEndian.Uint64(d.b[d.off-8:])
}

// record reads the next record. Its refs reuse the room of r.refs; their
// offsets count from the beginning of d.b.
func (d *decoder) record(r *record) error {
	*r = record{flags: d.byte(), group: anchormesh.SegmentID(d.uint64()), refs: r.refs[:0]}
	if d.bad || r.flags&^flagsAll != 0 || r.group == 0 {
		return errMalformed
	}
	if r.is(flagRemove) {
		return nil
	}
	if r.head.hasState = r.is(flagHardState); r.head.hasState {
		r.head.term, r.head.vote, r.head.commit = d.uvarint(), d.uvarint(), d.uvarint()
	}
	r.head.memory = r.is(flagMemory)
	r.head.mark = Mark{Index: d.uvarint(), Term: d.uvarint()}
	if r.is(flagEntries) {
		d.entries(r)
	}
	if d.bad {
		return errMalformed
	}
	return nil
}

func (d *decoder) entries(r *record) {
	r.first = d.uvarint()
	count := d.uvarint()
	if d.bad || count == 0 || count > uint64(d.left()/entryBytesMin) ||
		r.first <= r.head.mark.Index || r.first+count < r.first {
		d.bad = true
		return
	}
	for range count {
		e := ref{off: uint32(d.off)}
		d.off += min(entrySumBytes, d.left())
		e.term = d.uvarint()
		e.kind = d.byte()
		size := d.uvarint()
		if d.bad || size > uint64(d.left()) {
			d.bad = true
			return
		}
		e.size = uint32(size)
		d.off += int(size)
		r.refs = append(r.refs, e)
	}
}

// loaded is room for an entry read back from a file, in one allocation.
type loaded struct {
	entry       raftpb.Entry
	term, index uint64
	kind        raftpb.EntryType
}

// decodeEntry builds the entry that r describes from its encoded bytes, which it
// keeps as the entry's data.
func decodeEntry(l *loaded, b []byte, index uint64, r *ref) *raftpb.Entry {
	l.term, l.index, l.kind = r.term, index, raftpb.EntryType(r.kind&kindTypeMask)
	e := &l.entry
	e.Term, e.Index = &l.term, &l.index
	if r.kind&kindNoType == 0 {
		e.Type = &l.kind
	}
	if r.kind&kindNoData == 0 {
		e.Data = b[len(b)-int(r.size) : len(b) : len(b)]
	}
	return e
}
