package wire

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/anchormesh/anchormesh"
)

// Codes of answers the mesh itself gives.
const (
	codeNoHandler uint16 = 0xff01
	codeTooLarge  uint16 = 0xff02
)

// callLane carries requests to one peer and the answers back.
type callLane struct {
	lane
	next    uint64
	pending map[uint64]*pending
}

// pending is a request that waits for its answer.
type pending struct {
	done chan outcome // capacity 1
	take uint64       // the outbox's take that writes it
}

type outcome struct {
	payload []byte
	code    uint16
	err     error
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan outcome, 1)} }}

func newCallLane(p *peerState) *callLane {
	return &callLane{
		lane:    lane{outbox: newOutbox(), peer: p, proto: protocolCalls},
		pending: make(map[uint64]*pending),
	}
}

// Call sends a request to a peer's handler of method, copying the parts, and
// waits for the answer, which belongs to the caller.
//
// ErrUnreachable, ErrOverloaded and ErrTooLarge say that the peer did not get
// it; ErrUnknownOutcome and the context's errors leave that open; a RemoteError
// is the handler's answer.
func (h *Host) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := h.peer(to)
	if err != nil {
		return nil, err
	}
	h.counters.calls.Add(1)
	id, w, err := p.calls.enqueue(ctx, method, parts)
	if err != nil {
		return nil, err
	}
	var out outcome
	select {
	case out = <-w.done:
	case <-ctx.Done():
		if p.calls.abandon(id) {
			return nil, ctx.Err() // w is not reused: it was never answered
		}
		out = <-w.done // the answer was just on its way
	}
	pendings.Put(w)
	return out.result(p)
}

func (o outcome) result(p *peerState) ([]byte, error) {
	switch {
	case o.err != nil:
		return nil, o.err
	case o.code == 0:
		return o.payload, nil
	case o.code == codeNoHandler:
		return nil, fmt.Errorf("%w: %s", ErrNoHandler, p.id.Short())
	case o.code == codeTooLarge:
		return nil, fmt.Errorf("%w: the answer of %s", ErrTooLarge, p.id.Short())
	}
	return nil, &RemoteError{Code: o.code, Text: string(o.payload)}
}

// enqueue queues a request. It is not written here, though that would spare a
// change of goroutines: measured with one caller that is 5 % faster, with four
// it costs nearly twice the CPU, because each writes for itself alone.
func (l *callLane) enqueue(ctx context.Context, method uint8, parts [][]byte) (uint64, *pending, error) {
	r := request{method: method}
	if deadline, ok := ctx.Deadline(); ok {
		r.timeout = timeoutMillis(time.Now(), deadline)
	}
	size := partsLen(parts)
	w := pendings.Get().(*pending)
	l.mu.Lock()
	if err := l.admitLocked(size); err != nil {
		l.mu.Unlock()
		pendings.Put(w)
		return 0, nil, err
	}
	l.next++
	r.id = l.next
	l.pending[r.id] = w
	if l.idleLocked() {
		l.signal()
	}
	c, take := l.frameLocked()
	c.b = appendRequest(c.b, r, size, parts)
	l.queuedLocked(c)
	w.take = take
	l.mu.Unlock()
	return r.id, w, nil
}

// admitLocked says why a request may not be queued.
func (l *callLane) admitLocked(size int) error {
	limits := &l.peer.host.limits
	switch {
	case size > limits.FrameBytes:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, limits.FrameBytes)
	case l.count > 0 && l.bytes+size > limits.CallBytes, len(l.pending) >= limits.CallCount:
		l.peer.host.counters.overloaded.Add(1)
		return fmt.Errorf("%w: %s", ErrOverloaded, l.peer.id.Short())
	case l.downLocked():
		return l.downErr
	case !l.startLocked(l):
		return ErrClosed
	}
	return nil
}

// run owns the lane.
func (l *callLane) run() {
	for l.wait() {
		if err := l.ensure(l.broke, l.listen); err != nil {
			l.giveUp(err)
			continue
		}
		if w, err := l.flush(); err != nil {
			l.broke(w, err)
		}
	}
	l.giveUp(ErrClosed)
}

// listen reads the answers.
func (l *callLane) listen(s network.MuxedStream) {
	l.peer.host.spawn(func() {
		r := newFrameReader(s, l.peer.host.limits.FrameBytes)
		for {
			a, payload, err := r.answer()
			if err != nil {
				l.broke(s, err)
				return
			}
			l.answered(a, payload)
		}
	})
}

func (l *callLane) answered(a answer, payload []byte) {
	l.mu.Lock()
	w := l.forgetLocked(a.id)
	l.mu.Unlock()
	if w != nil {
		w.done <- outcome{payload: payload, code: a.code}
	}
}

func (l *callLane) forgetLocked(id uint64) *pending {
	w := l.pending[id]
	if w != nil {
		delete(l.pending, id)
	}
	return w
}

// abandon forgets a request whose caller does not wait any more. False means
// that its outcome is known already.
func (l *callLane) abandon(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.forgetLocked(id) != nil
}

// broke ends the stream w: requests that were written have an unknown outcome,
// those still queued go over the next stream.
func (l *callLane) broke(w io.Writer, err error) {
	var lost []*pending
	l.mu.Lock()
	if l.closedLocked(w, err) {
		for id, p := range l.pending {
			if p.take <= l.takes {
				lost = append(lost, l.forgetLocked(id))
			}
		}
	}
	if l.count > 0 {
		l.signal()
	}
	l.mu.Unlock()
	fail(lost, fmt.Errorf("%w: %s: %w", ErrUnknownOutcome, l.peer.id.Short(), err))
}

// giveUp fails everything that was not written: there is no stream.
func (l *callLane) giveUp(err error) {
	l.mu.Lock()
	l.dropLocked()
	all := make([]*pending, 0, len(l.pending))
	for id := range l.pending {
		all = append(all, l.forgetLocked(id))
	}
	l.mu.Unlock()
	fail(all, err)
}

func fail(ps []*pending, err error) {
	for _, p := range ps {
		p.done <- outcome{err: err}
	}
}

// waiting returns how many requests wait for an answer.
func (l *callLane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}

// moveTo lets the next request open its stream on a better connection.
func (l *callLane) moveTo(best *conn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calmLocked(best, now, len(l.pending) > 0) {
		l.closedLocked(l.w, nil)
	}
}
