package host

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Recover lets a segment whose majority is lost for good begin anew: with the replica
// here alone, in a new generation, and with all that its log holds, committed or not. What
// the others had and this one has not is lost; the lineage says that it may be. The old
// replicas find themselves retired when they hear of it. Whoever calls has made sure that
// nobody else does, and that the group does not work.
func (h *Host) Recover(segment anchormesh.SegmentID, rule lineage.Rule, why lineage.Evidence) (*anchormesh.Descriptor, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.Get(segment)
	if !ok || h.closed {
		return nil, fmt.Errorf("segment %s: %w", segment, consensus.ErrNoGroup)
	}
	if !rule.Decision.IsZero() && r.Machine.State().RecoveredBy(rule.Decision) {
		return r.Machine.Descriptor(), nil
	}
	if r.Machine.State().Frozen() {
		return nil, fmt.Errorf("%w: segment %s is being merged", machine.ErrRefused, segment)
	}
	h.engine.StopGroup(segment)
	tail, dropped, err := h.takeTail(segment, r)
	if err != nil {
		return nil, err
	}
	at, err := h.behindLog(segment)
	if err != nil {
		return nil, err
	}
	why.Numbers = []uint64{tail, dropped}
	next, err := r.Machine.Recover(h.cfg.Self, at, rule, why)
	if err != nil {
		return nil, err
	}
	h.stopReplica(segment, r, ErrMoved)
	h.cfg.Logger.Warn("a segment begins anew on this node alone; what the other anchors had in addition is lost",
		"segment", segment, "range", next.Descriptor.Range.String(), "generation", next.Descriptor.Generation,
		"index", at.Index, "taken_from_the_log", tail, "dropped", dropped, "operator", why.Operator)
	if err := r.Store.Commit(); err != nil {
		return nil, err
	}
	if err := h.engine.RestartLog(segment, wal.Mark{Index: at.Index, Term: at.Term}); err != nil {
		return nil, err
	}
	again, ok := r.Store.Segment(segment)
	if !ok {
		return nil, fmt.Errorf("segment %s: its store lost it while its replica was stopped", segment)
	}
	replica, _ := h.replicaOf(next)
	return next.Descriptor, h.run(r.Store, again, replica, true)
}

// takeTail applies what the log of a stopped group holds behind the applied index.
func (h *Host) takeTail(segment anchormesh.SegmentID, r *Replica) (taken, dropped uint64, err error) {
	applied, _ := r.Machine.Segment().Applied()
	entries, dropped, err := consensus.Tail(h.log.Group(segment), applied)
	if err != nil {
		return 0, 0, fmt.Errorf("segment %s: %w", segment, err)
	}
	for i := range entries {
		r.Machine.Apply(&entries[i], false)
		if r.Machine.State().Frozen() {
			return 0, 0, fmt.Errorf("%w: segment %s is being merged", machine.ErrRefused, segment)
		}
	}
	return uint64(len(entries)), dropped, nil
}

// behindLog is a place that no entry and no vote of the old log reaches.
func (h *Host) behindLog(segment anchormesh.SegmentID) (lineage.Place, error) {
	log := h.log.Group(segment)
	last, err := log.LastIndex()
	if err != nil {
		return lineage.Place{}, fmt.Errorf("segment %s: %w", segment, err)
	}
	term, err := log.Term(last)
	if err != nil {
		return lineage.Place{}, fmt.Errorf("segment %s: %w", segment, err)
	}
	return lineage.Place{Index: last + 1, Term: max(term, log.InitialHardState().GetTerm()) + 1}, nil
}

// recovered returns where the log of a segment begins that began anew here, if its state
// has come no further.
func recovered(segment *mvcc.Segment) (wal.Mark, bool) {
	meta := segment.Meta()
	state, err := machine.DecodeState(meta.State)
	if err != nil {
		return wal.Mark{}, false // whoever opens it says so
	}
	last := state.Chain.Last()
	return wal.Mark{Index: meta.Applied, Term: meta.Term}, last.Kind == lineage.Recovered && last.Index == meta.Applied
}
