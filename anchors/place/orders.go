package place

import (
	"cmp"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// obey begins what was ordered. What cannot be is noted, and tried again with the
// next Step.
func (s *step) obey() {
	for _, o := range s.w.Orders {
		seg := s.segment(o.Segment)
		if seg == nil {
			continue // another node leads it, and has the order, or will not get it
		}
		if _, moving := s.p.moves[o.Segment]; moving {
			continue
		}
		if why := s.comply(seg, o); why != "" {
			s.note("segment %v: %v as ordered is not possible now: %s", o.Segment, o.Kind, why)
		}
	}
}

// comply begins one order and says why not; empty if it began or is done.
func (s *step) comply(seg *Segment, o Order) string {
	d := seg.Descriptor
	switch {
	case o.Kind == Transfer && o.To == s.w.Self:
		return ""
	case seg.Degraded != "":
		return seg.Degraded
	case !s.idle(seg):
		return "it was tried, and rests"
	case o.Kind == Transfer:
		a, has := d.AnchorOn(o.To)
		if !has || a.Role != anchormesh.Voter {
			return "node " + o.To.Short() + " is no voter of it"
		}
		s.transfer(seg, ByOrder, a, "ordered")
		return ""
	}
	from, has := d.AnchorOn(o.From)
	if !has {
		return "" // it has left
	}
	if from.Role != anchormesh.Voter {
		return "node " + o.From.Short() + " is no voter of it"
	}
	if o.From == s.w.Self {
		if !s.handOver(seg, ByOrder, "ordered: this node's replica leaves") {
			return "no other voter can lead"
		}
		return ""
	}
	return s.orderReplace(seg, from, o)
}

func (s *step) orderReplace(seg *Segment, from anchormesh.Anchor, o Order) string {
	d, why := seg.Descriptor, "ordered"
	if o.Align {
		why = "to align it with its neighbour, before they merge"
	}
	if o.To == "" {
		to := s.pick(d, from.Replica, anyZone, s.willing)
		if to == nil {
			return "no node without an anchor of it has room"
		}
		s.replace(seg, ByOrder, from.Replica, to.Node, "%s", why)
		return ""
	}
	to := s.by[o.To]
	if a, has := d.AnchorOn(o.To); has && a.Role == anchormesh.Voter {
		return "node " + o.To.Short() + " is a voter of it already"
	}
	if to == nil || !s.takes(to) || s.willing(to) == 0 {
		return "node " + o.To.Short() + " is away, new, leaving or full, or declined"
	}
	s.replace(seg, ByOrder, from.Replica, to.Node, "%s", why)
	return ""
}

// anyZone is no limit to how crowded zones may become.
const anyZone = math.MaxInt

// handOver transfers leadership away, to the voter's node that leads least.
func (s *step) handOver(seg *Segment, cause Cause, why string) bool {
	voters := slices.DeleteFunc(s.followers(seg.Descriptor), func(a anchormesh.Anchor) bool { return !s.open(s.by[a.Node]) })
	if len(voters) == 0 {
		return false
	}
	id := seg.Descriptor.Segment
	to := slices.MaxFunc(voters, func(a, b anchormesh.Anchor) int {
		score := func(a anchormesh.Anchor) float64 {
			return recruit.Score(id, a.Node, 1+(1<<20)/(1+s.score(s.by[a.Node])))
		}
		return cmp.Compare(score(a), score(b))
	})
	s.transfer(seg, cause, to, "%s", why)
	return true
}

// drain takes a segment off nodes that leave.
func (s *step) drain(seg *Segment) {
	if !s.idle(seg) || seg.Busy {
		return
	}
	d := seg.Descriptor
	if self := s.by[s.w.Self]; self != nil && self.Leaving {
		if !s.handOver(seg, ByDrain, "this node leaves the mesh") {
			s.note("segment %v: this node leaves, but no other voter can lead", d.Segment)
		}
		return
	}
	for _, a := range d.Anchors {
		n := s.by[a.Node]
		if !s.follows(a) || n == nil || !n.Leaving || !n.Alive || !s.room() {
			continue
		}
		if l := s.learner(d); l != nil {
			s.replace(seg, ByDrain, a.Replica, l.Node, "node %s leaves the mesh, node %s has a copy already", a.Node.Short(), l.Node.Short())
			return
		}
		// It may have to be a zone that is crowded already.
		to := s.pick(d, a.Replica, anyZone, s.willing)
		if to == nil {
			s.note("segment %v: node %s leaves, but no node without an anchor of it has room", d.Segment, a.Node.Short())
			continue
		}
		s.replace(seg, ByDrain, a.Replica, to.Node, "node %s leaves the mesh", a.Node.Short())
		return
	}
}

// learner is the node of a learner that an earlier leader's move left.
func (s *step) learner(d *anchormesh.Descriptor) *Node {
	for _, a := range d.Anchors {
		if n := s.by[a.Node]; a.Role == anchormesh.Learner && s.open(n) {
			return n
		}
	}
	return nil
}
