package consensus

import (
	"sync/atomic"

	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// tail remembers how the log of a group grew, to know which entries make up its
// last KeepBytes. Only the group's worker uses it, but for bytes.
type tail struct {
	bytes   atomic.Uint64 // appended since the start
	samples []sample      // oldest first
}

type sample struct{ index, bytes uint64 }

// note records where the log ends now and returns the newest index that has at
// least keep bytes behind it.
func (t *tail) note(last, keep uint64) uint64 {
	now := t.bytes.Load()
	if n := len(t.samples); n == 0 || t.samples[n-1].index != last {
		t.samples = append(t.samples, sample{last, now})
	}
	cut := 0
	for cut+1 < len(t.samples) && now-t.samples[cut+1].bytes >= keep {
		cut++
	}
	t.samples = t.samples[cut:]
	if now-t.samples[0].bytes < keep {
		return 0
	}
	return t.samples[0].index
}

// truncate lets go of log entries that no restart needs and that lie too far
// back to be kept for anchors that lag. It is done on the group's worker, where
// raft stands still.
func (e *Engine) truncate() {
	for _, segment := range e.Segments() {
		if g := e.group(segment); g != nil {
			e.worker(segment).with(segment, func(r *replica.Replica) { e.truncateGroup(g, r.ToldApplied()) })
		}
	}
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
	upTo := g.tail.note(last, e.cfg.KeepBytes)
	if last > e.cfg.KeepEntries {
		upTo = max(upTo, last-e.cfg.KeepEntries)
	}
	durable, _ := g.machine.Durable()
	upTo = min(upTo, durable, told)
	if pin, ok := g.pinned(); ok {
		upTo = min(upTo, pin)
	}
	if upTo < first {
		return
	}
	if term, err := g.log.Term(upTo); err == nil {
		e.log.Truncate(g.segment, wal.Mark{Index: upTo, Term: term})
	}
}
