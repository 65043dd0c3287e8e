package watches

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/node/host"
)

// stream is the watches of one client stream; it implements etcdapi.WatchStream.
//
// While the scope was never split, it is one stream of the hub of its only segment,
// passed through. At the first split the watches move to a weave one by one: a mark
// behind all that the segment had published, or the end that the hub gave those that
// reach beyond the split, says from where each goes on.
type stream struct {
	watches *Watches
	in      inlets
	replica *host.Replica
	timer   *time.Timer // of Next

	// direct is the hub's stream; nil once everything is woven. Written by Next,
	// under mu; so is moving.
	direct *watch.Stream
	moving bool

	mu       sync.Mutex
	woven    *woven          // from the move on
	moved    chan struct{}   // closed when direct is nil
	creating []watch.Request // given to direct, and Created not read yet
	held     map[int64]*held // the watches of direct, from Created on
	floor    int64           // IDs below were given by direct
	asked    bool            // for progress, and not answered
}

// held is one watch of a direct stream.
type held struct {
	req      watch.Request
	shown    int64 // while moving: up to where everything was shown
	canceled bool  // by the client
}

func newStream(w *Watches) *stream {
	s := &stream{watches: w, moved: make(chan struct{})}
	s.in.notify = make(chan struct{}, 1)
	return s
}

// newDirect returns a stream of the hub of the only segment of a scope.
func newDirect(w *Watches, r *host.Replica) *stream {
	s := newStream(w)
	s.replica, s.held = r, make(map[int64]*held)
	s.direct = r.Hub.NewStreamFunc(s.in.nudge)
	return s
}

// newSeveral returns a stream in a keyspace that was split.
func newSeveral(w *Watches) *stream {
	s := newStream(w)
	s.woven = newWoven(w, &s.in)
	close(s.moved)
	return s
}

// Create implements etcdapi.WatchStream.
func (s *stream) Create(ctx context.Context, r watch.Request) (id, revision int64, err error) {
	s.mu.Lock()
	if s.woven != nil {
		s.mu.Unlock()
		select {
		case <-s.moved:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		id, err = s.woven.create(ctx, r)
		return id, 0, err
	}
	s.creating = append(s.creating, r)
	direct := s.direct
	s.mu.Unlock()
	s.watches.host.CatchUp(ctx, s.replica) // "from now" begins behind what the client wrote here
	id, revision, err = direct.Create(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.creating = s.creating[:len(s.creating)-1] // no other Create runs
		s.in.nudge()                                // perhaps it was the last that the move waits for
	case r.ID == 0:
		s.floor = max(s.floor, id+1)
	}
	return id, revision, err
}

// Cancel implements etcdapi.WatchStream.
func (s *stream) Cancel(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[id]; h != nil {
		h.canceled = true
		s.direct.Cancel(id) // if it has ended already, that is told as the client's wish
		return true
	}
	return s.direct != nil && s.direct.Cancel(id) || s.woven != nil && s.woven.cancel(id)
}

// RequestProgress implements etcdapi.WatchStream.
func (s *stream) RequestProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.direct == nil {
		s.woven.requestProgress()
		return
	}
	s.asked = true // until answered, and again behind the move
	if s.woven == nil {
		s.direct.RequestProgress()
	}
}

// Close implements etcdapi.WatchStream.
func (s *stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.direct != nil {
		s.direct.Close()
	}
	if s.woven != nil {
		s.woven.close()
	}
}

// Next implements etcdapi.WatchStream.
func (s *stream) Next(ctx context.Context) (watch.Response, error) {
	for {
		r, ok, err := s.pollDirect()
		if ok || err != nil {
			return r, err
		}
		var next time.Time
		if s.woven != nil {
			if r, ok, next = s.woven.poll(time.Now()); ok {
				return r, nil
			}
		}
		if err := s.wait(ctx, next); err != nil {
			return watch.Response{}, err
		}
	}
}

// wait returns when there may be something to read.
func (s *stream) wait(ctx context.Context, next time.Time) error {
	var split <-chan struct{}
	if s.direct != nil && !s.moving {
		split = s.replica.Stamped()
	}
	var tick <-chan time.Time
	if !next.IsZero() {
		if s.timer == nil {
			s.timer = time.NewTimer(time.Until(next))
		} else {
			s.timer.Reset(time.Until(next))
		}
		tick = s.timer.C
	}
	select {
	case <-s.in.notify:
	case <-split:
	case <-tick:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// pollDirect returns what the direct stream has for the client. It moves the watches
// once the scope was split.
func (s *stream) pollDirect() (r watch.Response, ok bool, err error) {
	if s.direct == nil {
		return r, false, nil
	}
	if !s.moving {
		select {
		case <-s.replica.Stamped():
			s.move()
		default:
		}
	}
	for s.direct != nil {
		if r, ok, err = s.direct.Poll(); !ok {
			break
		}
		if !s.moving && !r.Created && !r.Canceled && r.ID != watch.StreamID || s.take(&r) {
			return r, true, nil
		}
	}
	if s.moving {
		s.finish()
	}
	if s.direct == nil {
		err = nil
	}
	return watch.Response{}, false, err
}

// move begins to move the watches: each gets a mark behind all that was published.
func (s *stream) move() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moving {
		return
	}
	s.moving = true
	s.woven = newWoven(s.watches, &s.in)
	for id := range s.held {
		s.markLocked(id)
	}
}

func (s *stream) markLocked(id int64) {
	revision, _ := s.replica.Machine.Segment().Revision()
	s.direct.Mark(revision, id)
}

// take looks at a response of the direct stream that matters to the move, and reports
// whether it is the client's.
func (s *stream) take(r *watch.Response) bool {
	if r.Canceled && errors.Is(r.Reason, host.ErrSplit) {
		s.move()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ID == watch.StreamID {
		// While they move it speaks for watches that have gone on, too.
		s.asked = s.asked && s.moving
		return !s.moving
	}
	if r.Created {
		s.held[r.ID] = &held{req: s.creating[0]}
		s.creating = s.creating[1:]
		if s.moving {
			s.markLocked(r.ID)
		}
		if s.held[r.ID].req.StartRevision == 0 {
			s.held[r.ID].shown = r.Revision
		}
		return true
	}
	h := s.held[r.ID]
	switch {
	case h == nil:
		return false // it has gone on in the weave
	case r.Mark:
		if !h.canceled { // else its Canceled response follows
			s.goOnLocked(r.ID, h, r.Revision)
		}
		return false
	case r.Canceled && r.Reason != nil && h.canceled:
		r.Reason = nil
	case r.Canceled && r.Reason != nil && s.moving:
		s.goOnLocked(r.ID, h, r.Revision)
		return false
	}
	if h.shown = max(h.shown, r.Revision); r.Canceled {
		delete(s.held, r.ID)
	}
	return true
}

// goOnLocked lets a watch go on in the weave behind a position.
func (s *stream) goOnLocked(id int64, h *held, position int64) {
	delete(s.held, id)
	s.direct.Cancel(id)
	req := h.req
	next := max(h.shown+1, position+1, req.StartRevision)
	resumed := req.StartRevision == 0 || next > req.StartRevision
	req.ID, req.StartRevision = id, next
	s.woven.adopt(req, resumed)
}

// finish lets go of the direct stream when nothing is left on it.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 || len(s.creating) > 0 {
		return
	}
	s.direct.Close()
	s.direct, s.moving = nil, false
	s.woven.skip(s.floor)
	if s.asked {
		s.woven.requestProgress()
	}
	close(s.moved)
}
