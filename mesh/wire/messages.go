package wire

import (
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/anchormesh/anchormesh"
)

// messageLane carries one class of messages to one peer.
type messageLane struct{ lane }

func newMessageLane(p *peerState, class Class) *messageLane {
	return &messageLane{lane{outbox: newOutbox(), peer: p, proto: protocolMessages, class: class}}
}

// Send queues a message to a peer, copying the parts, and never blocks. False
// means that it was dropped: the payload is too large, the queue full, or the
// peer known to be unreachable. True promises nothing.
func (h *Host) Send(to anchormesh.NodeID, class Class, parts ...[]byte) bool {
	p, err := h.peer(to)
	if err != nil || class > ClassMax || !p.messageLane(class).send(parts) {
		h.counters.dropped.Add(1)
		return false
	}
	h.counters.sent.Add(1)
	return true
}

func (l *messageLane) send(parts [][]byte) bool {
	limits := &l.peer.host.limits
	size := partsLen(parts)
	if size > limits.FrameBytes {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.count > 0 && (l.count >= limits.MessageCount || l.bytes+size > limits.MessageBytes)
	if full || l.downLocked() || !l.startLocked(l) {
		return false
	}
	if l.idleLocked() {
		l.signal()
	}
	c, _ := l.frameLocked()
	c.b = appendMessage(c.b, size, parts)
	l.queuedLocked(c)
	return true
}

// run owns the lane.
func (l *messageLane) run() {
	for l.wait() {
		if err := l.ensure(l.broke, l.watch); err != nil {
			l.drop()
			continue
		}
		if w, err := l.flush(); err != nil {
			l.broke(w, err)
		}
	}
	l.drop()
}

// watch notices when the peer resets the stream; nothing is ever read from it.
func (l *messageLane) watch(s network.MuxedStream) {
	l.peer.host.spawn(func() {
		var one [1]byte
		_, err := s.Read(one[:])
		if err == nil {
			err = errFrame
		}
		l.broke(s, err)
	})
}

// broke ends the stream. What was being written is lost, what is queued goes
// over the next one.
func (l *messageLane) broke(w io.Writer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closedLocked(w, err)
	if l.count > 0 {
		l.signal()
	}
}

func (l *messageLane) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer.host.counters.dropped.Add(uint64(l.dropLocked()))
}

// moveTo lets the next message open its stream on a better connection.
func (l *messageLane) moveTo(best *conn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calmLocked(best, now, false) {
		l.closedLocked(l.w, nil)
	}
}

// serveMessages takes the messages of one class until the stream ends.
func (c *conn) serveMessages(s network.MuxedStream, class Class) error {
	r := newFrameReader(s, c.host.limits.FrameBytes)
	handler := &c.host.handlers.messages[class]
	for {
		payload, err := r.message()
		if err != nil {
			return err
		}
		if f := handler.Load(); f != nil {
			c.host.counters.received.Add(1)
			(*f)(c.id, payload)
		} else {
			c.host.counters.unhandled.Add(1)
		}
	}
}
