package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// While the reader of requests has more of them at hand, answers are gathered;
// it writes them itself when it would have to wait, or after this many requests
// or bytes.
const (
	corkRequests = 64
	corkBytes    = 32 << 10
)

var errAnswers = errors.New("the peer does not take its answers")

// answerBox gathers the answers to the requests of one stream.
type answerBox struct {
	outbox
	conn   *conn
	stream network.MuxedStream
	corked bool // the reader will flush
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
	idle := b.idleLocked() && !b.corked
	b.buf = appendAnswer(b.buf, answer{id: id, code: code}, size, payload)
	b.count++
	if idle || b.corked && !b.busy && len(b.buf) >= corkBytes {
		b.signal()
	}
	over := len(b.buf) > b.conn.host.limits.AnswerBytes && b.count > 1
	b.mu.Unlock()
	if over {
		b.conn.host.log.warn("answers "+string(b.conn.id), "reset a stream of requests: the peer does not take its answers",
			"peer", b.conn.id, "bytes", b.conn.host.limits.AnswerBytes)
		b.stream.Reset()
	}
}

// run writes what is answered later than at once.
func (b *answerBox) run() {
	for {
		select {
		case <-b.wake:
			if _, err := b.flush(); err != nil {
				b.stream.Reset() // the reader ends, too
			}
		case <-b.done:
			return
		}
	}
}

// cork lets answers gather until uncork.
func (b *answerBox) cork() {
	b.mu.Lock()
	b.corked = true
	b.mu.Unlock()
}

// uncork writes what gathered. The reader may block in it: the peer's reader of
// answers never waits for anything but answers.
func (b *answerBox) uncork() {
	b.mu.Lock()
	b.corked = false
	queued := b.count > 0
	b.mu.Unlock()
	if !queued {
		return
	}
	if _, err := b.flush(); err != nil {
		b.stream.Reset()
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
	r.onBlock = b.uncork
	for n := 1; ; n++ {
		q, payload, err := r.request()
		if err != nil {
			return err
		}
		if n%corkRequests == 0 {
			b.uncork()
		}
		b.cork()
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
