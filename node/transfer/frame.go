package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

const (
	version       = 2
	maxChunkBytes = 64 << 20 // one value may be its own chunk
)

const (
	answerInstalled = iota
	answerNotNeeded
	answerRefused
)

// ErrMalformed says that a stream is not what a sender writes.
var ErrMalformed = errors.New("malformed snapshot stream")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header begins a stream.
type header struct {
	to   anchormesh.ReplicaID
	meta mvcc.Meta
}

func (h *header) write(w *bufio.Writer) error {
	if err := w.WriteByte(version); err != nil {
		return err
	}
	b := binary.AppendUvarint(nil, uint64(h.to))
	b = binary.AppendUvarint(b, h.meta.Applied)
	b = binary.AppendUvarint(b, h.meta.Term)
	return writeChunk(w, append(b, h.meta.State...))
}

func readHeader(r *bufio.Reader) (header, error) {
	var h header
	v, err := r.ReadByte()
	if err != nil {
		return h, err
	}
	if v != version {
		return h, fmt.Errorf("%w: version %d, this program knows %d", ErrMalformed, v, version)
	}
	rest, err := readChunk(r)
	if err != nil {
		return h, err
	}
	for _, field := range []*uint64{(*uint64)(&h.to), &h.meta.Applied, &h.meta.Term} {
		n := 0
		if *field, n = binary.Uvarint(rest); n <= 0 {
			return h, fmt.Errorf("%w: the header is cut short", ErrMalformed)
		}
		rest = rest[n:]
	}
	h.meta.State = rest
	return h, nil
}

func writeChunk(w *bufio.Writer, chunk []byte) error {
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(chunk)))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(chunk, castagnoli))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(chunk)
	return err
}

// readChunk returns nil at the end of the state. The chunk is the caller's.
func readChunk(r *bufio.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 {
		return nil, nil
	}
	if size > maxChunkBytes {
		return nil, fmt.Errorf("%w: a chunk of %d bytes", ErrMalformed, size)
	}
	chunk := make([]byte, size)
	if _, err := io.ReadFull(r, chunk); err != nil {
		return nil, err
	}
	if crc32.Checksum(chunk, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("%w: checksum of a chunk does not match", ErrMalformed)
	}
	return chunk, nil
}
