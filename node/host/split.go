package host

import (
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// split follows an applied split; it runs on the parent's apply goroutine. The child
// begins on a goroutine of its own: it must not exist in the log before the cut is
// in the store, and the parent must not wait for that.
func (h *Host) split(parent *Replica, c machine.Change) {
	d := c.State.Descriptor
	st, ok := h.engine.Status(d.Segment)
	leads := ok && st.Leads()
	h.cfg.Logger.Info("segment was split", "segment", d.Segment, "generation", d.Generation, "index", d.Changed,
		"boundary", string(d.Range.End), "right", c.Born.Descriptor.Segment)
	h.table.Learn(c.Born.Descriptor)
	h.running.Go(func() { h.birth(parent, c, leads) })
}

// birth starts the right child of a split once the cut is on disk.
func (h *Host) birth(parent *Replica, c machine.Change, leads bool) {
	id := c.Born.Descriptor.Segment
	failpoint.Hit("split/before-commit")
	if err := parent.Machine.Segment().Commit(); err != nil {
		return // the store has failed: its own committer stops the node
	}
	<-c.Child.Synced()
	failpoint.Hit("split/before-birth")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return // the next start goes on
	}
	if err := h.begin(parent.Store, c.Child, leads); err != nil {
		h.cfg.Logger.Error("the child of a split cannot begin; the next start tries again", "segment", id, "err", err)
	}
}

func (h *Host) begin(store *mvcc.Store, child *mvcc.Segment, leads bool) error {
	state, err := machine.DecodeState(child.Meta().State)
	if err != nil {
		return err
	}
	id := child.ID()
	if _, running := h.Get(id); running {
		return nil // the group's leader was faster, with a snapshot
	}
	replica, ok := h.replicaOf(state)
	if !ok || replica <= h.dir.Record().Retired[id] {
		return h.discard(store, id) // the group has removed it meanwhile
	}
	h.hush(id)
	if err := h.beginLog(child); err != nil {
		return err
	}
	failpoint.Hit("split/before-run")
	return h.run(store, child, replica, leads)
}

// beginLog begins the log of a child that has none yet. Its store was synced before,
// and nothing else but a genesis is at the place where a child is born.
func (h *Host) beginLog(segment *mvcc.Segment) error {
	birth, begin := wal.Mark{Index: machine.BirthIndex, Term: machine.BirthTerm}, h.engine.BeginLog
	meta := segment.Meta()
	if at, anew := recovered(segment); anew {
		birth, begin = at, h.engine.RestartLog
	} else if meta.Applied != birth.Index || meta.Term != birth.Term || segment.ID() == h.dir.Record().Genesis {
		return nil
	}
	last, err := h.log.Group(segment.ID()).LastIndex()
	if err != nil || last >= birth.Index {
		return err
	}
	return begin(segment.ID(), birth)
}
