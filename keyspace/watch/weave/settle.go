package weave

import (
	"math"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// settle does what the state of b's threads allows.
func (w *Weave) settle(b *braid) {
	if !b.created {
		return
	}
	low := b.floor()
	invariant.Always(low >= b.closed, "weave: watch %d was closed up to %d, now up to %d", b.req.ID, b.closed, low)
	b.closed = low
	w.release(b)
	if b.cuts > 0 {
		w.reopen(b)
	}
	if b.seam.open && b.seam.at > 0 && b.closed >= b.seam.at {
		w.fuse(b)
	}
	w.answerWatch(b)
	w.pursue(b)
}

// pursue sees to it that what waits will be released: if few threads stand in the
// way, barriers at once, else through the home.
func (w *Weave) pursue(b *braid) {
	if !b.created || b.want <= b.closed || b.want <= b.goal {
		return
	}
	behind := 0
	for _, t := range b.threads {
		if t.closed < b.want {
			behind++
		}
		if behind > w.limits.Direct {
			break
		}
	}
	switch {
	case behind <= w.limits.Direct && b.closed < b.goal:
		// One exchange at a time; its end comes back here.
	case behind <= w.limits.Direct:
		b.aim(b.want)
		for _, t := range b.threads {
			if t.closed < b.goal {
				w.bar(t, b.goal)
			}
		}
	case b.closed >= b.before && b.want > b.asked: // else two goals are not reached yet
		b.asked = b.want
		w.home.need = true
	}
}

// ask sends the question to the home that is needed, if there is room for one.
func (w *Weave) ask() {
	if !w.home.need || w.home.flying >= w.limits.Asks {
		return
	}
	w.home.need = false
	w.home.flying++
	w.home.asked++
	w.fx.Ask = &Ask{Seq: w.home.asked, Since: w.since()}
}

// since is the revision up to which those threads have heard that the answer is to
// speak of. Those that are being asked, or never were, are asked anyway.
func (w *Weave) since() int64 {
	low := int64(math.MaxInt64)
	for _, b := range w.order {
		if !b.wanting(w.progress.at) && b.progress.seq == 0 && w.progress.seq == 0 {
			continue
		}
		for _, t := range b.threads {
			if t.heard > 0 && t.asked <= t.heard && t.state != cut {
				low = min(low, t.heard)
			}
		}
	}
	return low
}

// cutMost cuts threads while too much is held. What stands at the first waiting
// revision of a watch is never dropped: it may be all that the others wait for.
func (w *Weave) cutMost() {
	for w.held > w.limits.HeldBytes {
		var most *thread
		for _, b := range w.order {
			for _, t := range b.threads {
				if t.state == open && t.bytes > 0 && t.newest > b.held[0].revision && (most == nil || t.bytes > most.bytes) {
					most = t
				}
			}
		}
		if most == nil {
			return
		}
		w.cut(most)
	}
}

func (w *Weave) cut(t *thread) {
	b := t.braid
	first := b.held[0].revision
	t.gap = w.drop(b, func(p piece) bool { return p.thread == t && p.revision > first })
	t.state, t.closed, t.asked, t.newest = cut, t.gap-1, 0, first
	t.heard = 0 // what was dropped has not come
	b.cuts++
	w.fx.Close = append(w.fx.Close, t.id)
}

// reopen goes on with the cut threads for which the others wait: what they bring
// next can be released, or is of the same revision as what another cut one brings.
func (w *Weave) reopen(b *braid) {
	for _, t := range b.threads {
		if t.state != cut || slices.ContainsFunc(b.threads, func(o *thread) bool {
			return o.closed < t.gap && !(o.state == cut && o.gap <= t.gap)
		}) {
			continue
		}
		t.state = lost
		b.cuts--
		w.fx.Locate = append(w.fx.Locate, Locate{Thread: t.id, Range: t.keys})
	}
}

// fuse makes one thread of neighbours that come from one segment, now that both are
// closed up to one revision: a watch has no more threads than its range has segments.
func (w *Weave) fuse(b *braid) {
	b.seam.open = false
	var out []*thread
	for _, t := range b.threads {
		last := len(out) - 1
		if last < 0 || out[last].segment != t.segment || t.state == lost || out[last].state == lost {
			out = append(out, t)
			continue
		}
		if !joinable(out[last], t) {
			b.seam.open = true // until later
			out = append(out, t)
			continue
		}
		out[last] = w.join(out[last], t)
	}
	b.threads = out
}

// joinable reports whether two neighbours can be joined now: not while one is closed,
// nor while something waits that a thread brought whose place they took, and that
// would come again.
func joinable(l, r *thread) bool {
	if l.state != open || r.state != open {
		return false
	}
	closed := min(l.closed, r.closed)
	return !slices.ContainsFunc(l.braid.held, func(p piece) bool {
		return p.revision > closed && p.thread != l && p.thread != r &&
			(p.thread.keys.Overlaps(l.keys) || p.thread.keys.Overlaps(r.keys))
	})
}

// join replaces two threads by one. What they brought beyond the point up to which
// both are closed comes again.
func (w *Weave) join(l, r *thread) *thread {
	closed := min(l.closed, r.closed)
	lost := w.drop(l.braid, func(p piece) bool { return (p.thread == l || p.thread == r) && p.revision > closed })
	for _, t := range []*thread{l, r} {
		delete(w.threads, t.id)
		w.fx.Close = append(w.fx.Close, t.id)
	}
	t := w.newThread(l.braid, anchormesh.KeyRange{Start: l.keys.Start, End: r.keys.End})
	t.segment, t.closed = l.segment, closed
	if lost == 0 {
		t.heard = min(l.heard, r.heard, closed)
	}
	w.open(t)
	return t
}

// ticked begins periodic progress, for the watches that asked for it and got no event
// in the meantime.
func (w *Weave) ticked(now time.Time) {
	if w.notify == 0 {
		w.tick = time.Time{}
		return
	}
	if now.Before(w.tick) {
		return
	}
	w.tick = now.Add(w.limits.ProgressInterval)
	for _, b := range w.order {
		if !b.req.ProgressNotify || !b.created {
			continue
		}
		if !b.sent && b.progress.seq == 0 {
			b.progress.seq = w.home.asked + 1
			w.home.need = true
		}
		b.sent = false
	}
}

// answerWatch sends the periodic progress of a watch once it is closed up to what the
// home told after the tick: no header that anybody was shown before is above that.
func (w *Weave) answerWatch(b *braid) {
	if b.progress.at == 0 || b.closed < b.progress.at {
		return
	}
	b.progress.seq, b.progress.at = 0, 0
	if b.reached(b.closed) {
		w.send(watch.Response{ID: b.req.ID, Revision: b.closed, Progress: true})
	}
}

// askProgress takes a request for the progress of the stream. As in etcd it is not
// answered while there is no watch.
func (w *Weave) askProgress() {
	switch {
	case len(w.order) == 0:
	case w.progress.seq != 0:
		w.progress.again = true
	default:
		w.progress.seq = w.home.asked + 1
		w.home.need = true
	}
}

// answerProgress answers for the stream once every watch got there: one response for
// all, or, where a watch was shown more than another has reached or starts above it,
// one for each, for a client takes none that goes back. As in etcd there is no answer if
// a watch starts in the future.
func (w *Weave) answerProgress() {
	if w.progress.at == 0 || len(w.starting) > 0 {
		return
	}
	low, reached := w.top, true
	for _, b := range w.order {
		if b.closed < w.progress.at {
			return
		}
		reached = reached && b.reached(b.closed)
		low = min(low, b.closed)
	}
	together := low >= w.shown && !slices.ContainsFunc(w.order, func(b *braid) bool { return !b.reached(low) })
	again := w.progress.again
	w.progress = streamProgress{}
	switch {
	case !reached || len(w.order) == 0:
	case together:
		w.send(watch.Response{ID: watch.StreamID, Revision: low, Progress: true})
	default:
		for _, b := range w.order {
			w.answerOne(b)
		}
	}
	if again {
		w.askProgress()
	}
}

// answerOne answers for one watch; if it was created at a later revision than it has
// reached, then when it got there.
func (w *Weave) answerOne(b *braid) {
	if b.closed >= b.header {
		w.send(watch.Response{ID: b.req.ID, Revision: b.closed, Progress: true})
		return
	}
	b.progress.seq, b.progress.at = w.home.asked+1, 0
	w.home.need = true
}
