package host

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Await prepares for a replica that will come as a snapshot. It is harmless to
// repeat.
func (h *Host) Await(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.forbidden(segment, id); err != nil {
		return err
	}
	if r, ok := h.Get(segment); ok {
		if r.ID == id {
			return nil
		}
		return fmt.Errorf("segment %s: replica %d still runs here", segment, r.ID)
	}
	h.awaiting[segment] = id
	h.engine.Await(segment, id)
	return nil
}

// replicaOf finds this node's replica in a state, those leaving included.
func (h *Host) replicaOf(state *machine.State) (anchormesh.ReplicaID, bool) {
	for id, node := range state.Peers() {
		if node == h.cfg.Self {
			return id, true
		}
	}
	return 0, false
}

// hush ends the votes for a replica without state that is about to start. Caller holds mu.
func (h *Host) hush(segment anchormesh.SegmentID) {
	if _, waits := h.awaiting[segment]; waits {
		h.engine.Hush(segment)
	}
}

// Descriptor takes a hint in, and acts if it concerns this node: a replica that
// the group knows and this node has no state of is awaited, one that the group
// removed is retired. Of a segment that is no more, its keys being routed to later
// ones or a tombstone known, nothing is awaited.
//
// While the configuration is joint, a replica that is not named any more still
// counts in the outgoing majority. It stays until the descriptor behind the change
// comes: were two of three replaced at once and gone at the first word of it, the
// majority that has to end the change would be gone with them.
func (h *Host) Descriptor(d *anchormesh.Descriptor) error {
	h.table.Learn(d)
	d, ok := h.newest(d)
	if free, err := h.recovers(d, ok); err != nil || !free {
		return err
	}
	if !ok {
		h.giveUp(d.Segment)
		return nil
	}
	mine, named := d.AnchorOn(h.cfg.Self)
	running, ok := h.Get(d.Segment)
	if ok && !d.Joint && d.Newer(running.Machine.Descriptor()) && (!named || mine.Replica > running.ID) {
		if err := h.Retire(d.Segment, running.ID); err != nil {
			return err
		}
		ok = false
	}
	switch {
	case ok:
		return nil
	case named:
		return h.Await(d.Segment, mine.Replica)
	}
	h.giveUp(d.Segment)
	return nil
}

// newest returns what the table knows of a segment; ok is false if it is no more.
func (h *Host) newest(d *anchormesh.Descriptor) (newest *anchormesh.Descriptor, ok bool) {
	if newest, ok = h.table.Segment(d.Segment); ok {
		return newest, true
	}
	return d, false
}

// giveUp ends the wait for a replica that the group wants no more.
func (h *Host) giveUp(segment anchormesh.SegmentID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, waits := h.awaiting[segment]; waits {
		delete(h.awaiting, segment)
		h.engine.StopGroup(segment)
	}
}

// Retire gives a replica up for good. Everybody must know already that it left:
// its state and its votes are gone afterwards. One that is frozen stays while a left
// neighbour here may have to absorb it.
func (h *Host) Retire(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	running, ok := h.Get(segment)
	if !ok || running.ID != id || h.needed(running) {
		return nil
	}
	h.cfg.Logger.Info("replica retires from this node", "segment", segment, "replica", id)
	if err := h.retired(segment, id); err != nil {
		return err
	}
	h.stopReplica(segment, running, ErrMoved)
	store, err := h.openStore(fileOf(running.Machine.Descriptor()))
	if err != nil {
		return err
	}
	return h.discard(store, segment)
}

// retired notes for good that a replica may not come back, and that what is left of it is
// to go: discard or drop comes next.
func (h *Host) retired(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	rec := h.dir.Record()
	rec.Retired[segment], rec.Dropping[segment] = max(rec.Retired[segment], id), true
	delete(rec.Installed, segment)
	delete(rec.Frozen, segment)
	delete(rec.Forgotten, segment)
	delete(rec.Keepers, segment)
	return h.dir.Save(rec)
}

// recovers is superseded for who does not hold mu.
func (h *Host) recovers(d *anchormesh.Descriptor, current bool) (free bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.superseded(d, current)
}

func (h *Host) stopReplica(segment anchormesh.SegmentID, r *Replica, reason error) {
	h.hold(segment, nil)
	h.engine.StopGroup(segment)
	r.Hub.Stop(reason)
}

// discard drops the state of a replica that is not to be, and its log if that was retired: a
// log that is there without it holds what the next replica has promised.
func (h *Host) discard(store *mvcc.Store, segment anchormesh.SegmentID) error {
	if err := store.Remove(segment); err != nil {
		return err
	}
	return h.drop(segment)
}

// drop drops the log of a retired replica.
func (h *Host) drop(segment anchormesh.SegmentID) error {
	if !h.dir.Record().Dropping[segment] {
		return nil
	}
	if err := h.engine.DropLog(segment); err != nil {
		return err
	}
	rec := h.dir.Record()
	delete(rec.Dropping, segment)
	return h.dir.Save(rec)
}

// Offer describes a snapshot that another node wants to install here.
type Offer struct {
	To   anchormesh.ReplicaID
	Meta mvcc.Meta
}

// Installing is an installation under way.
type Installing struct {
	host    *Host
	segment anchormesh.SegmentID
	id      anchormesh.ReplicaID
	meta    mvcc.Meta
	store   *mvcc.Store
	into    *mvcc.Installer
}

// Install begins to install an offered snapshot. It returns nil if the replica
// has everything the snapshot holds already.
//
// The old log is dropped with what it holds above the snapshot. That is safe:
// if the log has another term at the snapshot's index, or ends before it,
// nothing above was ever acknowledged as part of the committed log; if it has
// the same term there, the snapshot is not needed and nil is returned.
func (h *Host) Install(o Offer) (*Installing, error) {
	state, err := machine.DecodeState(o.Meta.State)
	if err != nil {
		return nil, err
	}
	d := state.Descriptor
	if state.Peers()[o.To] != h.cfg.Self {
		return nil, fmt.Errorf("segment %s replica %d: %w", d.Segment, o.To, ErrNotInvited)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.superseded(d, true); err != nil {
		return nil, err
	}
	if err := h.forbidden(d.Segment, o.To); err != nil {
		return nil, err
	}
	if err := h.clearOverlapping(d); err != nil {
		return nil, err
	}
	at := wal.Mark{Index: o.Meta.Applied, Term: o.Meta.Term}
	if err := h.refuseOlder(d.Segment, at); err != nil {
		return nil, err
	}
	r, running := h.Get(d.Segment)
	if running && (h.has(d.Segment, at) || !brings(r, state)) {
		return nil, nil
	}
	if err := h.makeRoom(d); err != nil {
		return nil, err
	}
	r, running = h.Get(d.Segment)
	store, err := h.openStore(fileOf(d))
	if err != nil {
		return nil, err
	}
	if _, present := store.Segment(d.Segment); present && !running {
		return nil, fmt.Errorf("segment %s: %w", d.Segment, ErrBegins)
	}
	if running {
		h.stopReplica(d.Segment, r, ErrMoved)
		// Entries that were on their way to the log when it was looked at are in
		// it now, and their acknowledgements are sent: they must not be dropped.
		if h.has(d.Segment, at) {
			return nil, h.resume(store, d.Segment, r.ID)
		}
	}
	failpoint.Hit("snapshot/before-clear")
	h.awaiting[d.Segment] = o.To // it may still have to absorb a neighbour: see needed
	into, err := store.Install(d.Segment, d.Range)
	if err != nil {
		return nil, err
	}
	return &Installing{host: h, segment: d.Segment, id: o.To, meta: o.Meta, store: store, into: into}, nil
}

// refuseOlder refuses a snapshot from before the beginning of the log of a
// replica without state: an installation that was cut short restarted the log at
// a later place. The leader offers a newer one soon.
func (h *Host) refuseOlder(id anchormesh.SegmentID, at wal.Mark) error {
	if _, running := h.Get(id); running {
		return nil // what lies before the log of a running replica is not needed
	}
	first, err := h.log.Group(id).FirstIndex()
	if err != nil {
		return fmt.Errorf("segment %s: %w", id, err)
	}
	if first > at.Index+1 {
		return fmt.Errorf("segment %s: the snapshot ends at log index %d, the log here begins at %d: %w", id, at.Index, first, ErrOlder)
	}
	return nil
}

// resume starts a replica again that was stopped and has lost nothing.
func (h *Host) resume(store *mvcc.Store, id anchormesh.SegmentID, replica anchormesh.ReplicaID) error {
	if err := store.Commit(); err != nil {
		return err
	}
	segment, ok := store.Segment(id)
	if !ok {
		return fmt.Errorf("segment %s: its store lost it while its replica was stopped", id)
	}
	return h.run(store, segment, replica, false)
}

// has reports whether the log already holds, or has left behind, a position.
func (h *Host) has(segment anchormesh.SegmentID, at wal.Mark) bool {
	log := h.log.Group(segment)
	first, err := log.FirstIndex()
	if err != nil || at.Index+1 < first {
		return err == nil
	}
	term, err := log.Term(at.Index)
	return err == nil && term == at.Term
}

// Add writes one chunk.
func (i *Installing) Add(chunk []byte) error { return i.into.Add(chunk) }

// Finish makes the replica present and starts it.
func (i *Installing) Finish() error {
	h := i.host
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hush(i.segment)
	// A log that holds the snapshot's last entry goes on behind it: what follows
	// there may have been acknowledged before the replica lost its state.
	failpoint.Hit("snapshot/before-restart")
	if at := (wal.Mark{Index: i.meta.Applied, Term: i.meta.Term}); !h.has(i.segment, at) {
		if err := h.engine.RestartLog(i.segment, at); err != nil {
			return err
		}
	}
	if err := h.installed(i.segment, i.meta.Applied); err != nil {
		return err
	}
	failpoint.Hit("snapshot/before-finish")
	segment, err := i.into.Finish(i.meta)
	if err != nil {
		return err
	}
	failpoint.Hit("snapshot/before-run")
	h.cfg.Logger.Info("replica installed from a snapshot", "segment", i.segment, "replica", i.id, "index", i.meta.Applied)
	return h.run(i.store, segment, i.id, false)
}

// installed notes what a replica that is about to be present did not apply itself.
func (h *Host) installed(segment anchormesh.SegmentID, index uint64) error {
	rec := h.dir.Record()
	rec.Installed[segment] = index
	return h.dir.Save(rec)
}

// Abort leaves the replica absent; the leader will offer another snapshot.
func (i *Installing) Abort() {
	i.into.Abort()
	if err := i.host.Await(i.segment, i.id); err != nil {
		i.host.cfg.Logger.Warn("replica cannot be awaited", "segment", i.segment, "err", err)
	}
}
