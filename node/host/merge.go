package host

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// ErrMerged ends the watches of a segment that was merged into another.
	ErrMerged = errors.New("the segment was merged into its left neighbour")
	// ErrNotFrozen says that the replica here has not applied the freeze of an attempt.
	ErrNotFrozen = errors.New("the replica here is not frozen by that attempt")
)

// Confirm makes sure that a replica here is frozen by an attempt to merge, and that
// a crash does not change that: whatever the group's others do then, this node can
// apply the absorb. The errors are consensus.ErrNoGroup's kind, ErrNotFrozen and the
// disk's.
func (h *Host) Confirm(segment anchormesh.SegmentID, n merge.Attempt) error {
	r, ok := h.Get(segment)
	if !ok {
		return fmt.Errorf("segment %s: %w", segment, ErrNotFrozen)
	}
	if s := r.Machine.State(); !s.Frozen() || s.Right.By != n {
		return fmt.Errorf("segment %s: %w", segment, ErrNotFrozen)
	}
	index, _ := r.Machine.Segment().Applied()
	failpoint.Hit("merge/before-confirm")
	if err := h.noteFrozen(segment, r); err != nil {
		return err
	}
	failpoint.Hit("merge/noted")
	if err := r.Store.Commit(); err != nil {
		return err
	}
	failpoint.Hit("merge/confirmed")
	if r.Machine.Segment().Durable() < index {
		return fmt.Errorf("segment %s was decided meanwhile: %w", segment, ErrNotFrozen)
	}
	return nil
}

// noteFrozen notes that the state of a replica may go into another's without a word:
// its log without a state is the end of a merge then.
func (h *Host) noteFrozen(segment anchormesh.SegmentID, r *Replica) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now, ok := h.Get(segment); !ok || now != r {
		return fmt.Errorf("segment %s: %w", segment, ErrNotFrozen)
	}
	rec := h.dir.Record()
	if rec.Frozen[segment] == r.ID {
		return nil
	}
	rec.Frozen[segment] = r.ID
	return h.dir.Save(rec)
}

// thawed takes the note back; a replica that its group removed meanwhile leaves.
func (h *Host) thawed(segment anchormesh.SegmentID, r *Replica) {
	h.mu.Lock()
	rec := h.dir.Record()
	if now, ok := h.Get(segment); ok && now == r && !r.Machine.State().Frozen() && rec.Frozen[segment] != 0 {
		delete(rec.Frozen, segment)
		if err := h.dir.Save(rec); err != nil {
			h.cfg.Logger.Error("node record", "err", err)
		}
	}
	h.mu.Unlock()
	if _, stays := h.replicaOf(r.Machine.State()); !stays {
		h.leave(segment)
	}
}

// surrendering finds the machine that a left neighbour is about to absorb; it runs on
// the left's apply goroutine.
func (h *Host) surrendering(segment anchormesh.SegmentID) *machine.Machine {
	r, ok := h.Get(segment)
	if !ok {
		return nil
	}
	r.Hub.Stop(ErrMerged)
	return r.Machine
}

// absorbed follows an applied merge; it runs on the left's apply goroutine. What is
// left of the right goes on another: its group may be applying right now, and its log
// must stay until the store holds the merge (counterexample 5c).
func (h *Host) absorbed(left *Replica, c machine.Change) {
	d, gone := c.State.Descriptor, c.Absorbed.Descriptor
	h.cfg.Logger.Info("segments were merged", "segment", d.Segment, "generation", d.Generation, "index", d.Changed,
		"range", d.Range.String(), "absorbed", gone.Segment)
	left.Hub.Bound(d.Range, ErrSplit)
	h.table.Bury(anchormesh.Tombstone{
		Segment: gone.Segment, Generation: gone.Generation, Range: gone.Range, Successors: []anchormesh.SegmentID{d.Segment},
	})
	if right, ok := h.Get(gone.Segment); ok {
		h.running.Go(func() { h.letGo(left, gone.Segment, right, c.Place.Index) })
	}
}

// letGo stops a replica that was absorbed and, once the store holds the merge, drops
// its log.
func (h *Host) letGo(left *Replica, segment anchormesh.SegmentID, right *Replica, index uint64) {
	if !h.ifOpen(func() error {
		if now, ok := h.Get(segment); ok && now == right {
			h.stopReplica(segment, right, ErrMerged)
		}
		return nil
	}) {
		return // the next start goes on
	}
	failpoint.Hit("merge/before-commit")
	if err := left.Store.Commit(); err != nil {
		return // the store has failed: its own committer stops the node
	}
	if left.Machine.Segment().Durable() < index {
		return // absorbed or replaced itself: the next start drops the log
	}
	failpoint.Hit("merge/before-drop")
	h.ifOpen(func() error {
		if err := h.retired(segment, right.ID); err != nil {
			return err
		}
		return h.drop(segment)
	})
}

// ifOpen runs f unless the host is closed, and reports whether it went well.
func (h *Host) ifOpen(f func() error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	err := f()
	if err != nil {
		h.cfg.Logger.Error("what is left of a merged segment cannot be given up; the next start tries again", "err", err)
	}
	return err == nil
}

// Stray returns the replicas here whose keys are routed to later segments: they were
// absorbed while this node was no anchor of their left any more, or are about to be,
// or the route is wrong. Those that a left neighbour here may still need are not named.
func (h *Host) Stray() (out []*Replica) {
	for _, id := range h.Segments() {
		r, here := h.Get(id)
		if !here {
			continue
		}
		s := r.Machine.State()
		now, ok := h.table.Lookup(s.Descriptor.Range.Start)
		if !ok || now.Segment == id || now.Generation <= s.Descriptor.Generation || h.Holds(now.Segment) {
			continue // as it should be, or absorbed here, sooner or later
		}
		if h.mu.Lock(); !h.needed(r) {
			out = append(out, r)
		}
		h.mu.Unlock()
	}
	return out
}

// Superseded gives up a replica whose first key belongs to a later segment, by the
// word of that segment's own log.
func (h *Host) Superseded(r *Replica) {
	id := r.Machine.Descriptor().Segment
	if err := h.Retire(id, r.ID); err != nil {
		h.cfg.Logger.Error("a merged replica cannot be given up", "segment", id, "err", err)
	}
}

// needed reports whether a left neighbour on this node may still have to absorb a
// replica. One whose state is behind the attempt does not: it came there by a snapshot,
// or the attempt was aborted. What it absorbed itself is not in the store any more, and
// is letGo's, for the absorb may not be on disk yet. mu is held.
func (h *Host) needed(r *Replica) bool {
	s := r.Machine.State()
	if !s.Frozen() {
		return false
	}
	id := s.Right.Pair.Left.Segment
	left, held := h.Get(id)
	if !held {
		_, awaited := h.awaiting[id]
		return awaited
	}
	if now := left.Machine.State(); now.Left.Judge(merge.Place{Generation: now.Descriptor.Generation}, s.Right.By) == merge.Undecided {
		return true
	}
	_, present := r.Store.Segment(s.Descriptor.Segment)
	return !present
}

// makeRoom gives up the replicas here that a snapshot's segment absorbed, after it has
// refused the snapshot if others are in its way: they have not applied yet that they
// lost the keys, or lost their own place in their group and do not know. The leader
// offers the snapshot again. mu is held.
//
// A replica here may have the absorb of its right neighbour still before it, and needs
// that one: so they go in key order, and the snapshot's own segment before all. Where the
// merged segment was cut again where its right had begun, the snapshot is of the new right
// part, and the left is none of them: the snapshot waits until the left has come that far.
func (h *Host) makeRoom(d *anchormesh.Descriptor) error {
	var stale []*Replica
	for _, id := range h.Segments() {
		r, here := h.Get(id)
		if !here {
			continue
		}
		held := r.Machine.Descriptor()
		if id == d.Segment || !held.Range.Overlaps(d.Range) {
			continue
		}
		if !absorbs(d, held) {
			return fmt.Errorf("segment %s %s: segment %s holds %s here: %w", d.Segment, d.Range, id, held.Range, ErrOverlap)
		}
		if bytes.Equal(held.Range.Start, d.Range.Start) && h.needed(r) {
			return fmt.Errorf("segment %s %s: segment %s has still to be absorbed here: %w", d.Segment, d.Range, id, ErrOverlap)
		}
		stale = append(stale, r)
	}
	if len(stale) == 0 {
		return nil
	}
	if left, ok := h.Get(d.Segment); ok {
		h.stopReplica(d.Segment, left, ErrMoved)
		into, err := left.Store.Install(d.Segment, left.Machine.Descriptor().Range)
		if err != nil {
			return err
		}
		into.Abort() // absent from now on, also after a crash
	}
	slices.SortFunc(stale, func(a, b *Replica) int {
		return bytes.Compare(a.Machine.Descriptor().Range.Start, b.Machine.Descriptor().Range.Start)
	})
	for _, r := range stale {
		id := r.Machine.Descriptor().Segment
		if now, here := h.Get(id); !here || now != r {
			continue // absorbed by the one before it a moment ago: what is left of it goes by itself
		}
		h.cfg.Logger.Info("replica of a merged segment gives way", "segment", id, "to", d.Segment)
		if err := h.retired(id, r.ID); err != nil {
			return err
		}
		h.stopReplica(id, r, ErrMerged)
		if err := h.discard(r.Store, id); err != nil {
			return err
		}
	}
	return nil
}

// absorbs reports whether a segment, as its own log says, is the end of another one:
// a segment keeps its first key as long as it lives, so who holds that key in a higher
// generation has absorbed it, or something that had.
func absorbs(now, was *anchormesh.Descriptor) bool {
	return now.Segment != was.Segment && now.Generation > was.Generation && now.Range.Contains(was.Range.Start)
}

// brings reports whether a snapshot has something for a replica here that is frozen:
// only that it was thawed would be news, and a left neighbour may need it right now.
func brings(r *Replica, offered *machine.State) bool {
	now := r.Machine.State()
	return !now.Frozen() || !offered.Frozen() || offered.Right.By != now.Right.By
}

// gone reports whether a hub ended because its segment was absorbed or removed while
// it read.
func gone(err error) bool { return errors.Is(err, mvcc.ErrGone) }
