package codec

import (
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// Chunks is one encoded message in pieces, in order. The pieces are read-only.
type Chunks [][]byte

// Size returns the length of the whole message.
func (c Chunks) Size() int {
	n := 0
	for _, b := range c {
		n += len(b)
	}
	return n
}

// Bytes returns the message in one piece, copied unless there is only one.
func (c Chunks) Bytes() []byte {
	if len(c) == 1 {
		return c[0]
	}
	out := make([]byte, 0, c.Size())
	for _, b := range c {
		out = append(out, b...)
	}
	return out
}

// ChunkBuilder gathers a message. Small pieces are copied into buffers of
// bufferSize, pieces of at least referenceMin bytes are referenced: below it,
// copying costs less than one more piece costs on the way to the socket.
type ChunkBuilder struct {
	done    Chunks
	buf     []byte // the buffer being filled
	flushed int    // how much of buf is in done already
	left    int    // bytes still expected, behind this buffer
}

const (
	// bufferSize is the size of the buffers small pieces gather in, 32 KiB: the
	// largest that Go's allocator serves from a per-processor cache. Larger ones
	// measured twice as slow.
	bufferSize = 32 << 10
	// referenceMin is the length from which a piece is referenced.
	referenceMin = 4 << 10
)

// NewChunkBuilder returns a builder for a message of about sizeHint bytes.
func NewChunkBuilder(sizeHint int) *ChunkBuilder {
	c := &ChunkBuilder{left: max(sizeHint, 64)}
	c.grow(0)
	return c
}

// grow begins a buffer for at least n bytes: what is still expected, or a whole
// one if the message was longer than expected.
func (c *ChunkBuilder) grow(n int) {
	size := bufferSize
	if c.left > 0 {
		size = min(c.left, bufferSize)
	}
	size = max(size, n)
	c.buf, c.flushed, c.left = make([]byte, 0, size), 0, c.left-size
}

// AppendWith adds what write appends to its argument; at most n bytes.
func (c *ChunkBuilder) AppendWith(n int, write func(dst []byte) []byte) {
	c.room(n)
	c.buf = write(c.buf)
}

// AppendRaw adds an encoded submessage as the given field (below 16). A large
// raw is referenced and must not change.
func (c *ChunkBuilder) AppendRaw(field protowire.Number, raw []byte) {
	if len(raw) < referenceMin {
		c.room(1 + protowire.SizeBytes(len(raw)))
		c.buf = AppendRaw(c.buf, field, raw)
		return
	}
	c.room(1 + protowire.SizeVarint(uint64(len(raw))))
	c.buf = protowire.AppendTag(c.buf, field, protowire.BytesType)
	c.buf = protowire.AppendVarint(c.buf, uint64(len(raw)))
	c.flush()
	c.done = append(c.done, raw)
}

// AppendCopy is AppendRaw that copies, for a raw that will not stay.
func (c *ChunkBuilder) AppendCopy(field protowire.Number, raw []byte) {
	c.room(1 + protowire.SizeBytes(len(raw)))
	c.buf = AppendRaw(c.buf, field, raw)
}

// room makes sure that n more bytes fit into the buffer.
func (c *ChunkBuilder) room(n int) {
	if cap(c.buf)-len(c.buf) >= n {
		return
	}
	c.flush()
	c.grow(n)
}

// flush hands what is in the buffer over to the message.
func (c *ChunkBuilder) flush() {
	if c.flushed < len(c.buf) {
		c.done = append(c.done, c.buf[c.flushed:len(c.buf):len(c.buf)])
		c.flushed = len(c.buf)
	}
}

// Finish returns the message; the builder is used up.
func (c *ChunkBuilder) Finish() Chunks {
	c.flush()
	return c.done
}

// WrapChunks makes c the given field (below 16) of a message that holds nothing
// else, as RangeStreamResponse holds a RangeResponse.
func WrapChunks(c Chunks, field protowire.Number) Chunks {
	size := c.Size()
	head := make([]byte, 0, 2+(bits.Len64(uint64(size))+6)/7)
	head = protowire.AppendTag(head, field, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	return append(Chunks{head}, c...)
}
