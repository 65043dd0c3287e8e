package watch

import (
	"cmp"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// add begins to serve w, whose Created response is queued.
func (h *Hub) add(w *watch, rng anchormesh.KeyRange) {
	_, floor := h.history.Revision()
	h.mu.Lock()
	switch {
	case h.stopped != nil:
		h.endLocked(w, h.stopped)
	case w.stream.gone(w):
		// Cancelled or closed meanwhile.
	default:
		if b := h.queue.peekBounds(); !b.keys.Covers(rng) {
			h.endLocked(w, b.reason)
			break
		}
		if h.core.index.Len() == 0 {
			// Nothing was kept while nobody watched; nobody missed it.
			h.core.cursor = h.queue.activate(true) + 1
		}
		h.core.add(w, rng)
	}
	// On a line, a compaction may go beyond the last revision that the segment has
	// published, and history is never asked for what lies there.
	late := w.added && !w.lagging && !w.has(resumed) && w.next < floor
	h.mu.Unlock()
	if late {
		h.compactedAway([]*watch{w}, floor)
	}
	h.nudge()
}

// endOutside ends the watches that reach beyond what the segment holds. Nothing that
// was published or read since Bound was handed out to them.
func (h *Hub) endOutside() {
	b := h.queue.takeBounds()
	if !b.due {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.DeleteFunc(h.watchesLocked(), func(w *watch) bool {
		return !w.added || w.gone || b.kept.Covers(w.entry.Range())
	})
	slices.SortFunc(out, func(a, b *watch) int { return cmp.Compare(a.id, b.id) })
	for _, w := range out {
		h.endLocked(w, b.reason)
	}
	if len(out) > 0 && h.core.index.Len() == 0 {
		h.queue.activate(false)
	}
}

// gone reports whether w was ended by its user.
func (s *Stream) gone(w *watch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.closed
}

// removeChunk is how many watches are removed under one hold of the hub's lock.
const removeChunk = 256

// remove ends serving watches that were closed on their streams.
func (h *Hub) remove(ws []*watch) {
	for chunk := range slices.Chunk(ws, removeChunk) {
		h.mu.Lock()
		had := h.core.index.Len() > 0
		for _, w := range chunk {
			h.core.remove(w)
		}
		if had && h.core.index.Len() == 0 {
			h.queue.activate(false)
		}
		h.mu.Unlock()
	}
}

// forget drops a closed stream.
func (h *Hub) forget(s *Stream, ws []*watch) {
	h.remove(ws)
	h.mu.Lock()
	delete(h.streams, s)
	h.mu.Unlock()
	h.nudge() // the last one lets a hub that is served rest
}

// watchesLocked lists the watches of all streams; the hub's lock is held.
func (h *Hub) watchesLocked() (all []*watch) {
	for s := range h.streams {
		s.mu.Lock()
		for _, w := range s.watches {
			all = append(all, w)
		}
		s.mu.Unlock()
	}
	return all
}

// ready is told by a stream with refused watches that there is room again.
func (h *Hub) ready(s *Stream) {
	h.inbox.Lock()
	h.inbox.ready = append(h.inbox.ready, s)
	h.inbox.Unlock()
	h.nudge()
}

// ask hands a request for stream progress to the hub's goroutine.
func (h *Hub) ask(s *Stream, revision int64) {
	h.inbox.Lock()
	i := slices.IndexFunc(h.inbox.asks, func(a ask) bool { return a.stream == s })
	if i >= 0 {
		h.inbox.asks[i].revision = revision
	} else {
		h.inbox.asks = append(h.inbox.asks, ask{s, revision})
	}
	h.inbox.Unlock()
	h.nudge()
}

// file keeps a request until it is answered, at most two per stream: the oldest,
// so that a client that keeps asking is answered at all, and the newest.
func (h *Hub) file(a ask) {
	newest, n := 0, 0
	for i := range h.asking {
		if h.asking[i].stream == a.stream {
			newest, n = i, n+1
		}
	}
	if n < 2 {
		h.asking = append(h.asking, a)
	} else {
		h.asking[newest].revision = a.revision
	}
}

// answerAsks answers the requests for progress that can be answered. What it
// claims is behind everything queued: it runs between steps, when all below the
// cursor was handed out.
func (h *Hub) answerAsks() {
	if len(h.asking) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking = slices.DeleteFunc(h.asking, h.answerLocked)
}

// answerLocked reports whether the request is done with.
func (h *Hub) answerLocked(a ask) bool {
	s := a.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ended != nil || len(s.watches) == 0 {
		return true
	}
	if s.lagging > 0 || a.revision >= h.core.cursor {
		return false
	}
	future := false
	for _, w := range s.watches {
		if !w.added {
			return false // between its Created response and the index
		}
		future = future || !h.core.reached(w)
	}
	if !future {
		s.box.control(nil, Response{ID: StreamID, Revision: h.core.cursor - 1, Progress: true})
		s.wakeLocked()
	}
	return true
}

// watchesPerTick bounds the work of one progress tick: beyond so many watches a
// round is spread over several.
const watchesPerTick = 1024

// tickProgress sends the periodic progress responses that are due.
func (h *Hub) tickProgress(now time.Time) {
	h.mu.Lock()
	n := len(h.core.notify)
	if n == 0 {
		h.tick = time.Time{}
		h.mu.Unlock()
		return
	}
	parts := 1 + n/watchesPerTick
	wait := h.limits.ProgressInterval / time.Duration(parts)
	if h.tick.IsZero() {
		h.tick = now.Add(wait)
	}
	if now.Before(h.tick) {
		h.mu.Unlock()
		return
	}
	h.tick = now.Add(wait)
	due := h.core.ticks((n + parts - 1) / parts)
	revision := h.core.cursor - 1
	h.mu.Unlock()
	for _, w := range due {
		s := w.stream
		s.mu.Lock()
		if !w.closed && s.box.admits() {
			s.box.control(w, Response{ID: w.id, Revision: revision, Progress: true})
			s.wakeLocked()
		}
		s.mu.Unlock()
	}
}

func (h *Hub) stopRequested() error {
	h.inbox.Lock()
	defer h.inbox.Unlock()
	return h.inbox.stop
}

// finish ends every watch with reason, and the hub.
func (h *Hub) finish(reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = reason
	for s := range h.streams {
		s.mu.Lock()
		s.ended = reason
		ws := make([]*watch, 0, len(s.watches))
		for _, w := range s.watches {
			ws = append(ws, w)
		}
		s.mu.Unlock()
		slices.SortFunc(ws, func(a, b *watch) int { return cmp.Compare(a.id, b.id) })
		for _, w := range ws {
			h.endLocked(w, reason)
		}
		s.mu.Lock()
		if s.room != nil {
			close(s.room)
			s.room = nil
		}
		s.wakeLocked()
		s.mu.Unlock()
	}
	clear(h.streams)
	h.queue.activate(false)
}

// endLocked ends one watch with reason; the hub's lock is held. What was handed
// to its stream is read before.
func (h *Hub) endLocked(w *watch, reason error) {
	s := w.stream
	position := h.core.position(w)
	if !w.added {
		position = w.next - 1
	}
	h.core.remove(w)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.closed {
		s.finishLocked(w, Response{Revision: position, Reason: reason})
	}
}

func (h *Hub) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Stats is a snapshot of a hub.
type Stats struct {
	Watches    int
	Streams    int
	Lagging    int    // watches that are fed from history
	Cursor     int64  // first revision not handed out to live watches
	QueueBytes int    // published, not handed out
	QueueDrops uint64 // times the queue was emptied because it was full
}

// Stats returns the hub's figures.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := Stats{
		Watches: h.core.index.Len(), Streams: len(h.streams),
		Lagging: h.core.lag, Cursor: h.core.cursor,
	}
	h.queue.mu.Lock()
	defer h.queue.mu.Unlock()
	st.QueueBytes, st.QueueDrops = h.queue.bytes, h.queue.drops
	return st
}

// Watching returns how many watches want a key of a range. It visits all.
func (h *Hub) Watching(keys anchormesh.KeyRange) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.watchesLocked() {
		if w.added && !w.gone && w.entry.Range().Overlaps(keys) {
			n++
		}
	}
	return n
}
