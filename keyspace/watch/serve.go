package watch

import (
	"context"
)

// server is how a hub is run that nobody runs by hand: only while it has streams.
// Guarded by the hub's lock.
type server struct {
	spawn   func(func())
	failed  func(error)
	running bool
}

// Serve has the hub run, in a goroutine that spawn starts, whenever it has streams:
// one of thousands of segments that nobody watches costs none. failed is told of an
// error of history, with which the hub has ended. spawn is not called any more when
// Stop has returned. It is called instead of Run, before the first stream.
func (h *Hub) Serve(spawn func(func()), failed func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server = server{spawn: spawn, failed: failed}
}

// beginLocked starts the goroutine for a new stream, or for the end; the hub's lock
// is held.
func (h *Hub) beginLocked() {
	s := &h.server
	if s.spawn == nil || s.running || h.stopped != nil {
		return
	}
	s.running = true
	s.spawn(func() {
		if err := h.run(context.Background(), h.leave); err != nil {
			s.failed(err)
		}
	})
}

// leave ends the goroutine if nobody could want anything of it: what bounds and
// holds say waits for the next stream. The next goroutine begins with empty hands.
func (h *Hub) leave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) > 0 || h.stopRequested() != nil {
		return false
	}
	h.server.running = false
	h.hands = nil
	return true
}
