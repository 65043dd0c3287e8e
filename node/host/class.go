package host

import (
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/machine"
)

// class is what a replica's acknowledgements mean, as its log says.
//
// A replica that starts acknowledges what is on disk only, whatever its stored state
// says: the log behind that may hold the entry by which the segment is light no more,
// and may have been acknowledged as such. Once it has applied the log it started with,
// the state in force decides.
type class struct {
	mu     sync.Mutex
	caught bool // the log that was there at the start is applied
	light  bool // what the state says
	told   bool // what the engine was told
	acks   consensus.Acks
	lane   laneOf // what the engine was told
}

// laneOf is which groups share the way to the disk with this one, and how wide it is.
type laneOf struct {
	scope  string
	weight int
}

// classed follows the class of a segment; it runs on the apply goroutine.
func (h *Host) classed(r *Replica, s *machine.State) {
	r.class.mu.Lock()
	defer r.class.mu.Unlock()
	was := r.class.light
	r.class.light = s.Light()
	h.tellAcks(r, s)
	h.tellLane(r, s)
	h.tellClass(r, s.Descriptor.Segment)
	if was && !s.Light() && r.class.caught {
		h.cfg.Logger.Info("segment is light no more: everything goes to disk", "segment", s.Descriptor.Segment, "class", s.Descriptor.Class, "policy", s.Descriptor.Policy)
	} else if !was && s.Light() {
		h.cfg.Logger.Info("segment is light: writes are acknowledged from memory", "segment", s.Descriptor.Segment, "policy", s.Descriptor.Policy)
	}
}

// caughtUp is called when a replica has applied what was in its log when it started.
func (h *Host) caughtUp(r *Replica, id anchormesh.SegmentID) {
	r.class.mu.Lock()
	defer r.class.mu.Unlock()
	r.class.caught = true
	h.tellClass(r, id)
}

// tellClass tells the engine what changed. Caller holds the class.
func (h *Host) tellClass(r *Replica, id anchormesh.SegmentID) {
	if now := r.class.light && r.class.caught; now != r.class.told {
		r.class.told = now
		h.engine.SetLight(id, now, nil)
	}
}

// tellAcks tells the engine how many anchors have to acknowledge a write. Caller holds
// the class.
func (h *Host) tellAcks(r *Replica, s *machine.State) {
	acks := s.Acks()
	if acks == r.class.acks {
		return
	}
	r.class.acks = acks
	h.cfg.Logger.Info("acknowledgements asked for before a writer is answered",
		"segment", s.Descriptor.Segment, "all", acks.All, "count", acks.Count, "policy", s.Descriptor.Policy)
	h.engine.SetAcks(s.Descriptor.Segment, acks)
}

// tellLane tells the engine which scope's share of the disk the segment's log uses. Caller
// holds the class.
func (h *Host) tellLane(r *Replica, s *machine.State) {
	lane := laneOf{scope: string(s.Descriptor.Scope), weight: usualPriority}
	if s.Policy != nil && s.Policy.Priority != 0 {
		lane.weight = s.Policy.Priority
	}
	if lane != r.class.lane {
		r.class.lane = lane
		h.engine.SetLane(s.Descriptor.Segment, lane.scope, lane.weight)
	}
}

// usualPriority is that of scopes that say nothing.
const usualPriority = 5

// followClass begins to follow the class of a replica whose group has just started.
func (h *Host) followClass(r *Replica, id anchormesh.SegmentID) error {
	last, err := h.log.Group(id).LastIndex()
	if err != nil {
		return err
	}
	r.class.mu.Lock()
	h.tellAcks(r, r.Machine.State())
	h.tellLane(r, r.Machine.State())
	r.class.mu.Unlock()
	h.engine.WhenApplied(id, last, func(err error) {
		if err == nil {
			h.caughtUp(r, id)
		}
	})
	return nil
}

// Harden calls done once everything of a replica is on disk; not if the replica stops
// before. It is false, and done is never called, as long as the segment is light, or the
// replica has not applied the log that it started with: ask again.
func (h *Host) Harden(r *Replica, done func()) bool {
	r.class.mu.Lock()
	defer r.class.mu.Unlock()
	if !r.class.caught || r.class.light {
		return false
	}
	h.engine.SetLight(r.Machine.Descriptor().Segment, false, done)
	return true
}
