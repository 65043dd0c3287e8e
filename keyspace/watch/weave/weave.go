package weave

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// Weave merges what the segments' hubs bring for the watches of one client stream.
// Its methods are called by one goroutine at a time.
type Weave struct {
	limits   Limits
	braids   map[int64]*braid
	order    []*braid // all braids, by creation
	starting []*braid // those whose Created was not sent, in the order of the requests
	threads  map[int64]*thread

	nextID, nextThread int64

	held     int   // bytes of events that wait
	shown    int64 // the highest revision that was sent
	top      int64 // the highest revision that was sent or told
	home     home
	progress streamProgress
	notify   int       // watches that asked for periodic progress
	tick     time.Time // when they are looked at next

	fx   Effects
	bars map[barKey]int // of this step's effects: index into fx.Barrier
}

// home is where the questions to the home stand.
type home struct {
	asked  uint64 // questions sent
	flying int    // of them not answered
	need   bool   // something waits that no question covers
}

// streamProgress is a request for progress of the whole stream.
type streamProgress struct {
	seq   uint64 // the question that covers it; zero: none is wanted
	at    int64  // the revision it has to reach; zero: not told yet
	again bool   // another came meanwhile
}

type barKey struct {
	segment  anchormesh.SegmentID
	revision int64
}

// New returns a weave without watches.
func New(limits Limits) (*Weave, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	return &Weave{
		limits:  limits,
		braids:  make(map[int64]*braid),
		threads: make(map[int64]*thread),
		bars:    make(map[barKey]int),
	}, nil
}

// Pick returns the ID for a new watch: the one that its client named, or for zero the
// next free one, from 0 on, as etcd does. It is watch.ErrDuplicateID if the ID is
// taken.
func (w *Weave) Pick(id int64) (int64, error) {
	if id != 0 {
		if w.Has(id) {
			return 0, watch.ErrDuplicateID
		}
		return id, nil
	}
	for w.Has(w.nextID) {
		w.nextID++
	}
	w.nextID++
	return w.nextID - 1, nil
}

// Skip keeps the IDs below floor from being picked: who served the stream before has
// given them.
func (w *Weave) Skip(floor int64) { w.nextID = max(w.nextID, floor) }

// Has reports whether the stream has the watch.
func (w *Weave) Has(id int64) bool { return w.braids[id] != nil }

// Step takes one event at time now and returns what follows from it.
func (w *Weave) Step(now time.Time, ev Event) Effects {
	switch ev := ev.(type) {
	case Create:
		w.create(now, ev)
	case Cancel:
		if b := w.braids[ev.ID]; b != nil {
			w.finish(b, watch.Response{})
		}
	case Progress:
		w.askProgress()
	case Located:
		w.located(ev)
	case Came:
		w.came(ev.Response)
	case Broke:
		if t := w.threads[ev.Thread]; t != nil && t.state == open {
			w.lose(t)
		}
	case Told:
		w.told(ev)
	case Leaderless:
		w.leaderless(ev.Range)
	case Tick:
	}
	w.ticked(now)
	w.cutMost()
	w.begin()
	w.answerProgress()
	w.ask()
	fx := w.fx
	fx.Next = w.tick
	w.fx = Effects{}
	clear(w.bars)
	return fx
}

// came takes what a flow brought. What a thread brings that was closed is late and
// goes nowhere.
func (w *Weave) came(r watch.Response) {
	t := w.threads[r.ID]
	if t == nil || t.state != open {
		return
	}
	b, before := t.braid, t.closed
	switch {
	case r.Canceled && r.CompactRevision > t.closed+1:
		w.finish(b, watch.Response{CompactRevision: r.CompactRevision})
		return
	case r.Canceled && r.CompactRevision != 0:
		w.lose(t) // what the hub had yet to read is known to be nothing
		return
	case r.Canceled:
		if r.Revision >= b.start { // else it says only that nothing was wanted yet
			t.closed = max(t.closed, r.Revision)
		}
		w.lose(t)
		return
	case r.Mark:
		t.closed, t.heard = max(t.closed, r.Revision), max(t.heard, r.Revision)
	case len(r.Events) > 0:
		if r.Events[0].Revision() <= t.closed {
			w.finish(b, watch.Response{Reason: ErrPromise})
			return
		}
		t.closed = r.Events[len(r.Events)-1].Revision()
		b.want = max(b.want, t.closed)
		if len(b.threads) == 1 && b.created && len(b.held) == 0 {
			w.pass(b, r)
			break
		}
		w.hold(t, r)
	default:
		return // Created: what the hub says of its own revision is one segment's view
	}
	if before <= b.closed {
		w.settle(b)
	} else {
		w.pursue(b)
	}
}

// lose notes that t has no flow any more and asks for another.
func (w *Weave) lose(t *thread) {
	t.state, t.asked = lost, 0
	w.fx.Locate = append(w.fx.Locate, Locate{Thread: t.id, Range: t.keys})
	w.settle(t.braid)
}

// leaderless ends the watches that require a leader and reach into keys.
func (w *Weave) leaderless(keys anchormesh.KeyRange) {
	for _, b := range slices.Clone(w.order) {
		if b.requireLeader && b.req.Range.Overlaps(keys) {
			w.finish(b, watch.Response{Reason: ErrNoLeader})
		}
	}
}

// finish ends a watch with the response r.
func (w *Weave) finish(b *braid, r watch.Response) {
	for _, t := range b.threads {
		if t.state == open {
			w.fx.Close = append(w.fx.Close, t.id)
		}
		delete(w.threads, t.id)
	}
	w.held -= b.bytes
	b.threads, b.held, b.bytes = nil, nil, 0
	delete(w.braids, b.req.ID)
	w.order = slices.DeleteFunc(w.order, func(o *braid) bool { return o == b })
	if b.req.ProgressNotify {
		w.notify--
	}
	r.ID, r.Canceled, r.Revision = b.req.ID, true, max(w.top, b.header)
	if b.created {
		w.send(r)
	} else {
		b.ended = &r // behind its Created response, in its turn
	}
}

// bar asks for a barrier on the thread.
func (w *Weave) bar(t *thread, revision int64) {
	if t.state != open || t.heard >= revision || t.asked >= revision {
		return
	}
	t.asked = revision
	key := barKey{t.segment, revision}
	i, ok := w.bars[key]
	if !ok {
		i = len(w.fx.Barrier)
		w.bars[key] = i
		w.fx.Barrier = append(w.fx.Barrier, Barrier{Segment: t.segment, Revision: revision})
	}
	w.fx.Barrier[i].Threads = append(w.fx.Barrier[i].Threads, t.id)
}

// open begins the thread's flow.
func (w *Weave) open(t *thread) {
	req := t.braid.req
	req.ID, req.Range, req.ProgressNotify = t.id, t.keys, false
	req.StartRevision = max(t.braid.start, t.closed+1)
	req.Resumed = t.closed >= t.braid.start
	invariant.Always(req.StartRevision > 0, "weave: thread %d starts at %d", t.id, req.StartRevision)
	t.state = open
	w.fx.Open = append(w.fx.Open, Open{Segment: t.segment, Request: req})
	if t.closed < t.braid.goal {
		w.bar(t, t.braid.goal)
	}
}
