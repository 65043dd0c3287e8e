package weave

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// seam is where two neighbours that come from one segment are to be joined.
type seam struct {
	open bool
	at   int64 // zero: not told yet
}

// braid is one watch of the client: threads that cover its range, in order of keys.
type braid struct {
	req           watch.Request // ID is the client's
	requireLeader bool
	resumed       bool
	threads       []*thread

	start   int64           // first revision wanted; zero: behind the header, not told yet
	header  int64           // the revision of the Created response; zero: not told yet
	seq     uint64          // the question that covers the start; zero: not asked yet
	created bool            // Created was sent
	ended   *watch.Response // ended before that

	// closed is the smallest of the threads': everything at or below it was sent.
	closed int64
	want   int64 // the highest revision that any thread brought
	goal   int64 // all threads are to be closed up to here
	before int64 // the goal before that
	asked  int64 // want, when the home was asked for its sake
	held   pieces
	bytes  int
	cuts   int // threads that were cut
	seam   seam
	sent   bool // got an event since the last tick

	progress struct {
		seq uint64 // the question that covers it; zero: none is due
		at  int64  // what it has to reach; zero: not told yet
	}
}

// state of a thread.
type state uint8

const (
	lost    state = iota // its segment is being located
	waiting              // located; the revision to start from is not known yet
	open                 // has a flow
	cut                  // was closed because too much was held
)

// thread is the part of a watch that comes from one segment in one flow. When it
// breaks, others with new IDs replace it.
type thread struct {
	id      int64
	braid   *braid
	segment anchormesh.SegmentID
	keys    anchormesh.KeyRange
	state   state
	// closed: everything in keys at or below it that the watch wants has come.
	closed int64
	// heard: a barrier at it is in force in keys, and all that had been applied when
	// that was answered has come. Events above it say nothing of this.
	heard  int64
	asked  int64 // a barrier up to here was asked for
	gap    int64 // of a cut thread: the first revision that was dropped
	bytes  int   // held
	newest int64 // held
}

// piece is what one thread brought of one revision.
type piece struct {
	revision int64
	thread   *thread
	events   []*watch.Event
	bytes    int
}

// pieces is a heap in the order of release: by revision. What several brought of one
// revision is put in order then.
type pieces []piece

func (p pieces) Len() int { return len(p) }
func (p pieces) Less(i, j int) bool {
	if p[i].revision != p[j].revision {
		return p[i].revision < p[j].revision
	}
	return bytes.Compare(p[i].thread.keys.Start, p[j].thread.keys.Start) < 0
}
func (p pieces) Swap(i, j int) { p[i], p[j] = p[j], p[i] }

// Push and Pop are the heap's.
func (p *pieces) Push(x any) { *p = append(*p, x.(piece)) }

// Pop removes the last.
func (p *pieces) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = piece{}
	*p = old[:len(old)-1]
	return last
}

// floor is the revision up to which every thread is closed. It never falls, so the
// first thread that stands where all did ends the walk.
func (b *braid) floor() int64 {
	low := b.threads[0].closed
	for _, t := range b.threads {
		if low = min(low, t.closed); low == b.closed {
			break
		}
	}
	return low
}

// began reports whether the watch knows where it starts.
func (b *braid) began() bool { return b.start != 0 }

// wanting reports whether something waits for the threads to be closed further;
// stream is what the progress of the stream waits for.
func (b *braid) wanting(stream int64) bool {
	return b.want > b.closed || max(stream, b.progress.at) > b.closed || b.seam.open
}

// reached reports whether progress at a revision may be claimed: a start that the
// client named must be reached, "from now" and what goes on is at once.
func (b *braid) reached(at int64) bool {
	if b.req.StartRevision != 0 && !b.resumed {
		return b.start <= at
	}
	return b.start <= at+1
}

// aim raises the goal.
func (b *braid) aim(revision int64) {
	if revision > b.goal {
		b.before, b.goal = b.goal, revision
	}
}

// pieceOverhead is what a held event counts beyond its encoding.
const pieceOverhead = 64

// hold keeps what t brought, by revision.
func (w *Weave) hold(t *thread, r watch.Response) {
	for rest := r.Events; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && rest[n].Revision() == rest[0].Revision() {
			size += len(rest[n].Field(r.PrevKV)) + pieceOverhead
			n++
		}
		p := piece{revision: rest[0].Revision(), thread: t, events: rest[:n:n], bytes: size}
		heap.Push(&t.braid.held, p)
		t.newest = p.revision
		w.account(p, size)
		rest = rest[n:]
	}
}

func (w *Weave) account(p piece, size int) {
	p.thread.bytes += size
	p.thread.braid.bytes += size
	w.held += size
}

// pass sends what the only thread of a watch brought as it is.
func (w *Weave) pass(b *braid, r watch.Response) {
	r.ID = b.req.ID
	b.sent = true
	w.send(r)
}

func (w *Weave) send(r watch.Response) {
	w.shown = max(w.shown, r.Revision)
	w.top = max(w.top, r.Revision)
	w.fx.Send = append(w.fx.Send, r)
}

// release sends everything at or below b.closed, by revision, all events of one
// revision in one response and in the order in which they were written, as if they
// had come from one segment.
func (w *Weave) release(b *braid) {
	var r watch.Response
	from := 0 // where the newest revision begins in r
	flush := func() {
		if len(r.Events) > 0 {
			w.pass(b, r)
		}
		r = watch.Response{PrevKV: b.req.PrevKV, Fragment: b.req.Fragment}
	}
	flush()
	for len(b.held) > 0 && b.held[0].revision <= b.closed {
		p := heap.Pop(&b.held).(piece)
		w.account(p, -p.bytes)
		if p.revision != r.Revision && r.Bytes >= w.limits.ResponseBytes {
			flush()
		}
		if p.revision != r.Revision {
			from = len(r.Events)
		}
		again := len(r.Events) > from
		r.Revision = p.revision
		r.Events = append(r.Events, p.events...)
		if again {
			slices.SortStableFunc(r.Events[from:], func(x, y *watch.Event) int { return cmp.Compare(x.Sub(), y.Sub()) })
		}
		r.Bytes += p.bytes - len(p.events)*pieceOverhead
	}
	flush()
}

// drop forgets the held pieces that no longer count and returns the first of their
// revisions, or zero.
func (w *Weave) drop(b *braid, dead func(piece) bool) (first int64) {
	keep := b.held[:0]
	for _, p := range b.held {
		if !dead(p) {
			keep = append(keep, p)
			continue
		}
		w.account(p, -p.bytes)
		if first == 0 || p.revision < first {
			first = p.revision
		}
	}
	clear(b.held[len(keep):])
	b.held = keep
	heap.Init(&b.held)
	return first
}
