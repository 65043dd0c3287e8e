package wire

import (
	"io"
	"sync"
)

// keepBytes is the largest buffer an outbox keeps for later.
const keepBytes = 1 << 20

// outbox gathers whole frames and hands all that are queued to the stream in
// one Write, which yamux turns into one frame and one system call as far as
// sizes allow.
//
// Whoever finds frames queued and nobody writing may become the writer: the
// goroutine that owns the outbox (through wake), or a caller that may block.
// Everybody else only appends. At most one goroutine is in Write.
type outbox struct {
	mu    sync.Mutex
	buf   []byte        // queued frames
	count int           // of them
	spare []byte        // for the next buf
	w     io.Writer     // nil: no stream
	busy  bool          // somebody is in Write
	takes uint64        // how often buf was taken; frames queued at takes==n are in the take n+1
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

// takeLocked makes the caller the writer of all that is queued. It returns nil
// if there is nothing to write, no stream, or another writer.
func (o *outbox) takeLocked() (frames []byte, w io.Writer) {
	if o.busy || o.w == nil || len(o.buf) == 0 {
		return nil, nil
	}
	frames, w = o.buf, o.w
	o.buf, o.spare, o.count = o.spare[:0], nil, 0
	o.busy = true
	o.takes++
	return frames, w
}

// writtenLocked ends the caller's turn.
func (o *outbox) writtenLocked(frames []byte) {
	o.busy = false
	if cap(frames) <= keepBytes {
		o.spare = frames[:0]
	}
}

// dropLocked empties the queue and returns how many frames it held.
func (o *outbox) dropLocked() int {
	n := o.count
	o.count = 0
	if o.buf = o.buf[:0]; cap(o.buf) > keepBytes {
		o.buf = nil
	}
	return n
}

// flush writes until nothing is queued or somebody else writes. It returns the
// error of the stream w that failed.
func (o *outbox) flush() (w io.Writer, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		var frames []byte
		if frames, w = o.takeLocked(); frames == nil {
			return nil, nil
		}
		o.mu.Unlock()
		_, err = w.Write(frames)
		o.mu.Lock()
		o.writtenLocked(frames)
		if err != nil {
			return w, err
		}
	}
}
