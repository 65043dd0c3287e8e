package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// ChunkBytes is the size that a snapshot's chunks do not pass, but for a single
// record that is larger by itself.
const ChunkBytes = 64 << 10

// Kinds of records in a chunk; see doc.go.
const (
	recordHeader = iota
	recordRevision
	recordAux
	recordEnd
)

// Export is a segment's state at its durable applied index, read from one backend
// snapshot, which it pins until Close. It is for one goroutine. It shows the range
// that the segment had at that index, which is not that of Segment.KeyRange while
// a cut or an absorb waits for its commit.
type Export struct {
	seg    *Segment
	snap   bolt.Snapshot
	record *record
	stage  int
	cursor bolt.Cursor
	k, v   []byte // the next record of the stage's bucket
	count  uint64
}

// Export begins a snapshot. The errors are ErrGone, also for a segment that no
// commit holds yet.
func (g *Segment) Export() (*Export, error) {
	g.mu.RLock()
	gone := g.gone
	g.mu.RUnlock()
	if gone {
		return nil, ErrGone
	}
	e := &Export{seg: g, snap: g.store.backend.Snapshot()}
	raw := e.snap.Bucket(bucketSegments).Get(g.id.AppendKey(nil))
	if raw == nil {
		e.snap.Release()
		return nil, ErrGone
	}
	r, err := decodeRecord(raw)
	if err != nil {
		e.snap.Release()
		return nil, err
	}
	if r.absent {
		e.snap.Release()
		return nil, ErrGone
	}
	e.record = r
	return e, nil
}

// Meta is the segment's Meta at the exported index.
func (e *Export) Meta() Meta { return e.record.Meta }

// KeyRange is the segment's range at the exported index.
func (e *Export) KeyRange() anchormesh.KeyRange { return e.record.rng }

// Next returns the next chunk, which is the caller's, or io.EOF after the last.
func (e *Export) Next() ([]byte, error) {
	if e.stage > recordEnd {
		return nil, io.EOF
	}
	chunk := make([]byte, 4, 4<<10)
	for e.stage <= recordEnd {
		k, v := e.peek()
		if k == nil {
			e.stage++
			e.cursor = nil
			continue
		}
		size := 1 + 2*binary.MaxVarintLen32 + len(k) + len(v)
		if len(chunk) > 4 && len(chunk)+size > ChunkBytes {
			break
		}
		chunk = appendBlob(appendBlob(append(chunk, byte(e.stage)), k), v)
		e.advance()
	}
	if len(chunk) == 4 {
		return nil, io.EOF
	}
	binary.LittleEndian.PutUint32(chunk, crc32.Checksum(chunk[4:], castagnoli))
	return chunk, nil
}

// peek is the record that comes next in this stage; a nil key is the stage's end.
func (e *Export) peek() (k, v []byte) {
	if e.cursor == nil && e.k == nil {
		e.k, e.v = e.open()
	}
	return e.k, e.v
}

func (e *Export) open() (k, v []byte) {
	switch e.stage {
	case recordHeader:
		return e.seg.id.AppendKey(nil), e.record.encode()
	case recordRevision:
		e.cursor = e.snap.Bucket(bucketRevisions).Cursor()
		return e.settle(e.cursor.Seek(nil))
	case recordAux:
		e.cursor = e.snap.Bucket(bucketAux).Cursor()
		return e.settle(e.cursor.Seek(e.seg.id.AppendKey(nil)))
	default:
		return binary.BigEndian.AppendUint64(nil, e.count), nil
	}
}

func (e *Export) advance() {
	e.count++
	if e.cursor == nil {
		e.stage++
		e.k, e.v = nil, nil
		return
	}
	e.k, e.v = e.settle(e.cursor.Next())
}

// settle skips what belongs to other segments.
func (e *Export) settle(k, v []byte) ([]byte, []byte) {
	for ; k != nil; k, v = e.cursor.Next() {
		if e.stage == recordAux {
			if len(k) < 8 || binary.BigEndian.Uint64(k) != uint64(e.seg.id) {
				return nil, nil
			}
			return k, v
		}
		key, _, ok := parseKey(v)
		if !ok {
			panic(fmt.Sprintf("mvcc: segment %s: bad record under %x", e.seg.id, k))
		}
		if e.record.rng.Contains(key) {
			return k, v
		}
	}
	return nil, nil
}

// Close releases the backend snapshot.
func (e *Export) Close() { e.snap.Release() }
