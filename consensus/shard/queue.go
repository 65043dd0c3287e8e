package shard

import "github.com/anchormesh/anchormesh"

// awakeMost is how many groups of a shard may be awake before those that nobody asked
// for anything have to wait for their turn to wake. A node that starts has thousands, and
// each keeps its two others awake, too: all at once they cost more than a core per node,
// and where there is less, ticks are lost, leaders are taken for dead, and nobody falls
// asleep again.
const awakeMost = 512

// queue holds groups that are to wake and sleep until then: those just started, and
// those whose leaders slept without a node that can be heard again. What happens to one
// of them wakes it at once. So waiting costs those alone that nobody uses: they may have
// no leader meanwhile.
type queue struct {
	most   int // groups awake
	groups []*group
}

// AwakeAtMost sets how many groups may be awake before others wait for their turn; it is
// called before the first group is added.
func (s *Shard) AwakeAtMost(groups int) { s.queue.most = max(1, groups) }

// crowded reports whether enough groups are awake.
func (s *Shard) crowded() bool { return s.rests.after > 0 && s.awake() >= s.queue.most }

func (s *Shard) awake() int { return len(s.order) - s.rests.asleep }

// begin starts the clock of a group that is about to be added, or lets it wait.
func (s *Shard) begin(g *group) {
	if !s.crowded() {
		s.startClock(g)
		return
	}
	s.rests.asleep++
	g.sleep.asleep = true
	s.enqueue(g)
}

// waits reports whether a group sleeps only because its turn has not come.
func (g *group) waits() bool { return g.sleep.asleep && g.sleep.queued }

// rouse wakes a group in its turn.
func (s *Shard) rouse(g *group) {
	if s.crowded() {
		s.enqueue(g)
	} else {
		s.stir(g)
	}
}

func (s *Shard) enqueue(g *group) {
	if !g.sleep.queued {
		g.sleep.queued = true
		s.queue.groups = append(s.queue.groups, g)
	}
}

// Seek has a group that waits for its turn look for a leader at once: somebody needs one
// who cannot ask the group itself. Nothing happens to others.
func (s *Shard) Seek(segment anchormesh.SegmentID) {
	if g := s.groups[segment]; g != nil && g.waits() {
		s.want(g)
	}
}

// want wakes a group that a client needs. One that waited since it was started may know
// no leader, and its others may wait as well: it asks for votes at once.
func (s *Shard) want(g *group) {
	waited := g.waits()
	s.stir(g)
	if waited && g.replica.Status().Leader == 0 {
		g.replica.Campaign()
	}
}

// wakeQueued wakes as many as there is room for, and a few in any case: where more are
// in use than may be awake, the others are not to wait for ever.
func (s *Shard) wakeQueued() {
	q := &s.queue
	room := max(q.most-s.awake(), 1+q.most/64)
	for room > 0 && len(q.groups) > 0 {
		g := q.groups[0]
		q.groups = q.groups[1:]
		g.sleep.queued = false
		if g.gone || !g.sleep.asleep {
			continue
		}
		s.stir(g)
		room--
	}
	if len(q.groups) == 0 {
		q.groups = nil
	}
}
