package host

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Forgetful is a replica here that may have forgotten what it acknowledged: its segment is
// light, and the machine stopped before all of it was on disk. It does not run, and
// never will: it has to be removed from its group, and a new one takes its place.
type Forgetful struct {
	Segment anchormesh.SegmentID
	Replica anchormesh.ReplicaID // 0: whichever the segment names on this node
	// State is what was on disk; nil if nothing was.
	State   *machine.State
	Applied uint64 // log index of State
	// Left is where its log ends, or its store where that is ahead.
	Left keeper.Position
}

// recall finds out, before any replica is opened, whether the machine was stopped since
// the last start, and which replicas may have forgotten something then. The answer is on
// disk before it is used: a second start would not come to it again. What is only still to
// be dropped is of a replica that was given up: nobody waits for its word.
func (h *Host) recall() error {
	rec := h.dir.Record()
	stopped := rec.Boot != h.cfg.Boot || h.log.Lost()
	if stopped {
		for _, id := range h.log.Groups() {
			if _, known := rec.Forgotten[id]; !known && !rec.Dropping[id] && h.log.Group(id).Memory() {
				rec.Forgotten[id] = 0
			}
		}
	}
	if rec.Boot == h.cfg.Boot && len(rec.Forgotten) == len(h.dir.Record().Forgotten) {
		return nil
	}
	rec.Boot = h.cfg.Boot
	return h.dir.Save(rec)
}

// forgot keeps a present replica from running that may have forgotten something. It
// reports whether that is so.
func (h *Host) forgot(segment *mvcc.Segment, id anchormesh.ReplicaID, state *machine.State) (bool, error) {
	rec := h.dir.Record()
	known, forgotten := rec.Forgotten[segment.ID()]
	if !forgotten {
		return false, nil
	}
	if known != 0 && id > known { // it began anew as that one, and was stopped before it noted so
		return false, h.remember(segment.ID())
	}
	left, err := h.ends(segment.ID(), segment.Meta())
	if err != nil {
		return true, err
	}
	f := Forgetful{Segment: segment.ID(), Replica: id, State: state, Applied: segment.Meta().Applied, Left: left}
	h.forgetful[f.Segment] = f
	h.table.Learn(state.Descriptor) // a hint, for who looks for the segment
	h.cfg.Logger.Warn("the machine was stopped: a replica of a light segment may have forgotten what it acknowledged, and gives way to a new one",
		"segment", f.Segment, "replica", id, "applied", f.Applied, "log", f.Left.Index)
	if known == id {
		return true, nil
	}
	rec.Forgotten[f.Segment] = id
	return true, h.dir.Save(rec)
}

// Forgotten returns the replicas here that may have forgotten what they acknowledged,
// and that their groups still count, as far as is known; by segment.
func (h *Host) Forgotten() (out []Forgetful) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.dir.Record()
	for _, id := range slices.Sorted(maps.Keys(rec.Forgotten)) {
		f, here := h.forgetful[id]
		if !here {
			f = Forgetful{Segment: id, Replica: rec.Forgotten[id]}
		}
		out = append(out, f)
	}
	return out
}

// ReleaseGone gives up what is left of forgetful replicas whose segments are no more, as
// far as is known here: those were merged after their groups had let the replicas go, and
// nobody is left who would say so.
func (h *Host) ReleaseGone() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	forgotten := h.dir.Record().Forgotten
	for _, id := range slices.Sorted(maps.Keys(forgotten)) {
		if !h.isGone(id) {
			continue
		}
		h.cfg.Logger.Info("a replica that may have forgotten something is of a segment that is no more", "segment", id, "replica", forgotten[id])
		if err := h.release(id, forgotten[id]); err != nil {
			return err
		}
	}
	return nil
}

// isGone reports whether a forgetful replica's segment was merged. Where a state is left, it
// is known here until it is buried; where none is, it may be one that was not heard of yet.
func (h *Host) isGone(id anchormesh.SegmentID) bool {
	if _, left := h.forgetful[id]; left {
		_, known := h.table.Segment(id)
		return !known
	}
	_, buried := h.table.Tombstone(id)
	return buried
}

// superseded takes a descriptor of a segment of which a replica here is forgetful. It
// reports whether the segment may have a new replica here. Caller holds mu.
func (h *Host) superseded(d *anchormesh.Descriptor, current bool) (free bool, err error) {
	rec := h.dir.Record()
	id, forgotten := rec.Forgotten[d.Segment]
	if !forgotten {
		return true, nil
	}
	mine, named := d.AnchorOn(h.cfg.Self)
	f := h.forgetful[d.Segment]
	switch {
	case current && named && id == 0: // the state is gone with the rest
		rec.Forgotten[d.Segment] = mine.Replica
		return false, h.dir.Save(rec)
	case current && (named && mine.Replica <= id || f.State != nil && !d.Newer(f.State.Descriptor)):
		return false, nil
	}
	h.cfg.Logger.Info("a replica that may have forgotten something is out of its group", "segment", d.Segment, "replica", id)
	return true, h.release(d.Segment, id)
}

// release gives up what is left of a forgetful replica. Caller holds mu.
func (h *Host) release(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	rec := h.dir.Record()
	rec.Retired[segment], rec.Dropping[segment] = max(rec.Retired[segment], id), true
	delete(rec.Forgotten, segment)
	delete(rec.Keepers, segment)
	delete(rec.Installed, segment)
	delete(rec.Frozen, segment)
	if err := h.dir.Save(rec); err != nil {
		return err
	}
	return h.clear(segment)
}

// clear drops what is left of a forgetful replica. Caller holds mu.
func (h *Host) clear(segment anchormesh.SegmentID) error {
	rec := h.dir.Record()
	f, here := h.forgetful[segment]
	switch {
	case !here:
		return h.drop(segment)
	case !rec.Dropping[segment]:
		rec.Dropping[segment] = true
		if err := h.dir.Save(rec); err != nil {
			return err
		}
	}
	delete(h.forgetful, segment)
	store, err := h.openStore(fileOf(f.State.Descriptor))
	if err != nil {
		return err
	}
	return h.discard(store, segment)
}

// clearOverlapping drops the data of forgetful replicas whose keys an offered snapshot
// holds: whoever offers it knows better who governs them. What its segment has absorbed is
// given up whole, for nobody is left who would speak of it. Caller holds mu.
func (h *Host) clearOverlapping(d *anchormesh.Descriptor) error {
	for _, id := range slices.Sorted(maps.Keys(h.forgetful)) {
		f := h.forgetful[id]
		if id == d.Segment || !f.State.Descriptor.Range.Overlaps(d.Range) {
			continue
		}
		give := h.clear
		if absorbs(d, f.State.Descriptor) {
			give = func(id anchormesh.SegmentID) error { return h.release(id, f.Replica) }
		}
		if err := give(id); err != nil {
			return err
		}
	}
	return nil
}

// forbidden refuses a replica ID that was forgotten or given up. Caller holds mu.
func (h *Host) forbidden(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	rec := h.dir.Record()
	forgotten, is := rec.Forgotten[segment]
	if id <= rec.Retired[segment] || is && (forgotten == 0 || id <= forgotten) {
		return fmt.Errorf("segment %s replica %d: %w", segment, id, ErrRetired)
	}
	return nil
}
