package consensus

import (
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// tail remembers how the log of a group grew, to know which entries make up its
// last KeepBytes. Only the group's worker uses it, but for bytes.
type tail struct {
	bytes   atomic.Uint64 // appended since the start
	samples []sample      // oldest first
}

type sample struct{ index, bytes uint64 }

// note records where the log begins and ends now and returns the newest index that
// has at least keep bytes behind it.
func (t *tail) note(first, last, keep uint64) uint64 {
	now := t.bytes.Load()
	if n := len(t.samples); n == 0 || t.samples[n-1].index != last {
		t.samples = append(t.samples, sample{last, now})
	}
	cut := 0
	for cut+1 < len(t.samples) && (now-t.samples[cut+1].bytes >= keep || t.samples[cut+1].index < first) {
		cut++
	}
	t.samples = t.samples[cut:]
	if now-t.samples[0].bytes < keep {
		return 0
	}
	return t.samples[0].index
}

// marksAt is how many entries of sleeping groups make it worth a sync to let go of
// them where nothing else is written.
const marksAt = 1000

// truncate lets go of log entries that no restart needs and that lie too far
// back to be kept for anchors that lag. It is done on the worker, where raft stands
// still, for the groups that are awake and those that fell asleep since.
func (w *worker) truncate() {
	w.inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) {
			s.Awake(func(segment anchormesh.SegmentID, r *replica.Replica) {
				if g := w.engine.group(segment); g != nil {
					w.engine.truncateGroup(g, r.ToldApplied())
				}
			})
			w.truncateDozed(s)
		})
	})
}

// truncateDozed does it for groups that sleep, once and for all: ten thousand of them are
// not to be looked at again and again. What they wrote last is not in the store yet at
// first. If all their anchors have everything, nothing is kept.
func (w *worker) truncateDozed(s *shard.Shard) {
	entries := uint64(0)
	for segment, whole := range w.dozed {
		g := w.engine.group(segment)
		if g == nil || !g.asleep.Load() { // stopped, or started anew
			delete(w.dozed, segment)
			continue
		}
		s.Look(segment, func(r *replica.Replica) {
			n, done := w.engine.truncateSleeper(g, r.ToldApplied(), whole)
			if entries += n; done {
				delete(w.dozed, segment)
			}
		})
	}
	if entries >= marksAt {
		w.engine.writer.inbox.put(func(in *writes) { in.marks = true })
	}
}

// truncateSleeper returns how many entries went, and whether no more will.
func (e *Engine) truncateSleeper(g *group, told uint64, whole bool) (entries uint64, done bool) {
	first, err1 := g.log.FirstIndex()
	last, err2 := g.log.LastIndex()
	if err1 != nil || err2 != nil {
		return 0, true
	}
	durable, _ := g.machine.Durable()
	if !whole {
		e.truncateGroup(g, told)
		return 0, durable >= last
	}
	upTo := min(last, durable, told)
	if pin, ok := g.pinned(); ok {
		upTo = min(upTo, pin)
	}
	if upTo < first {
		return 0, first > last
	}
	e.cut(g, upTo)
	g.tail.samples = nil
	return upTo - first + 1, upTo == last
}

// truncateGroup takes care that raft can read what it was not told to be applied.
func (e *Engine) truncateGroup(g *group, told uint64) {
	first, err := g.log.FirstIndex()
	if err != nil {
		return
	}
	last, err := g.log.LastIndex()
	if err != nil {
		return
	}
	upTo := g.tail.note(first, last, e.cfg.KeepBytes)
	if last > e.cfg.KeepEntries {
		upTo = max(upTo, last-e.cfg.KeepEntries)
	}
	durable, _ := g.machine.Durable()
	upTo = min(upTo, durable, told)
	if pin, ok := g.pinned(); ok {
		upTo = min(upTo, pin)
	}
	if upTo >= first {
		e.cut(g, upTo)
	}
}

func (e *Engine) cut(g *group, upTo uint64) {
	if term, err := g.log.Term(upTo); err == nil {
		e.log.Truncate(g.segment, wal.Mark{Index: upTo, Term: term})
	}
}
