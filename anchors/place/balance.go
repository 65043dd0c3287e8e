package place

import (
	"cmp"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// rezone moves a voter out of a zone that has several to one that has fewer.
func (s *step) rezone(seg *Segment) {
	d := seg.Descriptor
	if !s.may(seg) || !s.room() || spare(d) {
		return
	}
	now := zoneCost(d, 0, nil)
	if now <= s.leastCost(len(d.Voters())) {
		return
	}
	var best *Node
	var leaves anchormesh.Anchor
	cost := now
	for _, a := range s.followers(d) {
		to := s.pick(d, a.Replica, now-1, s.willing)
		if to == nil {
			continue
		}
		if c := zoneCost(d, a.Replica, to); c < cost {
			best, leaves, cost = to, a, c
		}
	}
	if best != nil {
		s.replace(seg, ByZone, leaves.Replica, best.Node, "zone %q has several of its anchors, zone %q fewer", leaves.Zone, best.Zone)
	}
}

// adopt goes on with a learner that an earlier leader's move left, if it would
// still be of use.
func (s *step) adopt(seg *Segment) {
	if !s.may(seg) || !s.room() {
		return
	}
	d := seg.Descriptor
	to := s.learner(d)
	if to == nil {
		return
	}
	for _, a := range s.followers(d) {
		from := s.by[a.Node]
		if from == nil || !s.heard(from) || s.surplus(from)-s.surplus(to) < 2000 ||
			zoneCost(d, a.Replica, to) > zoneCost(d, 0, nil) {
			continue
		}
		s.replace(seg, ByRoom, a.Replica, to.Node, "node %s has a copy already and holds less than %s", to.Node.Short(), a.Node.Short())
		return
	}
}

// spare reports whether a learner shows that a move is to be finished or dropped
// first.
func spare(d *anchormesh.Descriptor) bool {
	return slices.ContainsFunc(d.Anchors, func(a anchormesh.Anchor) bool { return a.Role == anchormesh.Learner })
}

// unload moves a voter of a loaded segment to a node that leads little, when this
// node leads too much and no voter's node could take the leadership: it will be
// able to lead next.
func (s *step) unload(seg *Segment) {
	d, w := seg.Descriptor, s.weight(seg)
	self := s.by[s.w.Self]
	if !s.may(seg) || !s.room() || spare(d) || self == nil || w < 4*s.cfg.IdleLoad || !s.above(s.score(self)) {
		return
	}
	followers := s.followers(d)
	for _, a := range followers {
		if n := s.by[a.Node]; s.open(n) && s.relieves(n, w) {
			return // spread will do it
		}
	}
	if len(followers) == 0 || !s.drawn(d.Segment, s.w.Self, s.score(self)-s.mean, s.score(self)) {
		return
	}
	busiest := slices.MaxFunc(followers, func(a, b anchormesh.Anchor) int {
		score := func(a anchormesh.Anchor) uint64 {
			if n := s.by[a.Node]; n != nil {
				return s.score(n)
			}
			return 0
		}
		return cmp.Or(cmp.Compare(score(a), score(b)), cmp.Compare(a.Replica, b.Replica))
	})
	to := s.pick(d, busiest.Replica, zoneCost(d, 0, nil), func(n *Node) int64 {
		if s.willing(n) == 0 || !s.relieves(n, w) || s.surplus(n) > 0 {
			return 0
		}
		return int64(s.mean - s.score(n))
	})
	if to == nil {
		return
	}
	cause, what := ByLoad, "its nodes lead more than others"
	if seg.Child {
		cause, what = BySplit, "it was split off, and its nodes lead more than others"
	}
	s.replace(seg, cause, busiest.Replica, to.Node, "%s: %s leads %d ‰, the mean is %d ‰, %s leads %d ‰",
		what, s.w.Self.Short(), s.score(self), s.mean, to.Node.Short(), s.score(to))
}

// above reports whether a score is so far above the mean that something is to go.
func (s *step) above(score uint64) bool {
	return score > s.mean+max(2*s.cfg.IdleLoad, s.mean*s.cfg.Gap/1000)
}

// relieves reports whether leadership of weight w is better led on n: n leads less
// than the mean and, having it, clearly less than this node has now. So the sum of
// the squares falls with every transfer, and none is ever undone.
func (s *step) relieves(n *Node, w uint64) bool {
	self, there := s.score(s.by[s.w.Self]), s.score(n)
	gap := max(2*s.cfg.IdleLoad, s.mean*s.cfg.Gap/1000)
	return there < s.mean && self > s.mean && there+w+gap <= self
}

// level moves a voter from a node above its even share to one below.
func (s *step) level(seg *Segment) {
	d := seg.Descriptor
	if !s.may(seg) || !s.room() || spare(d) {
		return
	}
	for _, a := range d.Anchors {
		from := s.by[a.Node]
		if !s.follows(a) || from == nil || !s.heard(from) || from.Leaving {
			continue
		}
		over := s.crowded(from)
		if over <= 0 || !s.drawn(d.Segment, a.Node, uint64(over)/2, uint64(from.Replicas)*1000) {
			continue
		}
		to := s.pick(d, a.Replica, zoneCost(d, 0, nil), func(n *Node) int64 {
			if s.willing(n) == 0 || !s.uneven(from, n) {
				return 0
			}
			return max(1, -s.surplus(n))
		})
		if to == nil {
			continue
		}
		s.replace(seg, ByRoom, a.Replica, to.Node, "node %s holds %d replicas, its share is %d; node %s holds %d of %d",
			a.Node.Short(), from.Replicas, s.even(from)/1000, to.Node.Short(), to.Replicas, s.even(to)/1000)
		return
	}
}

// spread hands leadership to voters' nodes that lead less than the mean, half of
// what is too much per epoch, until the lot or the limit ends it.
func (s *step) spread() {
	self := s.by[s.w.Self]
	if self == nil || self.Leaving || s.score(self) <= s.mean {
		return
	}
	half := (s.score(self) + s.p.spent - s.mean) / 2
	for _, i := range s.order {
		seg := &s.w.Segments[i]
		if s.p.ended || s.p.given >= s.cfg.TransfersMax || s.p.spent >= half {
			return
		}
		if !s.may(seg) {
			continue
		}
		w := s.weight(seg)
		to, found := s.heir(seg, w)
		if !found {
			continue
		}
		if left := half - s.p.spent; !s.drawn(seg.Descriptor.Segment, s.w.Self, left, w) {
			s.p.ended = true
			return
		}
		s.p.given++
		s.p.spent += w
		n := s.by[to.Node]
		s.transfer(seg, ByLoad, to, "this node leads %d ‰, the mean is %d ‰, node %s leads %d ‰",
			s.score(self), s.mean, to.Node.Short(), s.score(n))
		self.Load -= min(self.Load, seg.Load)
		self.Leaders--
	}
}

// heir is the voter that should lead the segment instead.
func (s *step) heir(seg *Segment, w uint64) (best anchormesh.Anchor, found bool) {
	var bestScore float64
	for _, a := range seg.Descriptor.Anchors {
		n := s.by[a.Node]
		if !s.follows(a) || !s.open(n) || !s.relieves(n, w) {
			continue
		}
		if score := recruit.Score(seg.Descriptor.Segment, a.Node, s.mean-s.score(n)); !found || score > bestScore {
			best, bestScore, found = a, score, true
		}
	}
	return best, found
}
