package host

import "github.com/anchormesh/anchormesh"

// Installing is how many replicas are on their way here.
func (h *Host) Installing() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.awaiting)
}

// Holds reports whether a replica of the segment is here or on its way.
func (h *Host) Holds(segment anchormesh.SegmentID) bool {
	if _, here := h.Get(segment); here {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, waits := h.awaiting[segment]
	return waits
}

// Leaving reports whether the node is being drained.
func (h *Host) Leaving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dir.Record().Leaving
}

// SetLeaving notes whether the node is being drained, across restarts.
func (h *Host) SetLeaving(leaving bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.dir.Record()
	if rec.Leaving == leaving {
		return nil
	}
	rec.Leaving = leaving
	return h.dir.Save(rec)
}
