package consensus

import (
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/shard"
)

// laneBytes is how much of one lane may be written and not synced, at the usual weight:
// what a neighbour's small write shares its sync with. One append more may come on top.
const laneBytes = 512 << 10

// laneWeight is the usual weight; weights go from 1 to 2*laneWeight-1.
const laneWeight = 5

// lane is the way to the disk of all groups of one scope on this node. What would be too
// much for one sync waits for the next, so that a flood in one scope makes the syncs of
// the others no longer than this. Groups without a lane never wait.
type lane struct {
	weight   atomic.Int64
	unsynced atomic.Int64 // bytes on their way to the disk

	// Of the writer's goroutine:
	held []shard.Append // in order
}

func (l *lane) full() bool { return l.unsynced.Load() >= laneBytes*l.weight.Load()/laneWeight }

// SetLane says which groups share one way to the disk, and how wide it is beside others': 5 is
// usual, 1 a fifth of it, 9 nearly twice. Lanes are few and are not forgotten.
func (e *Engine) SetLane(segment anchormesh.SegmentID, name string, weight int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.groups[segment]
	if g == nil {
		return
	}
	l := e.lanes[name]
	if l == nil {
		l = &lane{}
		e.lanes[name] = l
	}
	l.weight.Store(int64(min(max(weight, 1), 2*laneWeight-1)))
	g.lane.Store(l)
}

// going is an append that may be written.
type going struct {
	shard.Append
	lane  *lane
	bytes int64 // that the lane counts
}

// weigh returns the bytes that somebody waits for the disk to take.
func weigh(a *shard.Append) (n int64) {
	if !a.Sync || a.Memory {
		return 0
	}
	for _, e := range a.Entries {
		n += int64(len(e.GetData()))
	}
	return n
}

// lanes is the writer's side.
type lanes struct {
	holding []*lane      // that hold something
	held    atomic.Int64 // appends in them
	going   []going
}

// admit sorts out what may be written now, in the order of each group. Whatever else is
// asked for of the writer comes behind all that was handed over before.
func (w *writer) admit(in *writes) []going {
	s := &w.lanes
	s.going = s.going[:0]
	all := len(in.done)+len(in.updates)+len(in.harden) > 0 || in.marks || in.rest
	for i := range in.appends {
		a := &in.appends[i]
		l := w.lane(a.Segment)
		if l == nil {
			s.pass(a, nil)
			continue
		}
		if len(l.held) > 0 || l.full() && weigh(a) > 0 {
			if len(l.held) == 0 {
				s.holding = append(s.holding, l)
			}
			l.held = append(l.held, *a)
			s.held.Add(1)
			continue
		}
		s.pass(a, l)
	}
	// Behind the holding: a sync that ends from here on nudges the writer.
	still := s.holding[:0]
	for _, l := range s.holding {
		if s.release(l, all); len(l.held) > 0 {
			still = append(still, l)
		}
	}
	clear(s.holding[len(still):])
	s.holding = still
	return s.going
}

// lane returns a group's lane. What the group has waiting in the one it had before goes
// first.
func (w *writer) lane(segment anchormesh.SegmentID) *lane {
	g := w.engine.group(segment)
	if g == nil {
		return nil
	}
	l := g.lane.Load()
	if g.queued != l && g.queued != nil {
		w.lanes.release(g.queued, true)
	}
	g.queued = l
	return l
}

func (s *lanes) pass(a *shard.Append, l *lane) {
	n := weigh(a)
	if l != nil {
		l.unsynced.Add(n)
	}
	s.going = append(s.going, going{*a, l, n})
}

// release lets go what a lane holds and has room for, or all of it.
func (s *lanes) release(l *lane, all bool) {
	n := 0
	for n < len(l.held) && (all || !l.full() || weigh(&l.held[n]) == 0) {
		s.pass(&l.held[n], l)
		n++
	}
	s.held.Add(-int64(n))
	rest := copy(l.held, l.held[n:])
	clear(l.held[rest:])
	l.held = l.held[:rest]
}

// synced gives the lanes their room back, and tells the writer if something waits for it.
func (w *writer) synced(list []going) {
	for i := range list {
		if l := list[i].lane; l != nil {
			l.unsynced.Add(-list[i].bytes)
		}
	}
	if w.lanes.held.Load() > 0 {
		w.inbox.put(func(*writes) {})
	}
}
