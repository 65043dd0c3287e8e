package watch

import (
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch/match"
)

// flags of a watch: what was asked for, fixed at creation.
type flags uint8

const (
	wantPrevKV flags = 1 << iota
	wantProgress
	wantFragment
	noPut
	noDelete
	resumed
)

// watch is one watch. id, stream and flags never change.
type watch struct {
	id     int64
	stream *Stream
	flags  flags

	// Guarded by the stream's lock.
	open   *entry // the waiting response that further revisions join
	closed bool   // gets nothing more

	// Guarded by the hub's lock; next and full are written by the hub's goroutine
	// only and read there without it.
	added   bool  // in the index
	gone    bool  // out of it again
	lagging bool  // history below the cursor is still owed
	full    bool  // the stream refused it; it waits for room
	sent    bool  // got an event since the last progress tick
	ahead   bool  // starts at a revision named by the client that was not reached yet
	marks   uint8 // requests for marks that wait; the hub's goroutine's own
	notify  int32
	// next is the lowest revision that may be sent. Of a lagging watch everything
	// below it was handed to the stream; of a live one everything below the cursor
	// was (next is above the cursor only if the watch starts in the future).
	next  int64
	entry *match.Entry[*watch]
}

func (w *watch) has(f flags) bool { return w.flags&f != 0 }

// wants reports whether the watch takes a change of a key in its range.
func (w *watch) wants(ch *mvcc.Event) bool {
	if ch.Main < w.next {
		return false
	}
	if ch.Delete {
		return !w.has(noDelete)
	}
	return !w.has(noPut)
}

func (w *watch) form() form {
	if w.has(wantPrevKV) {
		return formFull
	}
	return formPlain
}

// core is the hub's state without locks, goroutines, clock or I/O: where every
// watch stands, and who gets what. Its owner serialises access.
//
// Between two calls: a live watch w was handed everything in
// [w.next, cursor); a lagging one, everything in [its start, w.next).
type core struct {
	index  *match.Index[*watch]
	cursor int64    // first revision not handed out to live watches
	line   []*watch // lagging watches with room, in turn
	notify []*watch // watches that asked for progress
	turn   int      // next of notify to be told
	lag    int      // lagging watches, those in full streams included

	found []*watch // scratch
}

// delivery is one event for one watch of the stream it is filed under.
type delivery struct {
	w      *watch
	change int // index in the step's changes
}

// plan is what a step hands out: staged on each dirty stream, in revision order.
type plan struct {
	changes []mvcc.Event
	forms   []form // per change: the encodings wanted
	dirty   []*Stream
}

// scan is a piece of history owed to lagging watches.
type scan struct {
	from, to int64
	rng      anchormesh.KeyRange
	group    []*watch // all have next >= from
}

// add begins to serve w, whose next is set.
func (c *core) add(w *watch, rng anchormesh.KeyRange) {
	w.entry = c.index.Add(rng, w)
	w.added = true
	w.notify = -1
	if w.has(wantProgress) {
		w.notify = int32(len(c.notify))
		c.notify = append(c.notify, w)
	}
	if w.next < c.cursor {
		w.ahead = false
		c.owe(w)
		c.line = append(c.line, w)
	}
}

// remove ends serving w.
func (c *core) remove(w *watch) {
	if !w.added || w.gone {
		return
	}
	w.gone = true
	c.index.Remove(w.entry)
	w.entry = nil
	if w.lagging {
		c.settle(w)
	}
	if n := w.notify; n >= 0 {
		last := c.notify[len(c.notify)-1]
		c.notify[n], last.notify = last, n
		c.notify[len(c.notify)-1] = nil
		c.notify = c.notify[:len(c.notify)-1]
	}
}

// owe marks w as lagging; settle ends that.
func (c *core) owe(w *watch)    { w.lagging = true; w.stream.lagging++; c.lag++ }
func (c *core) settle(w *watch) { w.lagging = false; w.stream.lagging--; c.lag-- }

// reached reports whether progress up to the cursor may be claimed for w: as in
// etcd, the start that its client named must be reached, "from now" is at once.
func (c *core) reached(w *watch) bool {
	if w.ahead {
		return w.next < c.cursor
	}
	return w.next <= c.cursor
}

// position is the revision up to which w was handed everything.
func (c *core) position(w *watch) int64 {
	if w.lagging {
		return w.next - 1
	}
	return max(w.next, c.cursor) - 1
}

// live plans the changes of revisions [cursor, to] for the live watches and moves
// the cursor behind them.
func (c *core) live(p *plan, changes []mvcc.Event, to int64) {
	p.begin(changes)
	for i := range changes {
		ch := &changes[i]
		if ch.Main < c.cursor {
			continue
		}
		c.found = c.index.AppendMatches(c.found[:0], ch.KV.Key)
		for _, w := range c.found {
			if !w.lagging && w.wants(ch) {
				p.stage(w, i)
			}
		}
	}
	c.cursor = max(c.cursor, to+1)
}

// lost is told that history before floor is gone while the cursor needed it: the
// live watches that needed it too are returned, they are to be cancelled.
func (c *core) lost(floor int64, all []*watch) (dead []*watch) {
	for _, w := range all {
		if w.added && !w.gone && !w.lagging && max(w.next, c.cursor) < floor {
			dead = append(dead, w)
		}
	}
	c.cursor = max(c.cursor, floor)
	return dead
}

// nextScan picks the scan for the watch that has waited longest, and those that can
// share it.
func (c *core) nextScan(most int) (scan, bool) {
	for _, w := range c.line {
		if w.lagging && w.next >= c.cursor { // the cursor was taken back
			c.settle(w)
		}
	}
	c.line = slices.DeleteFunc(c.line, (*watch).out)
	if len(c.line) == 0 {
		return scan{}, false
	}
	s := scan{from: c.line[0].next, to: c.cursor - 1}
	for _, w := range c.line {
		if w.next < s.from {
			continue
		}
		if s.group = append(s.group, w); len(s.group) == 1 {
			s.rng = w.entry.Range()
		} else {
			s.rng = s.rng.Hull(w.entry.Range())
		}
		if len(s.group) == most {
			break
		}
	}
	return s, true
}

// scanned plans what a scan found in [s.from, next). It uses an index of the
// group alone: live watches of the same keys cost nothing.
func (c *core) scanned(p *plan, s scan, changes []mvcc.Event) {
	p.begin(changes)
	if len(s.group) == 1 { // the scan's range is the watch's
		for i := range changes {
			if w := s.group[0]; !w.gone && w.wants(&changes[i]) {
				p.stage(w, i)
			}
		}
		return
	}
	group := match.New[*watch](1)
	for _, w := range s.group {
		if !w.gone {
			group.Add(w.entry.Range(), w)
		}
	}
	for i := range changes {
		c.found = group.AppendMatches(c.found[:0], changes[i].KV.Key)
		for _, w := range c.found {
			if w.wants(&changes[i]) {
				p.stage(w, i)
			}
		}
	}
}

// advance moves the scan's watches, all of which got what they wanted below next
// or are full, and rearranges the line: who got further goes to the back, the
// others keep their turn.
func (c *core) advance(s scan, next int64) {
	var moved []*watch // in the order of the line, as the group is
	for _, w := range s.group {
		if w.gone || w.full || w.next >= next {
			continue
		}
		if w.next = next; next >= c.cursor {
			c.settle(w)
		} else {
			moved = append(moved, w)
		}
	}
	rest := moved
	c.line = slices.DeleteFunc(c.line, func(w *watch) bool {
		if len(rest) > 0 && w == rest[0] {
			rest = rest[1:]
			return true
		}
		return w.out()
	})
	c.line = append(c.line, moved...)
}

// out reports whether w has no place in the line.
func (w *watch) out() bool { return w.gone || w.full || !w.lagging }

// refuse notes that w's stream had no room for revision rev.
func (c *core) refuse(w *watch, rev int64) {
	w.full, w.next, w.ahead = true, rev, false
	if !w.gone && !w.lagging {
		c.owe(w)
	}
}

// resume puts the watches that a full stream had refused back in line.
func (c *core) resume(refused []*watch) {
	for _, w := range refused {
		w.full = false
		if !w.gone {
			c.line = append(c.line, w)
		}
	}
}

// compacted returns the watches of a scan that need what is below floor.
func (s scan) compacted(floor int64) (dead []*watch) {
	for _, w := range s.group {
		if !w.gone && w.next < floor {
			dead = append(dead, w)
		}
	}
	return dead
}

// ticks returns the watches that are due a progress response at this tick.
func (c *core) ticks(most int) (due []*watch) {
	for range min(most, len(c.notify)) {
		if c.turn >= len(c.notify) {
			c.turn = 0
		}
		w := c.notify[c.turn]
		c.turn++
		if !w.sent && !w.lagging && c.reached(w) {
			due = append(due, w)
		}
		w.sent = false
	}
	return due
}

func (p *plan) begin(changes []mvcc.Event) {
	p.changes = changes
	p.forms = append(p.forms[:0], make([]form, len(changes))...)
	p.dirty = p.dirty[:0]
}

func (p *plan) stage(w *watch, change int) {
	if len(w.stream.staged) == 0 {
		p.dirty = append(p.dirty, w.stream)
	}
	w.stream.staged = append(w.stream.staged, delivery{w, change})
	p.forms[change] |= w.form()
}

// everything is the range of the whole keyspace.
var everything anchormesh.KeyRange
