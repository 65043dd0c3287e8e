package weave

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// create begins a watch: one thread without a segment.
func (w *Weave) create(now time.Time, ev Create) {
	invariant.Always(!w.Has(ev.ID), "weave: watch %d twice", ev.ID)
	b := &braid{req: ev.Request, requireLeader: ev.RequireLeader, resumed: ev.Resumed, start: ev.StartRevision}
	t := w.newThread(b, ev.Range)
	if b.began() {
		t.closed = b.start - 1
		b.closed = t.closed
	}
	b.threads = []*thread{t}
	w.braids[ev.ID] = b
	w.order = append(w.order, b)
	w.starting = append(w.starting, b)
	if ev.ProgressNotify {
		if w.notify++; w.tick.IsZero() {
			w.tick = now.Add(w.limits.ProgressInterval)
		}
	}
	w.fx.Locate = append(w.fx.Locate, Locate{Thread: t.id, Range: t.keys})
}

func (w *Weave) newThread(b *braid, keys anchormesh.KeyRange) *thread {
	w.nextThread++
	t := &thread{id: w.nextThread, braid: b, keys: keys}
	w.threads[t.id] = t
	return t
}

// located replaces a lost thread by one for each segment that holds its keys.
func (w *Weave) located(ev Located) {
	old := w.threads[ev.Thread]
	if old == nil || old.state != lost {
		return
	}
	b := old.braid
	delete(w.threads, old.id)
	var threads []*thread
	for _, t := range b.threads {
		if t != old {
			threads = append(threads, t)
			continue
		}
		for _, p := range clip(ev.Parts, old.keys) {
			t := w.newThread(b, p.Range)
			t.segment, t.closed, t.heard, t.state = p.Segment, old.closed, old.heard, waiting
			threads = append(threads, t)
		}
	}
	b.threads = threads
	for i, t := range threads {
		if t.state == waiting && b.began() {
			w.open(t)
		}
		if i > 0 && threads[i-1].segment == t.segment {
			b.seam = seam{open: true}
			w.home.need = true
		}
	}
	if b.seq == 0 {
		b.seq = w.home.asked + 1
		w.home.need = true
	}
}

// clip cuts parts down to keys; together they must be keys.
func clip(parts []Part, keys anchormesh.KeyRange) (out []Part) {
	for _, p := range parts {
		if p.Range.Overlaps(keys) {
			p.Range = p.Range.Intersect(keys)
			out = append(out, p)
		}
	}
	at := keys.Start
	for i, p := range out {
		invariant.Always(string(p.Range.Start) == string(at) && (i == 0 || len(at) > 0),
			"weave: %v is covered by %v", keys, parts)
		at = p.Range.End
	}
	invariant.Always(len(out) > 0 && string(at) == string(keys.End), "weave: %v is covered by %v", keys, parts)
	return out
}

// told takes the home's answer: for keys that it does not name nothing above Since
// and at or below Revision was or will be written, but for transactions that had
// been prepared by Since. That closes a thread up to Revision only if it has heard up
// to Since; the others are asked, and their marks come behind their events.
func (w *Weave) told(ev Told) {
	invariant.Always(w.home.flying > 0, "weave: told %d, asked for nothing", ev.Seq)
	w.home.flying--
	w.top = max(w.top, ev.Revision)
	named := newNamed(ev.Ranges)
	if w.progress.seq != 0 && w.progress.seq <= ev.Seq && w.progress.at == 0 {
		w.progress.at = ev.Revision
	}
	for _, b := range w.order {
		w.toldBraid(b, ev, named)
	}
	for _, b := range w.starting {
		if b.unheaded() && b.seq <= ev.Seq {
			b.header = ev.Revision
			b.ended.Revision = max(b.ended.Revision, b.header)
		}
	}
}

// unheaded reports whether a watch that history cannot serve still waits for the header of
// its Created response, which must be as fresh as any other's.
func (b *braid) unheaded() bool {
	return b.ended != nil && b.ended.CompactRevision != 0 && b.header == 0 && b.seq != 0
}

func (w *Weave) toldBraid(b *braid, ev Told, named *named) {
	if b.header == 0 && b.seq != 0 && b.seq <= ev.Seq {
		w.start(b, ev.Revision)
	}
	if !b.began() {
		return
	}
	named.rewind()
	for _, t := range b.threads {
		if t.state != cut && t.heard > 0 && t.heard >= ev.Since && t.heard < ev.Revision && !named.overlap(t.keys) {
			t.closed, t.heard = max(t.closed, ev.Revision), ev.Revision
		}
	}
	if b.progress.seq != 0 && b.progress.seq <= ev.Seq && b.progress.at == 0 {
		b.progress.at = ev.Revision
	}
	if b.wanting(w.progress.at) {
		if b.seam.at == 0 {
			b.seam.at = ev.Revision
		}
		if max(w.progress.at, b.progress.at) > ev.Revision {
			w.home.need = true // an older answer overtook: it does not get b there
		}
		b.aim(ev.Revision)
		for _, t := range b.threads {
			w.bar(t, b.goal)
		}
	}
	if w.home.flying == 0 {
		b.asked = min(b.asked, b.goal) // of what came too late for the answer, ask again
	}
	w.settle(b)
}

// start gives a watch its header, and begins it with a barrier at that. What starts
// "from now" wants nothing at or below the header, but a write could yet take a stamp
// up to there, behind Created and unseen, so Created waits for the marks. What starts
// elsewhere needs them for what it will show; with one thread it does not.
func (w *Weave) start(b *braid, header int64) {
	b.header = header
	now := !b.began()
	if now {
		b.start, b.closed = header+1, header-1
		for _, t := range b.threads {
			t.closed = b.closed
		}
	}
	if now || len(b.threads) > 1 {
		b.aim(header)
	}
	for _, t := range b.threads {
		switch {
		case t.state == waiting:
			w.open(t)
		case t.closed < b.goal:
			w.bar(t, b.goal)
		}
	}
}

// begin sends the Created responses that are due, in the order of the requests.
func (w *Weave) begin() {
	for len(w.starting) > 0 {
		b := w.starting[0]
		if b.ended == nil && !b.ready() || b.unheaded() {
			return
		}
		w.starting = w.starting[1:]
		created := watch.Response{ID: b.req.ID, Revision: b.header, Created: true}
		if b.header == 0 {
			created.Revision = w.top
		}
		w.send(created)
		if b.ended != nil {
			w.send(*b.ended)
			continue
		}
		b.created = true
		w.home.need = w.home.need || b.seam.open
		w.settle(b)
	}
}

// ready reports whether Created may be sent.
func (b *braid) ready() bool {
	return b.header != 0 && (b.req.StartRevision != 0 || b.floor() >= b.header)
}
