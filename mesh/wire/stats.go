package wire

import "sync/atomic"

// counters are the live ones.
type counters struct {
	accepted, dialled, dialFailed, foreign, garbage, refused atomic.Uint64
	sent, received, dropped, unhandled                       atomic.Uint64
	calls, served, overloaded                                atomic.Uint64
}

// Stats are counters since the start, and gauges of now.
type Stats struct {
	Accepted   uint64 // connections others made
	Dialled    uint64 // connections this node made
	DialFailed uint64
	Foreign    uint64 // streams from another mesh
	Garbage    uint64 // streams reset for what the peer sent
	Refused    uint64 // streams refused, and refusals received

	MessagesSent      uint64 // queued, and not known to be dropped
	MessagesReceived  uint64
	MessagesDropped   uint64 // full queue, or no connection
	MessagesUnhandled uint64 // received in a class without a handler

	Calls      uint64 // requests made
	Served     uint64 // requests received
	Overloaded uint64 // requests refused with ErrOverloaded

	Conns int // open connections
	Up    int // peers with one
	Known int // peers of which state is kept
}

// Stats returns the counters.
func (h *Host) Stats() Stats {
	c := &h.counters
	s := Stats{
		Accepted: c.accepted.Load(), Dialled: c.dialled.Load(), DialFailed: c.dialFailed.Load(),
		Foreign: c.foreign.Load(), Garbage: c.garbage.Load(), Refused: c.refused.Load(),
		MessagesSent: c.sent.Load(), MessagesReceived: c.received.Load(),
		MessagesDropped: c.dropped.Load(), MessagesUnhandled: c.unhandled.Load(),
		Calls: c.calls.Load(), Served: c.served.Load(), Overloaded: c.overloaded.Load(),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Conns, s.Known = len(h.conns), len(h.peers)
	for _, p := range h.peers {
		if p.up.Load() {
			s.Up++
		}
	}
	return s
}
