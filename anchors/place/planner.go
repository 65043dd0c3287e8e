package place

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// Planner is the core for one node. What it remembers is what is under way.
type Planner struct {
	cfg      Config
	moves    map[anchormesh.SegmentID]underWay
	handed   map[anchormesh.SegmentID]time.Time // a transfer was named, then
	resting  map[anchormesh.SegmentID]time.Time // until then
	declined map[anchormesh.NodeID]time.Time    // until then

	epoch uint64 // the one that the following are of
	given int    // transfers for balance
	spent uint64 // their weight
	ended bool   // the lot was against any more
}

type underWay struct {
	Move
	since time.Time
}

// New returns a Planner; cfg must be valid.
func New(cfg Config) *Planner {
	return &Planner{
		cfg: cfg, moves: make(map[anchormesh.SegmentID]underWay), handed: make(map[anchormesh.SegmentID]time.Time),
		resting: make(map[anchormesh.SegmentID]time.Time), declined: make(map[anchormesh.NodeID]time.Time),
	}
}

// Declined tells that a node refused a segment's move, or did not answer. The
// move is over, and the node is not asked again for a while.
func (p *Planner) Declined(now time.Time, segment anchormesh.SegmentID, node anchormesh.NodeID) {
	if u, ok := p.moves[segment]; ok && u.To == node {
		delete(p.moves, segment)
	}
	p.declined[node] = now.Add(p.cfg.DeclinedFor)
}

// Step says what to do now. It is called about once a second.
func (p *Planner) Step(now time.Time, w World) Plan {
	s := &step{p: p, w: &w, view: look(&p.cfg, now, &w)}
	s.tidy()
	s.discount()
	if epoch := s.epoch(); epoch != p.epoch {
		p.epoch, p.given, p.spent, p.ended = epoch, 0, 0, false
	}
	s.shuffle()
	s.obey()
	for _, wish := range []func(*Segment){s.drain, s.rezone, s.adopt, s.unload, s.level} {
		for _, i := range s.order {
			wish(&w.Segments[i])
		}
	}
	s.spread()
	return s.plan
}

// step is one call of Step.
type step struct {
	*view
	p     *Planner
	w     *World
	order []int // of the segments; another one in each epoch
	plan  Plan
}

// shuffle puts the segments into another order in each epoch.
func (s *step) shuffle() {
	type place struct {
		i    int
		hash uint64
	}
	places := make([]place, len(s.w.Segments))
	for i := range places {
		places[i] = place{i, recruit.Hash(s.w.Segments[i].Descriptor.Segment, s.w.Self, s.p.epoch)}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
	s.order = make([]int, len(places))
	for i, p := range places {
		s.order[i] = p.i
	}
}

func (s *step) segment(id anchormesh.SegmentID) *Segment {
	for i := range s.w.Segments {
		if s.w.Segments[i].Descriptor.Segment == id {
			return &s.w.Segments[i]
		}
	}
	return nil
}

// tidy ends what is done, lost or too old, and repeats what goes on.
func (s *step) tidy() {
	over := func(until time.Time) bool { return !s.now.Before(until) }
	maps.DeleteFunc(s.p.resting, func(_ anchormesh.SegmentID, t time.Time) bool { return over(t) })
	maps.DeleteFunc(s.p.declined, func(_ anchormesh.NodeID, t time.Time) bool { return over(t) })
	maps.DeleteFunc(s.p.handed, func(_ anchormesh.SegmentID, t time.Time) bool { return over(t.Add(s.cfg.Epoch)) })
	for _, id := range slices.Sorted(maps.Keys(s.p.moves)) {
		u, seg := s.p.moves[id], s.segment(id)
		if seg == nil || done(seg.Descriptor, u.Move) {
			delete(s.p.moves, id)
			continue
		}
		if to := s.by[u.To]; to == nil || !to.Alive || to.Leaving && u.Cause != ByOrder || s.now.Sub(u.since) >= s.cfg.GiveUp {
			delete(s.p.moves, id)
			s.p.resting[id] = s.now.Add(s.cfg.GiveUp)
			s.note("segment %v: the move of replica %d to %s came to nothing", id, u.Replica, u.To.Short())
			continue
		}
		if seg.Degraded == "" {
			s.plan.Moves = append(s.plan.Moves, u.Move)
		}
	}
}

// done reports whether the voter has left, or the node has its vote.
func done(d *anchormesh.Descriptor, m Move) bool {
	_, there := d.Replica(m.Replica)
	a, has := d.AnchorOn(m.To)
	return !there || has && a.Role == anchormesh.Voter
}

// discount takes leaderships that are on their way off this node's own count.
func (s *step) discount() {
	self := s.by[s.w.Self]
	for i := range s.w.Segments {
		seg := &s.w.Segments[i]
		if _, going := s.p.handed[seg.Descriptor.Segment]; going && self != nil {
			self.Load -= min(self.Load, seg.Load)
			self.Leaders = max(self.Leaders-1, 0)
		}
	}
}

func (s *step) note(format string, args ...any) {
	s.plan.Notes = append(s.plan.Notes, fmt.Sprintf(format, args...))
}

// idle reports whether something may begin with the segment at all.
func (s *step) idle(seg *Segment) bool {
	id := seg.Descriptor.Segment
	_, moving := s.p.moves[id]
	_, handed := s.p.handed[id]
	_, resting := s.p.resting[id]
	return seg.Degraded == "" && !moving && !handed && !resting
}

// may reports whether something may begin that nobody ordered. A new child need
// not wait.
func (s *step) may(seg *Segment) bool {
	return s.idle(seg) && !seg.Busy && (seg.Child || s.now.Sub(seg.Since) >= s.cfg.Stay)
}

// room reports whether another replica move may begin.
func (s *step) room() bool { return len(s.p.moves) < s.cfg.MovesMax }

// willing is the node's room, or 0 if it has declined lately.
func (s *step) willing(n *Node) int64 {
	if _, no := s.p.declined[n.Node]; no {
		return 0
	}
	return int64(n.Room)
}

func (s *step) replace(seg *Segment, cause Cause, leaves anchormesh.ReplicaID, to anchormesh.NodeID, format string, args ...any) {
	m := Move{Segment: seg.Descriptor.Segment, Kind: Replace, Cause: cause, Replica: leaves, To: to, Why: fmt.Sprintf(format, args...)}
	s.p.moves[m.Segment] = underWay{m, s.now}
	s.plan.Moves = append(s.plan.Moves, m)
}

func (s *step) transfer(seg *Segment, cause Cause, to anchormesh.Anchor, format string, args ...any) {
	m := Move{Segment: seg.Descriptor.Segment, Kind: Transfer, Cause: cause, Replica: to.Replica, To: to.Node, Why: fmt.Sprintf(format, args...)}
	s.p.handed[m.Segment] = s.now
	s.plan.Moves = append(s.plan.Moves, m)
}

// follows reports whether an anchor is a voter on another node.
func (s *step) follows(a anchormesh.Anchor) bool {
	return a.Role == anchormesh.Voter && a.Node != s.w.Self
}

// followers are all that do.
func (s *step) followers(d *anchormesh.Descriptor) []anchormesh.Anchor {
	return slices.DeleteFunc(slices.Clone(d.Anchors), func(a anchormesh.Anchor) bool { return !s.follows(a) })
}
