package watch

import "slices"

// mark is a request to say in a watch's own flow: everything at or below rev has
// come.
type mark struct {
	w   *watch
	at  int64 // what the watch must have been handed first
	rev int64
}

// marksPerWatch bounds the requests that wait for one watch: the oldest, so that a
// watch that lags while more are asked for brings one at all, and the newest.
const marksPerWatch = 2

// mark hands requests to the hub's goroutine.
func (h *Hub) mark(ms []mark) {
	if len(ms) == 0 {
		return
	}
	h.inbox.Lock()
	h.inbox.marks = append(h.inbox.marks, ms...)
	h.inbox.Unlock()
	h.nudge()
}

// fileMark keeps a request until the watch got so far.
func (h *Hub) fileMark(m mark) {
	if m.w.marks < marksPerWatch {
		m.w.marks++
		h.marking = append(h.marking, m)
		return
	}
	newest := len(h.marking) - 1
	for h.marking[newest].w != m.w {
		newest--
	}
	old := &h.marking[newest]
	old.at, old.rev = max(old.at, m.at), max(old.rev, m.rev)
}

// placeMarks queues the marks whose turn it is. It runs between steps, when all that
// a position claims is in the streams' outboxes.
func (h *Hub) placeMarks() {
	if len(h.marking) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marking = slices.DeleteFunc(h.marking, func(m mark) bool {
		done := h.placeLocked(m)
		if done {
			m.w.marks--
		}
		return done
	})
}

// placeLocked reports whether the request is done with.
func (h *Hub) placeLocked(m mark) bool {
	w := m.w
	if w.added && !w.gone && h.core.position(w) < m.at {
		return false
	}
	s := w.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.closed:
		return true
	case !w.added:
		return false // between its Created response and the index
	}
	s.box.mark(w, m.rev)
	s.wakeLocked()
	return true
}
