package watch

import (
	"context"
	"sync"

	"github.com/anchormesh/anchormesh"
)

// Request asks for a watch.
type Request struct {
	ID             int64 // 0: the stream picks one, from 0 on, as etcd does
	Range          anchormesh.KeyRange
	StartRevision  int64 // 0: from now
	Resumed        bool  // it was served before, up to StartRevision: a compaction since then does not matter to it if nothing was written
	PrevKV         bool
	ProgressNotify bool
	Fragment       bool
	NoPut          bool
	NoDelete       bool
}

// Stream carries the watches of one client stream. Its methods may be called
// concurrently; Next by one goroutine at a time.
type Stream struct {
	hub    *Hub
	ready  func()        // something to read, or the end
	notify chan struct{} // what ready of NewStream sends to

	mu      sync.Mutex
	watches map[int64]*watch
	nextID  int64
	box     outbox
	starved bool          // a watch was refused; tell the hub when drained
	room    chan struct{} // non-nil while a Create waits; closed when it may go on
	closed  bool
	ended   error // the hub stopped: what is queued is still read

	lagging int // watches that lag; guarded by the hub's lock

	// Owned by the hub's goroutine.
	staged  []delivery
	refused []*watch
}

// Create begins a watch. Its Created response is queued before anything else of
// it, with the returned revision. It waits while very many Created responses are
// unread.
func (s *Stream) Create(ctx context.Context, r Request) (id, revision int64, err error) {
	if r.Range.Empty() {
		return 0, 0, ErrEmptyRange
	}
	if r.StartRevision < 0 {
		return 0, 0, ErrStartRevision
	}
	if err := s.waitRoom(ctx); err != nil {
		return 0, 0, err
	}
	w := &watch{stream: s, flags: r.flags(), ahead: r.StartRevision != 0}
	// Read before the watch is added: if the hub gets further in between, the
	// watch lags and history fills the difference.
	revision, _ = s.hub.history.Revision()
	if w.next = r.StartRevision; w.next == 0 {
		w.next = revision + 1
	}
	if err := s.open(w, r.ID, revision); err != nil {
		return 0, 0, err
	}
	s.hub.add(w, r.Range)
	return w.id, revision, nil
}

func (r *Request) flags() (f flags) {
	for _, o := range []struct {
		on   bool
		flag flags
	}{
		{r.PrevKV, wantPrevKV}, {r.ProgressNotify, wantProgress}, {r.Fragment, wantFragment},
		{r.NoPut, noPut}, {r.NoDelete, noDelete}, {r.Resumed, resumed},
	} {
		if o.on {
			f |= o.flag
		}
	}
	return f
}

// open gives w its ID and queues the Created response.
func (s *Stream) open(w *watch, id, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.overLocked(); err != nil {
		return err
	}
	if id == 0 {
		for s.watches[s.nextID] != nil {
			s.nextID++
		}
		id = s.nextID
		s.nextID++
	} else if s.watches[id] != nil {
		return ErrDuplicateID
	}
	w.id = id
	s.watches[id] = w
	s.box.control(w, Response{ID: id, Revision: revision, Created: true})
	s.wakeLocked()
	return nil
}

// waitRoom waits until few enough Created responses are unread.
func (s *Stream) waitRoom(ctx context.Context) error {
	for {
		s.mu.Lock()
		if err := s.overLocked(); err != nil || s.box.creates < s.hub.limits.StreamControls {
			s.mu.Unlock()
			return err
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Stream) overLocked() error {
	if s.closed {
		return ErrStreamClosed
	}
	return s.ended
}

// Cancel ends a watch. It reports whether there was one; then a Canceled response
// is queued, and nothing of the watch comes behind it.
func (s *Stream) Cancel(id int64) bool {
	revision, _ := s.hub.history.Revision()
	s.mu.Lock()
	w := s.watches[id]
	if w != nil {
		s.finishLocked(w, Response{Revision: revision})
	}
	s.mu.Unlock()
	if w == nil {
		return false
	}
	s.hub.remove([]*watch{w})
	return true
}

// finishLocked queues the response that ends w and lets go of it.
func (s *Stream) finishLocked(w *watch, r Response) {
	delete(s.watches, w.id)
	w.closed = true
	r.ID, r.Canceled = w.id, true
	s.box.control(w, r)
	s.wakeLocked()
}

// RequestProgress asks for one progress response with StreamID: the revision up
// to which everything was queued for every watch of the stream, at least the
// segment's current one. It comes when no watch lags; as in etcd it does not come
// at all while a watch starts in the future or the stream has none.
func (s *Stream) RequestProgress() {
	revision, _ := s.hub.history.Revision()
	s.hub.ask(s, revision)
}

// Mark asks for one mark for each of the watches, at revision rev: a response that
// comes behind every event of the watch that the segment has published by now, up to
// where Hold stands; of a lagging watch, when it has caught up to there. The caller
// knows that nothing else at or below rev can appear in the segment: a barrier at rev
// was answered, and all that its leader had applied then, not only up to the round's
// read index, is applied here and published. That the mark stands
// behind what is above rev, too, is for transactions: one that was prepared below rev
// may be committed above it, and no stamp tells the home of that. A watch that ended,
// or ends before its mark, brings none. Of many requests for one watch the oldest
// and the newest are kept.
func (s *Stream) Mark(rev int64, ids ...int64) {
	at := s.hub.queue.markAt(rev)
	s.mu.Lock()
	marks := make([]mark, 0, len(ids))
	for _, id := range ids {
		if w := s.watches[id]; w != nil {
			marks = append(marks, mark{w: w, at: at, rev: rev})
		}
	}
	s.mu.Unlock()
	s.hub.mark(marks)
}

// Next waits for the next response. After Close it returns ErrStreamClosed; after
// Hub.Stop, what is queued and then the reason.
func (s *Stream) Next(ctx context.Context) (Response, error) {
	for {
		r, ok, err := s.Poll()
		if ok || err != nil {
			return r, err
		}
		select {
		case <-s.notify:
		case <-ctx.Done():
			return Response{}, ctx.Err()
		}
	}
}

// Poll is Next without waiting: ok says whether there was a response.
func (s *Stream) Poll() (r Response, ok bool, err error) {
	s.mu.Lock()
	r, ok, ready := s.popLocked()
	if !ok {
		err = s.overLocked()
	}
	s.mu.Unlock()
	if ready {
		s.hub.ready(s)
	}
	return r, ok, err
}

// popLocked takes a response; ready means that lagging watches may go on.
func (s *Stream) popLocked() (r Response, ok, ready bool) {
	r, ok = s.box.pop()
	if s.starved && s.box.drained() {
		s.starved, ready = false, true
	}
	if s.room != nil && s.box.creates <= s.hub.limits.StreamControls/2 {
		close(s.room)
		s.room = nil
	}
	return r, ok, ready
}

// Close ends the stream and all its watches. Nothing more is read from it.
func (s *Stream) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	all := make([]*watch, 0, len(s.watches))
	for _, w := range s.watches {
		w.closed = true
		all = append(all, w)
	}
	s.watches = nil
	s.box = outbox{}
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.wakeLocked()
	s.mu.Unlock()
	s.hub.forget(s, all)
}

// deliver queues what the hub staged and returns the watches that found no room,
// with the first revision each of them missed. Called by the hub's goroutine.
func (s *Stream) deliver(events []*Event) (missed []refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.staged {
		if d.w.closed || d.w.full {
			continue
		}
		ev := events[d.change]
		if s.box.add(d.w, ev) {
			d.w.sent = true
			continue
		}
		d.w.full = true
		s.starved = true
		missed = append(missed, refusal{d.w, ev.rev})
	}
	s.wakeLocked()
	if clear(s.staged); cap(s.staged) > keepEntries {
		s.staged = nil
	}
	s.staged = s.staged[:0]
	return missed
}

// refusal is a watch whose stream had no room for a revision.
type refusal struct {
	w   *watch
	rev int64
}

func (s *Stream) wakeLocked() { s.ready() }
