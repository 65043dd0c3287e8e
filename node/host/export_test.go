package host

import "github.com/anchormesh/anchormesh"

// StopAndResume does what Install does when it finds, after it stopped a replica,
// that its log has everything the snapshot holds.
func (h *Host) StopAndResume(segment anchormesh.SegmentID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.Get(segment)
	if !ok {
		return ErrNotInvited
	}
	h.stopReplica(segment, r, ErrMoved)
	return h.resume(r.Store, segment, r.ID)
}

// Awaits reports whether a replica of the segment is waited for.
func (h *Host) Awaits(segment anchormesh.SegmentID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, waits := h.awaiting[segment]
	return waits
}
