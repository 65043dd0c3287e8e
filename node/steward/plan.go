package steward

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/node/machine"
)

// orderKept is how long an order waits to be done: longer than a move that goes
// well takes.
const orderKept = 15 * time.Minute

// order is what an operator wants.
type order struct {
	place.Order
	until time.Time
}

// plan asks the planner about all led segments, and begins what it wishes.
func (s *Steward) plan(l *look) {
	w := place.World{Self: s.cfg.Self, Nodes: l.nodes}
	for _, id := range slices.Sorted(maps.Keys(s.tended)) {
		if seg, ok := s.segment(l, id, s.tended[id]); ok {
			w.Segments = append(w.Segments, seg)
		}
	}
	w.Orders = s.standingOrders(l.now)
	p := s.planner.Step(l.now, w)
	for _, note := range p.Notes {
		if !slices.Contains(s.notes, note) {
			s.cfg.Logger.Info("placement", "note", note)
		}
	}
	s.notes = p.Notes
	before := s.wishes
	s.wishes = make(map[anchormesh.SegmentID]place.Move)
	for _, m := range p.Moves {
		if m.Kind == place.Transfer {
			s.cfg.Logger.Info("leadership is handed over", "segment", m.Segment, "to", m.To.Short(), "cause", m.Cause, "why", m.Why)
			tell(s.cfg.Listener.Transferred, m.Cause.String())
			s.engine.TransferLeader(m.Segment, m.Replica)
			continue
		}
		if old, ok := before[m.Segment]; !ok || old.To != m.To || old.Replica != m.Replica {
			s.cfg.Logger.Info("replica is to move", "segment", m.Segment, "replica", m.Replica, "to", m.To.Short(), "cause", m.Cause, "why", m.Why)
		}
		s.wishes[m.Segment] = m
	}
}

// standingOrders drops what is done or too old, and returns the rest.
func (s *Steward) standingOrders(now time.Time) (out []place.Order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.orders)) {
		o := s.orders[id]
		r, here := s.host.Get(id)
		if !here || !now.Before(o.until) {
			delete(s.orders, id)
			continue
		}
		if _, still := r.Machine.Descriptor().AnchorOn(o.From); !still {
			delete(s.orders, id)
			continue
		}
		out = append(out, o.Order)
	}
	return out
}

// Move has the place of an anchor given to another node, and returns once that is
// accepted. dry accepts nothing. The leader's own replica cannot move: its leadership
// must go first (Yield), and the order to the next leader. The errors are ErrNotLeader
// and machine.ErrRefused.
func (s *Steward) Move(segment anchormesh.SegmentID, from, to anchormesh.NodeID, dry bool) error {
	r, ok := s.leads(segment)
	if !ok {
		return ErrNotLeader
	}
	now := time.Now()
	if why := s.impossible(now, r.Machine.State(), from, to); why != "" {
		return fmt.Errorf("%w: %s", machine.ErrRefused, why)
	}
	if dry {
		return nil
	}
	if from == s.cfg.Self {
		return fmt.Errorf("%w: node %s leads the segment, and its leadership goes first", machine.ErrRefused, from.Short())
	}
	s.mu.Lock()
	s.orders[segment] = order{place.Order{Segment: segment, Kind: place.Replace, From: from, To: to}, now.Add(orderKept)}
	s.mu.Unlock()
	s.Kick()
	return nil
}

// heldFor is how long a segment's anchors are left alone for the sake of a merge: some
// moves, each of which asks for it anew.
const heldFor = 5 * time.Minute

// Hold has nothing optional begin with the anchors of a segment led here for a while,
// but what is ordered. The error is ErrNotLeader.
func (s *Steward) Hold(segment anchormesh.SegmentID) error {
	if _, ok := s.leads(segment); !ok {
		return ErrNotLeader
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[segment] = time.Now().Add(heldFor)
	return nil
}

// Align has a replica of a segment led here moved to where its neighbour is, so that
// the two can merge. An operator's order goes first. The errors are ErrNotLeader and
// machine.ErrRefused.
func (s *Steward) Align(o place.Order) error {
	r, ok := s.leads(o.Segment)
	if !ok {
		return ErrNotLeader
	}
	now := time.Now()
	if why := s.impossible(now, r.Machine.State(), o.From, o.To); why != "" {
		return fmt.Errorf("%w: %s", machine.ErrRefused, why)
	}
	s.mu.Lock()
	if old, has := s.orders[o.Segment]; has && !old.Align {
		s.mu.Unlock()
		return fmt.Errorf("%w: an operator has ordered a move", machine.ErrRefused)
	}
	s.orders[o.Segment] = order{o, now.Add(orderKept)}
	s.mu.Unlock()
	s.Kick()
	return nil
}

// impossible says why a replica cannot move; empty if it can, as far as is known.
func (s *Steward) impossible(now time.Time, state *machine.State, from, to anchormesh.NodeID) string {
	d := state.Descriptor
	if a, has := d.AnchorOn(from); !has || a.Role != anchormesh.Voter {
		return fmt.Sprintf("node %s is no voter of segment %s", from.Short(), d.Segment)
	}
	if _, has := d.AnchorOn(to); has {
		return fmt.Sprintf("node %s is an anchor of segment %s already", to.Short(), d.Segment)
	}
	nodes := s.Nodes(now)
	i := slices.IndexFunc(nodes, func(n place.Node) bool { return n.Node == to })
	switch {
	case i < 0 || !nodes[i].Alive:
		return fmt.Sprintf("node %s is not alive", to.Short())
	case nodes[i].Leaving:
		return fmt.Sprintf("node %s is being drained", to.Short())
	case nodes[i].Room == 0:
		return fmt.Sprintf("node %s has no room", to.Short())
	}
	if st, ok := s.Standing(d.Segment); ok && st.Degraded != "" {
		return st.Degraded
	}
	return ""
}

const (
	// transferAgain is how often a transfer is ordered anew: Raft gives one up after an
	// election timeout, and says so to nobody.
	transferAgain = time.Second
	// transferWait bounds the wait for one.
	transferWait = 10 * time.Second
)

// Transfer hands a segment's leadership to a voter and waits until it leads. A voter that
// cannot take it yet, such as one that has just begun, is asked again. The errors are
// ErrNotLeader, which is also that of one who has lost the leadership to another than
// whom it was meant for, machine.ErrRefused, ErrNotNow and ErrUnknown.
func (s *Steward) Transfer(ctx context.Context, segment anchormesh.SegmentID, to anchormesh.NodeID) error {
	r, ok := s.leads(segment)
	if !ok {
		return ErrNotLeader
	}
	if to == s.cfg.Self {
		return nil
	}
	a, has := r.Machine.Descriptor().AnchorOn(to)
	if !has || a.Role != anchormesh.Voter {
		return fmt.Errorf("%w: node %s is no voter of segment %s", machine.ErrRefused, to.Short(), segment)
	}
	if !s.mesh.Connected(to) {
		return fmt.Errorf("%w: node %s cannot be reached", ErrNotNow, to.Short())
	}
	s.cfg.Logger.Info("leadership is handed over", "segment", segment, "to", to.Short(), "cause", place.ByOrder, "why", "ordered")
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	var ordered time.Time
	for {
		switch st, ok := s.engine.Status(segment); {
		case !ok:
			return ErrNotLeader
		case st.Status.Leader == a.Replica:
			tell(s.cfg.Listener.Transferred, place.ByOrder.String())
			return nil
		case !st.Leads() && st.Status.Leader != 0:
			return fmt.Errorf("%w: node %s leads it now", ErrNotLeader, st.Leader.Short())
		case st.Leads() && time.Since(ordered) >= transferAgain:
			ordered = time.Now()
			s.engine.TransferLeader(segment, a.Replica)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: node %s does not lead yet", ErrUnknown, to.Short())
		case <-ticker.C:
		}
	}
}

// Yield hands a segment's leadership to whichever other voter is nearest to it, and
// returns whom.
func (s *Steward) Yield(ctx context.Context, segment anchormesh.SegmentID) (anchormesh.NodeID, error) {
	r, ok := s.leads(segment)
	_, peers, leading := s.engine.Progress(segment)
	if !ok || !leading {
		return "", ErrNotLeader
	}
	var best anchormesh.Anchor
	for _, v := range r.Machine.Descriptor().Voters() {
		if p := peers[v.Replica]; v.Node != s.cfg.Self && s.mesh.Connected(v.Node) && (best.Replica == 0 || p.Match > peers[best.Replica].Match) {
			best = v
		}
	}
	if best.Replica == 0 {
		return "", fmt.Errorf("%w: no other voter can lead segment %s", machine.ErrRefused, segment)
	}
	return best.Node, s.Transfer(ctx, segment, best.Node)
}
