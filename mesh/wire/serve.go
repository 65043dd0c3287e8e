package wire

import (
	"fmt"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// answerBox gathers the answers to the requests of one stream.
type answerBox struct {
	outbox
	conn   *conn
	stream network.MuxedStream
	closed bool
	done   chan struct{}
}

// Answer implements Answerer. It never blocks.
func (b *answerBox) Answer(id uint64, code uint16, payload [][]byte) {
	size := partsLen(payload)
	if size > b.conn.host.limits.FrameBytes {
		code, size, payload = codeTooLarge, 0, nil
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	if b.idleLocked() {
		b.signal()
	}
	c, _ := b.frameLocked()
	c.b = appendAnswer(c.b, answer{id: id, code: code}, size, payload)
	b.queuedLocked(c)
	over := b.bytes > b.conn.host.limits.AnswerBytes && b.count > 1
	if over {
		b.closed = true
		b.dropLocked()
	}
	b.mu.Unlock()
	if over {
		b.conn.host.warn("answers "+string(b.conn.id), "reset a stream of requests: the peer does not take its answers",
			"peer", b.conn.id, "bytes", b.conn.host.limits.AnswerBytes)
		b.conn.host.spawn(func() { b.stream.Reset() }) // it may wait for the connection
	}
}

// run owns the box. The reader of requests does not write answers itself:
// measured, that halves the throughput of many callers and gains one nothing.
func (b *answerBox) run() {
	for {
		select {
		case <-b.wake:
			runtime.Gosched() // as in lane.wait
			if _, err := b.flush(); err != nil {
				b.stream.Reset() // the reader ends, too
			}
		case <-b.done:
			return
		}
	}
}

func (b *answerBox) close() {
	b.mu.Lock()
	b.closed = true
	b.dropLocked()
	b.mu.Unlock()
	close(b.done)
}

// serveCalls takes requests until the stream ends.
func (c *conn) serveCalls(s network.MuxedStream) error {
	b := &answerBox{outbox: newOutbox(), conn: c, stream: s, done: make(chan struct{})}
	b.w = s
	defer b.close()
	if !c.host.spawn(b.run) {
		return ErrClosed
	}
	r := newFrameReader(s, c.host.limits.FrameBytes)
	for {
		q, payload, err := r.request()
		if err != nil {
			return err
		}
		c.serveCall(b, q, payload)
	}
}

func (c *conn) serveCall(b *answerBox, q request, payload []byte) {
	c.host.counters.served.Add(1)
	f := c.host.handlers.calls[q.method].Load()
	if f == nil {
		b.Answer(q.id, codeNoHandler, [][]byte{fmt.Appendf(nil, "method %d", q.method)})
		return
	}
	var deadline time.Time
	if q.timeout > 0 {
		deadline = time.Now().Add(time.Duration(q.timeout) * time.Millisecond)
	}
	(*f)(c.id, payload, NewResponder(b, q.id, deadline))
}
