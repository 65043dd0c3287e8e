package host

import (
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Order says on what terms a segment begins anew here.
type Order struct {
	Rule lineage.Rule
	Why  lineage.Evidence
	// Above is a number of the segment's line that was asked for after the old group
	// could not commit any more; the home of a line needs none.
	Above anchormesh.Revision
	// Times is the how manyth recovery this is: see machine.Recovery.
	Times uint64
	// Generation and Least are what a keeper knows of, which may be somewhat old; zero: an
	// operator decides.
	Generation anchormesh.Generation
	Least      keeper.Position
}

// Recover lets a segment whose majority is lost for good begin anew: with the replica
// here alone, in a new generation, and with all that its log holds, committed or not. What
// the others had and this one has not is lost; the lineage says that it may be. The old
// replicas find themselves retired when they hear of it. The replica here may be one that
// is forgetful itself. Whoever calls has made sure that nobody else does, and that the
// group does not work.
func (h *Host) Recover(segment anchormesh.SegmentID, o Order) (*anchormesh.Descriptor, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, runs := h.Get(segment)
	if h.closed {
		return nil, fmt.Errorf("segment %s: %w", segment, consensus.ErrNoGroup)
	}
	if !runs {
		var err error
		if r, err = h.laidOut(segment); err != nil {
			return nil, err
		}
	}
	state := r.Machine.State()
	if !o.Rule.Decision.IsZero() && state.RecoveredBy(o.Rule.Decision) {
		return state.Descriptor, nil
	}
	if err := h.recoverable(segment, r, &o); err != nil {
		return nil, err
	}
	h.engine.StopGroup(segment)
	at, err := h.behindLog(segment, r)
	if err != nil {
		return nil, err
	}
	tail, dropped, err := h.takeTail(segment, r, !runs || o.Generation > 0)
	if err != nil {
		return nil, err
	}
	if f, is := h.forgetful[segment]; is { // further attempts know what is here
		f.State = r.Machine.State()
		h.forgetful[segment] = f
	}
	o.Why.Numbers = []uint64{tail, dropped}
	next, err := r.Machine.Recover(machine.Recovery{Self: h.cfg.Self, At: at, Above: o.Above, Times: o.Times, Rule: o.Rule, Why: o.Why})
	if err != nil {
		return nil, err
	}
	if runs {
		h.stopReplica(segment, r, ErrMoved)
	}
	h.cfg.Logger.Warn("a segment begins anew on this node alone; what the other anchors had in addition is lost",
		"segment", segment, "range", next.Descriptor.Range.String(), "generation", next.Descriptor.Generation,
		"index", at.Index, "taken_from_the_log", tail, "dropped", dropped, "operator", o.Why.Operator)
	return next.Descriptor, h.beginAnew(segment, r, next, at)
}

// beginAnew makes what was recovered durable, and starts it.
func (h *Host) beginAnew(segment anchormesh.SegmentID, r *Replica, next *machine.State, at lineage.Place) error {
	if err := r.Store.Commit(); err != nil {
		return err
	}
	if err := h.engine.RestartLog(segment, wal.Mark{Index: at.Index, Term: at.Term}); err != nil {
		return err
	}
	if err := h.remember(segment); err != nil {
		return err
	}
	again, ok := r.Store.Segment(segment)
	if !ok {
		return fmt.Errorf("segment %s: its store lost it while its replica was stopped", segment)
	}
	replica, _ := h.replicaOf(next)
	return h.run(r.Store, again, replica, true)
}

// recoverable says why a replica may not begin anew, if it may not.
func (h *Host) recoverable(segment anchormesh.SegmentID, r *Replica, o *Order) error {
	state := r.Machine.State()
	if state.Frozen() {
		return fmt.Errorf("%w: segment %s is being merged", machine.ErrRefused, segment)
	}
	if o.Generation == 0 {
		return nil
	}
	if now := state.Descriptor.Generation; now >= o.Generation+machine.RecoveredGenerations {
		return fmt.Errorf("%w: segment %s has begun anew here since, at generation %d", machine.ErrRefused, segment, now)
	}
	has, err := h.ends(segment, r.Machine.Segment().Meta())
	if err != nil {
		return err
	}
	if has.Less(o.Least) {
		return fmt.Errorf("%w: segment %s ends at %v here, elsewhere at %v", machine.ErrRefused, segment, has, o.Least)
	}
	applied, _ := r.Machine.Segment().Applied()
	entries, _, err := consensus.Tail(h.log.Group(segment), applied, true)
	if err != nil {
		return fmt.Errorf("segment %s: %w", segment, err)
	}
	for i := range entries {
		if slices.ContainsFunc(entries[i].Payloads, machine.Reshapes) {
			return fmt.Errorf("%w: the log of segment %s ends with a split or a merge that no store holds; an operator has to decide", machine.ErrRefused, segment)
		}
	}
	return nil
}

// laidOut opens what is left of a forgetful replica; nobody serves from it.
func (h *Host) laidOut(segment anchormesh.SegmentID) (*Replica, error) {
	f, is := h.forgetful[segment]
	if !is {
		return nil, fmt.Errorf("segment %s: %w", segment, consensus.ErrNoGroup)
	}
	store, err := h.openStore(fileOf(f.State.Descriptor))
	if err != nil {
		return nil, err
	}
	stored, ok := store.Segment(segment)
	if !ok {
		return nil, fmt.Errorf("segment %s: %w", segment, consensus.ErrNoGroup)
	}
	identity := keyspace.Identity{ClusterID: uint64(f.State.Descriptor.Mesh), MemberID: h.cfg.Self.MemberID()}
	space, err := keyspace.NewSpace(stored, identity, h.cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment, err)
	}
	m, err := machine.New(stored, space, h.cfg.Verify, nil)
	if err != nil {
		return nil, err
	}
	return &Replica{ID: f.Replica, Machine: m, Store: store}, nil
}

// takeTail applies what the log of a stopped group holds behind the applied index.
func (h *Host) takeTail(segment anchormesh.SegmentID, r *Replica, over bool) (taken, dropped uint64, err error) {
	applied, _ := r.Machine.Segment().Applied()
	entries, dropped, err := consensus.Tail(h.log.Group(segment), applied, over)
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
func (h *Host) behindLog(segment anchormesh.SegmentID, r *Replica) (lineage.Place, error) {
	end, err := h.ends(segment, r.Machine.Segment().Meta())
	if err != nil {
		return lineage.Place{}, err
	}
	return lineage.Place{Index: end.Index + 1, Term: max(end.Term, h.log.Group(segment).InitialHardState().GetTerm()) + 1}, nil
}

// ends is how far a replica has come: its log, or its store where the machine stopped
// before the log was synced.
func (h *Host) ends(segment anchormesh.SegmentID, stored mvcc.Meta) (keeper.Position, error) {
	log := h.log.Group(segment)
	last, err := log.LastIndex()
	if err != nil {
		return keeper.Position{}, fmt.Errorf("segment %s: %w", segment, err)
	}
	if last <= stored.Applied {
		return keeper.Position{Term: stored.Term, Index: stored.Applied}, nil
	}
	term, err := log.Term(last)
	if err != nil {
		return keeper.Position{}, fmt.Errorf("segment %s: %w", segment, err)
	}
	return keeper.Position{Term: term, Index: last}, nil
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
