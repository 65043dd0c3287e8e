package wire

import (
	"io"
	"slices"
	"sync"
)

// Queued frames are kept in chunks: a chunk that has reached chunkBytes takes no
// further frame. One buffer for everything would be copied as it grows, and
// once grown is too large to keep. Chunks up to keepBytes are used again.
const (
	chunkBytes = 256 << 10
	keepBytes  = 1 << 20
)

// chunk is a run of whole frames.
type chunk struct {
	b      []byte
	frames int
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func recycle(c *chunk) {
	if cap(c.b) <= keepBytes {
		c.b, c.frames = c.b[:0], 0
		chunks.Put(c)
	}
}

// outbox gathers whole frames and hands what is queued to the stream in as few
// Writes as chunks allow; yamux turns each into one frame and one system call
// per 64 KiB.
//
// Whoever finds frames queued and nobody writing may become the writer: the
// goroutine that owns the outbox (through wake), or a caller that may block.
// Everybody else only appends. At most one goroutine is in Write.
type outbox struct {
	mu    sync.Mutex
	full  []*chunk      // queued, oldest first
	last  *chunk        // queued and takes more frames; nil: nothing is queued
	count int           // queued frames
	bytes int           // likewise
	w     io.Writer     // nil: no stream
	busy  bool          // somebody is in Write
	takes uint64        // chunks ever taken
	wake  chan struct{} // capacity 1: work for the owner
}

func newOutbox() outbox { return outbox{wake: make(chan struct{}, 1)} }

// signal wakes the owner; it never blocks.
func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// idleLocked reports whether a frame queued now has nobody to write it.
func (o *outbox) idleLocked() bool { return !o.busy && o.count == 0 }

// frameLocked returns the chunk to append the next frame to, and the number of
// the take that will take it. queuedLocked must follow.
func (o *outbox) frameLocked() (c *chunk, take uint64) {
	if o.last != nil && len(o.last.b) >= chunkBytes {
		o.full = append(o.full, o.last)
		o.last = nil
	}
	if o.last == nil {
		o.last = chunks.Get().(*chunk)
	}
	o.bytes -= len(o.last.b)
	return o.last, o.takes + uint64(len(o.full)) + 1
}

// queuedLocked counts the frame appended to c.
func (o *outbox) queuedLocked(c *chunk) {
	c.frames++
	o.count++
	o.bytes += len(c.b)
}

// takeLocked makes the caller the writer of the oldest chunk. It returns nil if
// there is nothing to write, no stream, or another writer.
func (o *outbox) takeLocked() (c *chunk, w io.Writer) {
	if o.busy || o.w == nil || o.count == 0 {
		return nil, nil
	}
	if len(o.full) > 0 {
		c = o.full[0]
		o.full = slices.Delete(o.full, 0, 1)
	} else {
		c, o.last = o.last, nil
	}
	o.count -= c.frames
	o.bytes -= len(c.b)
	o.busy = true
	o.takes++
	return c, o.w
}

// writtenLocked ends the caller's turn.
func (o *outbox) writtenLocked(c *chunk) {
	o.busy = false
	recycle(c)
}

// dropLocked empties the queue and returns how many frames it held.
func (o *outbox) dropLocked() int {
	n := o.count
	for _, c := range o.full {
		recycle(c)
	}
	if o.last != nil {
		recycle(o.last)
	}
	o.full, o.last, o.count, o.bytes = nil, nil, 0, 0
	return n
}

// flush writes until nothing is queued or somebody else writes. It returns the
// stream that failed and its error.
func (o *outbox) flush() (w io.Writer, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		var c *chunk
		if c, w = o.takeLocked(); c == nil {
			return nil, nil
		}
		o.mu.Unlock()
		_, err = w.Write(c.b)
		o.mu.Lock()
		o.writtenLocked(c)
		if err != nil {
			return w, err
		}
	}
}
