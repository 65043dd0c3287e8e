package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch/match"
)

// History is what the hub needs of the segment; mvcc.Segment is one.
type History interface {
	// History returns every change of a key of rng in revisions [from, to], whole
	// revisions only, in order, about maxBytes of them, and the first revision it
	// did not look at (to+1 at the end). It returns all of them or
	// mvcc.ErrCompacted, whatever compaction does meanwhile; from the compact
	// revision itself history is complete. The bytes stay valid while referenced.
	History(from, to int64, rng anchormesh.KeyRange, maxBytes int) (events []mvcc.Event, next int64, err error)
	// PrevKV returns the version that the change of key at mod replaced.
	PrevKV(key []byte, mod int64) (mvcc.KV, bool)
	// Revision returns the newest revision that readers see, and the compact one.
	Revision() (current, compacted int64)
}

// Hub serves the watches of one segment on this node. It is an mvcc.Publisher.
type Hub struct {
	history History
	limits  Limits
	queue   queue
	wake    chan struct{} // capacity 1

	mu      sync.Mutex
	core    core
	streams map[*Stream]struct{}
	stopped error
	server  server

	inbox struct {
		sync.Mutex
		ready []*Stream
		asks  []ask
		marks []mark
		stop  error
	}

	*hands // owned by the goroutine in Run; nil while there is none
}

// hands is what the hub works with. Thousands of hubs have no watches.
type hands struct {
	plan    plan
	events  []*Event
	batch   []mvcc.Event // several publishes as one; kept for reuse
	asking  []ask
	marking []mark
	tick    time.Time // when the next progress tick is due; zero: nobody asked
}

// ask is a request for stream progress, to be answered once the cursor is beyond
// the revision that was current when it came.
type ask struct {
	stream   *Stream
	revision int64
}

// NewHub returns a hub that serves h from its current revision on; Run must be
// started, or Serve called. If the segment may change before Publish is wired, call Restored
// afterwards.
func NewHub(h History, limits Limits) (*Hub, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	current, _ := h.Revision()
	hub := &Hub{
		history: h,
		limits:  limits,
		wake:    make(chan struct{}, 1),
	}
	hub.queue.limit = limits.QueueBytes
	hub.queue.head = current
	hub.core.index = match.New[*watch](rand.Uint64())
	hub.core.cursor = current + 1
	return hub, nil
}

// Publish hands over the changes up to revision rev; the slice becomes the hub's.
// It never blocks and is called in order: of revisions, but for what Hold waits for.
func (h *Hub) Publish(events []mvcc.Event, rev int64) {
	if h.queue.put(events, rev) {
		h.nudge()
	}
}

// Restored tells the hub that the segment's state was replaced: what it did not
// publish up to the current revision is read from history. Watches that history
// cannot serve any more are cancelled with the compact revision.
func (h *Hub) Restored() {
	current, _ := h.history.Revision()
	h.queue.jump(current)
	h.nudge()
}

// NewStream returns a stream without watches. After Stop every use of it fails
// with the reason.
func (h *Hub) NewStream() *Stream {
	notify := make(chan struct{}, 1)
	s := h.NewStreamFunc(func() {
		select {
		case notify <- struct{}{}:
		default:
		}
	})
	s.notify = notify
	return s
}

// NewStreamFunc returns a stream for a reader of many, who calls Poll instead of
// Next: ready is called whenever there may be something to read. It runs under the
// stream's lock, so it must neither block nor use the stream.
func (h *Hub) NewStreamFunc(ready func()) *Stream {
	s := &Stream{hub: h, ready: ready, watches: make(map[int64]*watch)}
	s.box.limit, s.box.respSize = h.limits.StreamBytes, h.limits.ResponseBytes
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped != nil {
		s.ended = h.stopped
		return s
	}
	if h.streams == nil {
		h.streams = make(map[*Stream]struct{})
	}
	h.streams[s] = struct{}{}
	h.beginLocked()
	return s
}

// Hold keeps everything from revision rev on from being handed out, until a call with
// another revision or zero: a transaction over several segments is prepared with the
// stamp rev, and its outcome, at a revision above it, may be published behind later
// ones. It is called in apply, before anything above rev is published; after a start
// with a prepared transaction, before the first watch. While it lasts, what the
// segment publishes waits in the queue or in history.
func (h *Hub) Hold(rev int64) {
	h.queue.holdAt(rev)
	h.nudge()
}

// Bound says what the segment holds from the last published revision on. Watches that
// reach beyond it, and those that are created later, end with reason and a position
// to go on from in the segments that hold those keys now; all others live on.
//
// It is called in apply. At a split, before the state is cut: from then on the hub
// hands out nothing that was read or encoded later to a watch that reaches beyond. At
// a merge, after the state was absorbed: what was not published here is read from
// history. It does not wait for the hub.
func (h *Hub) Bound(keys anchormesh.KeyRange, reason error) {
	current, _ := h.history.Revision()
	h.queue.rebound(keys, reason, current)
	h.nudge()
}

// Stop ends every watch with reason (nil: ErrStopped) and a position to go on
// from elsewhere, then Run returns. It does not wait for that.
func (h *Hub) Stop(reason error) {
	if reason == nil {
		reason = ErrStopped
	}
	h.inbox.Lock()
	if h.inbox.stop == nil {
		h.inbox.stop = reason
	}
	h.inbox.Unlock()
	h.mu.Lock()
	h.beginLocked()
	h.mu.Unlock()
	h.nudge()
}

// Run serves until Stop (it returns nil), the end of ctx, or an error of history
// that is not compaction. However it ends, every watch ends with the reason.
func (h *Hub) Run(ctx context.Context) error { return h.run(ctx, func() bool { return false }) }

// run is Run that also returns where it would wait and leave says so.
func (h *Hub) run(ctx context.Context, leave func() bool) error {
	var timer *time.Timer
	for {
		if err := ctx.Err(); err != nil {
			h.finish(err)
			return err
		}
		now := time.Now()
		next, over, err := h.Step(now)
		switch {
		case over:
			return err
		case next.Equal(now):
			continue
		case leave():
			return nil
		}
		var tick <-chan time.Time
		if !next.IsZero() {
			if timer == nil {
				timer = time.NewTimer(time.Until(next))
				defer timer.Stop()
			} else {
				timer.Reset(time.Until(next))
			}
			tick = timer.C
		}
		select {
		case <-h.wake:
		case <-tick:
		case <-ctx.Done():
		}
	}
}

// Step is one turn of Run, for a driver that runs the hub without a goroutine: a
// bounded piece of all that there is to do. next says when the hub wants its next
// turn: now, because there is more to do; later, for periodic progress; or, if zero,
// when something happens to it. over means that the hub has ended, with the error
// that Run would return.
func (h *Hub) Step(now time.Time) (next time.Time, over bool, err error) {
	if reason := h.stopRequested(); reason != nil {
		h.finish(reason)
		return time.Time{}, true, nil
	}
	more, err := h.step(now)
	switch {
	case err != nil:
		h.finish(err)
		return time.Time{}, true, err
	case more:
		return now, false, nil
	}
	return h.tick, false, nil
}

func (h *Hub) takeUp() {
	if h.hands == nil {
		h.hands = new(hands)
	}
}

// step does a bounded piece of everything there is to do and reports whether
// there may be more.
func (h *Hub) step(now time.Time) (more bool, err error) {
	h.takeUp()
	h.collect()
	live, err := h.stepLive()
	if err != nil {
		return false, err
	}
	behind, err := h.stepLagging()
	if err != nil {
		return false, err
	}
	h.answerAsks()
	h.placeMarks()
	h.tickProgress(now)
	return live || behind, nil
}

// collect takes in what other goroutines left in the inbox.
func (h *Hub) collect() {
	h.endOutside()
	h.inbox.Lock()
	ready, asks, marks := h.inbox.ready, h.inbox.asks, h.inbox.marks
	h.inbox.ready, h.inbox.asks, h.inbox.marks = nil, nil, nil
	h.inbox.Unlock()
	for _, a := range asks {
		h.file(a)
	}
	for _, m := range marks {
		h.fileMark(m)
	}
	if len(ready) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range ready {
		h.core.resume(s.refused)
		s.refused = nil
	}
}

// stepLive moves the cursor: from the queue, or where that has a hole, from
// history.
func (h *Hub) stepLive() (more bool, err error) {
	h.mu.Lock()
	cursor, idle := h.core.cursor, h.core.index.Len() == 0
	h.mu.Unlock()
	if idle {
		return false, nil
	}
	items, hole := h.queue.take(cursor, h.limits.StepBytes)
	if hole > 0 {
		return true, h.fillHole(cursor, hole)
	}
	if len(items) == 0 {
		return false, nil
	}
	changes := items[0].changes
	if len(items) > 1 {
		changes = h.batch[:0]
		for _, it := range items {
			changes = append(changes, it.changes...)
		}
		h.batch = changes
	}
	h.handOut(func() { h.core.live(&h.plan, changes, items[len(items)-1].to) }, nil)
	clear(h.batch)
	return true, nil
}

// fillHole reads what the queue lost.
func (h *Hub) fillHole(from, to int64) error {
	changes, next, err := h.history.History(from, to, everything, h.limits.StepBytes)
	if errors.Is(err, mvcc.ErrCompacted) {
		floor := h.floor(from)
		h.mu.Lock()
		dead := h.core.lost(floor, h.watchesLocked())
		h.mu.Unlock()
		h.compactedAway(dead, floor)
		return nil
	}
	if err == nil && next <= from {
		err = fmt.Errorf("watch: history from revision %d went on at %d", from, next)
	}
	if err != nil {
		return err
	}
	h.handOut(func() { h.core.live(&h.plan, changes, next-1) }, nil)
	return nil
}

// stepLagging does one scan for the watches in line.
func (h *Hub) stepLagging() (more bool, err error) {
	h.mu.Lock()
	s, ok := h.core.nextScan(h.limits.ScanWatches)
	h.mu.Unlock()
	if !ok {
		return false, nil
	}
	changes, next, err := h.history.History(s.from, s.to, s.rng, h.limits.StepBytes)
	if errors.Is(err, mvcc.ErrCompacted) {
		floor := h.floor(s.from)
		h.mu.Lock()
		dead := s.compacted(floor)
		h.mu.Unlock()
		h.compactedAway(dead, floor)
		return true, nil
	}
	if err == nil && next <= s.from {
		err = fmt.Errorf("watch: history from revision %d went on at %d", s.from, next)
	}
	if err != nil {
		return false, err
	}
	h.handOut(func() { h.core.scanned(&h.plan, s, changes) }, func() { h.core.advance(s, next) })
	return true, nil
}

// floor is the compact revision after history refused to read from revision from.
func (h *Hub) floor(from int64) int64 {
	_, compacted := h.history.Revision()
	return max(compacted, from+1)
}

// handOut makes a plan under the hub's lock, encodes and queues without it, then
// notes who found no room.
func (h *Hub) handOut(makePlan, after func()) {
	h.mu.Lock()
	cursor := h.core.cursor
	makePlan()
	h.mu.Unlock()
	p := &h.plan
	h.events = append(h.events[:0], make([]*Event, len(p.changes))...)
	for i, f := range p.forms {
		if f != 0 {
			h.events[i] = encode(&p.changes[i], f, h.history.PrevKV)
		}
	}
	if h.queue.peekBounds().due {
		// The segment may have been cut while this was read and encoded.
		h.takeBack(cursor)
		return
	}
	var missed []refusal
	for _, s := range p.dirty {
		missed = append(missed, s.deliver(h.events)...)
	}
	h.clearPlan()
	if len(missed) == 0 && after == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range missed {
		h.core.refuse(m.w, m.rev)
		m.w.stream.refused = append(m.w.stream.refused, m.w)
	}
	if after != nil {
		after()
	}
}

// takeBack drops a plan: nothing of it was handed out, and the cursor goes back to
// where it stood. What the queue lost with it is read from history.
func (h *Hub) takeBack(cursor int64) {
	for _, s := range h.plan.dirty {
		clear(s.staged)
		s.staged = s.staged[:0]
	}
	h.clearPlan()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core.cursor = cursor
}

func (h *Hub) clearPlan() {
	clear(h.events)
	clear(h.plan.dirty)
	h.plan.changes = nil
}

// compactedAway cancels watches that need what is below floor.
func (h *Hub) compactedAway(dead []*watch, floor int64) {
	current, _ := h.history.Revision()
	for _, w := range dead {
		s := w.stream
		s.mu.Lock()
		if !w.closed {
			s.finishLocked(w, Response{Revision: current, CompactRevision: floor})
		}
		s.mu.Unlock()
	}
	h.remove(dead)
}
