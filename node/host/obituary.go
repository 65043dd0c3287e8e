package host

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Obituary is what a keeper has to know of a forgetful replica here: every
// configuration that it has ever heard of, since its store was written, among it.
func (h *Host) Obituary(f Forgetful) (keeper.Report, error) {
	d := f.State.Descriptor
	rep := keeper.Report{
		Segment: f.Segment, Generation: d.Generation, Holder: keeper.Holder{Replica: f.Replica, Node: h.cfg.Self}, Left: f.Left,
	}
	name := func(ids []anchormesh.ReplicaID) {
		slices.Sort(ids)
		known := slices.ContainsFunc(rep.Confs, func(c keeper.Conf) bool { return slices.Equal(c, ids) })
		if len(ids) > 0 && !known {
			rep.Confs = append(rep.Confs, ids)
		}
	}
	name(replicaIDs(f.State.Conf.GetVoters()))
	name(replicaIDs(f.State.Conf.GetVotersOutgoing()))
	for id, node := range f.State.Peers() {
		rep.Holders = append(rep.Holders, keeper.Holder{Replica: id, Node: node})
	}
	contexts, err := consensus.Changes(h.log.Group(f.Segment), f.Applied)
	if err != nil {
		return rep, fmt.Errorf("segment %s: %w", f.Segment, err)
	}
	for _, b := range contexts {
		next, err := meshpb.DecodeDescriptor(b)
		if err != nil {
			return rep, fmt.Errorf("segment %s: %w", f.Segment, err)
		}
		var voters []anchormesh.ReplicaID
		for _, a := range next.Voters() {
			voters = append(voters, a.Replica)
		}
		name(voters)
		for _, a := range next.Anchors {
			if h := (keeper.Holder{Replica: a.Replica, Node: a.Node}); !slices.Contains(rep.Holders, h) {
				rep.Holders = append(rep.Holders, h)
			}
		}
	}
	slices.SortFunc(rep.Holders, func(a, b keeper.Holder) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Node, b.Node))
	})
	return rep, nil
}

func replicaIDs(raw []uint64) (out []anchormesh.ReplicaID) {
	for _, id := range raw {
		out = append(out, anchormesh.ReplicaID(id))
	}
	return out
}

// ReportTo notes for good which keeper hears of a forgetful replica, and returns the one
// that was noted first.
func (h *Host) ReportTo(segment, to anchormesh.SegmentID) (anchormesh.SegmentID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.dir.Record()
	if first, is := rec.Keepers[segment]; is {
		return first, nil
	}
	if _, forgotten := rec.Forgotten[segment]; !forgotten {
		return 0, fmt.Errorf("segment %s: %w", segment, consensus.ErrNoGroup)
	}
	rec.Keepers[segment] = to
	return to, h.dir.Save(rec)
}

// remember ends a replica's forgetfulness: it began anew. Caller holds mu.
func (h *Host) remember(segment anchormesh.SegmentID) error {
	delete(h.forgetful, segment)
	rec := h.dir.Record()
	if _, is := rec.Forgotten[segment]; !is {
		return nil
	}
	delete(rec.Forgotten, segment)
	delete(rec.Keepers, segment)
	return h.dir.Save(rec)
}

// Reach returns the state of a replica here, running or forgetful, and how far it has
// come; ok is false if there is none.
func (h *Host) Reach(segment anchormesh.SegmentID) (state *machine.State, has keeper.Position, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, is := h.forgetful[segment]; is {
		return f.State, f.Left, true
	}
	r, runs := h.Get(segment)
	if !runs {
		return nil, has, false
	}
	has, err := h.ends(segment, r.Machine.Segment().Meta())
	return r.Machine.State(), has, err == nil
}
