package stamps

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
)

// scope is one scope's cores on this node. Its methods run on the goroutine of
// Lines.
type scope struct {
	lines     *Lines
	prefix    []byte
	home      *line.Home
	homeAt    anchormesh.SegmentID // the home, if it is led here
	collector *line.Collector[*write]
	known     map[anchormesh.SegmentID]uint64 // log index that the core was told of
	heldAt    map[anchormesh.SegmentID]uint64 // the same of prepared transactions
	stirred   []*line.Holder[*write]
	answers   map[uint64]func(line.Answer)
	passed    map[uint64]func(error)

	asking    []question      // wait for the next question to the home
	asked     bool            // one is under way
	silent    bool            // the home did not answer
	notBefore time.Time       // then it is asked again
	routes    <-chan struct{} // closed if the routes have changed since the home was asked; nil: it was not
}

// question is somebody who wants to know T.
type question struct {
	since  anchormesh.Revision
	spread bool
	number bool                 // one more revision is wanted
	raise  anchormesh.Revision  // the line is to be there first
	claim  anchormesh.Revision  // exactly this number is wanted
	cede   *anchormesh.KeyRange // the number is for these keys, which go from line to line
	by     anchormesh.SegmentID // whose hand-over that is
	done   func(Told, error)
}

// alone reports whether a question may have to wait for an entry of the home's log: it
// does not hold up others.
func (q *question) alone() bool { return q.raise > 0 || q.claim > 0 || q.cede != nil }

// Told is the home's answer to a question.
type Told struct {
	T anchormesh.Revision
	// Spread says where barriers are needed, if that was asked.
	Spread line.Spread
	Number anchormesh.Revision // if it was asked for
	// Claimed: the number that was asked for is the asker's; else it was not new.
	Claimed bool
}

func newScope(l *Lines, prefix []byte) *scope {
	return &scope{
		lines: l, prefix: prefix, home: line.NewHome(l.cfg.Line), collector: line.NewCollector[*write](l.cfg.Line),
		known: make(map[anchormesh.SegmentID]uint64), heldAt: make(map[anchormesh.SegmentID]uint64), answers: make(map[uint64]func(line.Answer)), passed: make(map[uint64]func(error)),
	}
}

func (s *scope) stir(h *line.Holder[*write]) { s.stirred = append(s.stirred, h) }

func (s *scope) lead(segment anchormesh.SegmentID, term uint64, at Standing) {
	h := s.collector.Holder(segment)
	if h == nil {
		h = line.NewHolder[*write](s.lines.cfg.Line)
		s.collector.Add(segment, h)
	}
	seat := line.Seat{Line: at.Line, Segment: segment, Generation: at.Descriptor.Generation, Term: term}
	if h.Seat() == seat {
		return
	}
	s.known[segment], s.heldAt[segment] = at.Applied, at.HeldAt
	h.Lead(seat, at.Descriptor.Range, at.Held)
	s.stir(h)
	if at.Descriptor.LineHome() && at.Line != 0 {
		s.home.Lead(line.Lead{Seat: seat, Range: at.Descriptor.Range, Window: at.Window, Last: at.Last})
		s.homeAt = segment
		s.collector.SetHome(segment)
	}
}

func (s *scope) depose(segment anchormesh.SegmentID) {
	if h := s.collector.Holder(segment); h != nil {
		h.Deposed()
		s.collector.Remove(segment)
		delete(s.known, segment)
		delete(s.heldAt, segment)
		s.stir(h)
	}
	if s.homeAt == segment {
		s.home.Deposed()
		s.homeAt = 0
		s.collector.SetHome(0)
	}
}

// changed follows a segment that is led here. News that its lead knew already are
// none.
func (s *scope) changed(segment anchormesh.SegmentID, now Standing) {
	if now.Applied <= s.known[segment] {
		return
	}
	s.known[segment] = now.Applied
	h, d := s.collector.Holder(segment), now.Descriptor
	if h.Seat().Generation != d.Generation {
		s.heldAt[segment] = now.HeldAt
		h.Structure(now.Term, d.Generation, d.Range, now.Held)
		s.stir(h)
		if s.homeAt == segment {
			s.home.Structure(now.Term, d.Generation, d.Range, now.Window)
		}
	} else if s.homeAt == segment {
		s.home.Windowed(now.Term, now.Window)
	}
}

// left reports whether a segment that is led here is on another line now.
func (s *scope) left(segment anchormesh.SegmentID, now Standing) bool {
	return now.Applied > s.known[segment] &&
		(now.Line != s.collector.Holder(segment).Seat().Line || !bytes.Equal(now.Descriptor.Line, s.prefix))
}

// heldBy follows what is prepared and decided. News that came with the standing are
// none.
func (s *scope) heldBy(segment anchormesh.SegmentID, index uint64, stamp anchormesh.Revision, released bool) {
	if index <= s.heldAt[segment] {
		return
	}
	h := s.collector.Holder(segment)
	if released {
		h.Release(stamp)
	} else {
		h.Hold(stamp)
	}
	s.stir(h)
}

func (s *scope) take(w incoming) {
	h := s.collector.Holder(w.segment)
	if h.Seat().Generation != w.generation {
		w.write.done(consensus.Result{Err: consensus.ErrDropped})
		s.lines.again(w.segment)
		return
	}
	if err := s.collector.Write(w.segment, w.write); err != nil {
		w.write.done(consensus.Result{Err: translate(err)})
		s.lines.again(w.segment)
	}
}

// translate words the errors of the cores as those of a proposal.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, line.ErrOverloaded):
		return consensus.ErrOverloaded
	case errors.Is(err, line.ErrNotLeader):
		return consensus.ErrNotLeader
	}
	return consensus.ErrDropped
}

func (s *scope) ended(e ended) {
	h := s.collector.Holder(e.segment)
	if h != nil && h.Seat().Term == e.term {
		h.Ended(e.stamp)
		s.stir(h)
	}
}

// settle carries out all that follows from what the cores were told.
func (s *scope) settle() (next time.Time) {
	for {
		busy := len(s.stirred) > 0
		for _, h := range s.stirred {
			at := s.carryOut(h)
			next = sooner(next, at)
		}
		s.stirred = s.stirred[:0]
		s.own()
		s.collect()
		s.ask()
		busy = s.carryOutHome() || busy
		if !busy && len(s.stirred) == 0 {
			break
		}
	}
	if s.lines.now.Before(s.notBefore) {
		next = sooner(next, s.notBefore)
	}
	return next
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// own gives the home's own writes their numbers.
func (s *scope) own() {
	for {
		a, ok := s.collector.OwnAsk()
		if !ok {
			return
		}
		g, err := s.home.Own(a)
		s.collector.OwnGrant(a, g, err)
		if err != nil {
			return // it comes again with the next window or leader
		}
		s.stir(s.collector.Holder(a.Segment))
	}
}

// collect sends the next request for numbers.
func (s *scope) collect() {
	if s.lines.now.Before(s.notBefore) {
		return
	}
	seq, asks, ok := s.collector.Collect(s.lines.now)
	if !ok {
		return
	}
	req := line.Request{Asks: append([]line.Ask(nil), asks...)}
	s.send(req, func(a line.Answer) {
		if a.Err != nil {
			s.collector.Failed(seq)
			return
		}
		s.stirred = append(s.stirred, s.collector.Granted(seq, a.Grants)...)
	})
}

// heard follows whether the home answers. One that does not may rest. A change of the
// routes ends its rest, if it answered before: it may have been asked under a generation
// that a split has just ended. Not again and again, for the search for a home's leader
// changes the routes, too.
func (s *scope) heard(err error) {
	if err == nil {
		s.silent = false
		return
	}
	routes, first := s.routes, !s.silent
	s.silent, s.routes, s.notBefore = true, nil, s.lines.now.Add(s.lines.cfg.Pause)
	if first && routes != nil {
		go s.hurry(routes)
	}
}

// hurry ends the rest of the home when the routes change.
func (s *scope) hurry(routes <-chan struct{}) {
	timer := time.NewTimer(s.lines.cfg.Pause)
	defer timer.Stop()
	select {
	case <-routes:
		s.lines.do(func() { s.notBefore = time.Time{} })
	case <-timer.C:
	}
}

// ask sends the next question, for all who wait, and apart those that wait for entries.
func (s *scope) ask() {
	if s.lines.now.Before(s.notBefore) {
		return
	}
	var batch []question
	for _, q := range s.asking {
		switch {
		case q.alone():
			s.question([]question{q}, func() {})
		default:
			batch = append(batch, q)
		}
	}
	if s.asking = nil; s.asked || len(batch) == 0 {
		s.asking = batch
		return
	}
	s.asked = true
	s.question(batch, func() { s.asked = false })
}

// question asks for a batch, or for one that is alone.
func (s *scope) question(batch []question, ended func()) {
	var req line.Request
	for _, q := range batch {
		req.Raise, req.Claim = q.raise, q.claim
		if q.cede != nil {
			req.Asks = append(req.Asks, line.Ask{Segment: q.by, Range: *q.cede, Count: 1})
		}
		if q.spread {
			req.Since = append(req.Since, q.since)
		}
		if q.number {
			req.Asks = append(req.Asks, line.Ask{Count: 1})
		}
	}
	s.send(req, func(a line.Answer) {
		ended()
		if a.Err != nil {
			for _, q := range batch {
				q.done(Told{}, a.Err)
			}
			return
		}
		spreads, grants := a.Spreads, a.Grants
		for _, q := range batch {
			told := Told{T: a.T, Spread: line.Spread{All: true}, Claimed: a.Claimed}
			if q.spread && len(spreads) > 0 {
				told.Spread, spreads = spreads[0], spreads[1:]
			}
			if (q.number || q.cede != nil) && len(grants) > 0 {
				told.Number, grants = grants[0].First, grants[1:]
			}
			q.done(told, nil)
		}
	})
}

// send takes a request to the home's leader. told runs on the goroutine of Lines.
func (s *scope) send(req line.Request, told func(line.Answer)) {
	l := s.lines
	done := func(a line.Answer) {
		s.heard(a.Err)
		told(a)
	}
	if s.routes == nil {
		s.routes = l.table.Changed()
	}
	d, ok := l.table.Lookup(s.prefix)
	if !ok || !d.LineHome() || !bytes.Equal(d.Line, s.prefix) {
		done(line.Answer{Err: ErrNoHome})
		return
	}
	req.Line, req.Segment, req.Generation = line.ID(d.Segment), d.Segment, d.Generation
	if s.homeAt == d.Segment {
		req.Generation = s.collector.Holder(s.homeAt).Seat().Generation
		token := l.token()
		s.answers[token] = done
		s.home.Request(token, req)
		return
	}
	if st, here := l.engine.Status(d.Segment); here && st.Leads() {
		if at, ok := l.segments.Standing(d.Segment); ok && at.Counts() {
			l.counted(req, done)
			return
		}
		l.again(d.Segment)
		done(line.Answer{Err: ErrNoHome})
		return
	}
	body := appendRequest([]byte{askNumbers}, &req)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.cfg.CallTimeout)
		defer cancel()
		answer, err := l.call(ctx, d, body)
		parsed := line.Answer{}
		if err == nil {
			parsed, err = parseAnswer(answer)
		}
		l.do(func() {
			parsed.Err = err
			done(parsed)
		})
	}()
}

// carryOut does what a holder wants.
func (s *scope) carryOut(h *line.Holder[*write]) (next time.Time) {
	h.Tick(s.lines.now)
	fx := h.Take()
	for i := range fx.Stamped {
		s.submit(fx.Seat, fx.Stamped[i].Stamp, fx.Stamped[i].Write)
	}
	for _, w := range fx.Back {
		w.done(consensus.Result{Err: translate(fx.BackErr)})
	}
	s.pass(fx.Passed)
	if fx.Round != 0 {
		round := fx.Round
		s.round(fx.Seat, func(term uint64, err error) {
			if err != nil {
				h.RoundFailed(round)
			} else {
				h.RoundDone(round, term)
			}
			s.stir(h)
		})
	}
	return fx.Next
}

func (s *scope) pass(list []line.Passed) {
	for _, p := range list {
		if done := s.passed[p.Token]; done != nil {
			delete(s.passed, p.Token)
			done(p.Err)
		}
	}
}

// submit puts a stamped write into the log. Its end is told in a mailbox: the
// engine may call back at once.
func (s *scope) submit(seat line.Seat, stamp anchormesh.Revision, w *write) {
	l := s.lines
	if w.batch != nil {
		w.batch.stamped(l, seat, stamp)
		return
	}
	l.engine.Submit(seat.Segment, consensus.Proposal{
		Generation: seat.Generation, Term: seat.Term, Payload: l.cfg.Commands.Stamp(stamp, w.command),
		Held: func() { l.end(ended{seat.Segment, seat.Term, stamp}) }, // reads do not wait for the writer's answer
		Done: func(r consensus.Result) {
			w.done(r)
			if !errors.Is(r.Err, consensus.ErrUnknown) { // what is unknown may still be applied
				l.end(ended{seat.Segment, seat.Term, stamp})
			}
		},
	})
}

func (l *Lines) end(e ended) {
	l.mu.Lock()
	l.in.ended = append(l.in.ended, e)
	first := len(l.in.ended) == 1
	l.mu.Unlock()
	if first {
		l.nudge()
	}
}

// carryOutHome does what the home wants and reports whether that was anything.
func (s *scope) carryOutHome() bool {
	fx := s.home.Take()
	for _, a := range fx.Answers {
		done := s.answers[a.Token]
		delete(s.answers, a.Token)
		done(a)
	}
	if fx.Round != 0 {
		round, seat := fx.Round, s.collector.Holder(s.homeAt).Seat()
		s.round(seat, func(term uint64, err error) {
			if err != nil {
				s.home.RoundFailed(round)
			} else {
				s.home.RoundDone(round, term)
			}
		})
	}
	if fx.Window != 0 {
		s.extend(fx.Window)
	}
	return len(fx.Answers) > 0 || fx.Round != 0 || fx.Own
}

// extend proposes a new window. That it is in force is told by Changed.
func (s *scope) extend(w anchormesh.Revision) {
	l, seat := s.lines, s.collector.Holder(s.homeAt).Seat()
	l.engine.Submit(seat.Segment, consensus.Proposal{
		Generation: seat.Generation, Term: seat.Term, Alone: true, Payload: l.cfg.Commands.Window(w),
		Done: func(r consensus.Result) {
			if r.Err != nil { // not at once: it would be proposed again and again
				time.AfterFunc(l.cfg.Pause, func() { l.do(s.home.WindowFailed) })
			}
		},
	})
}

// round starts a ReadIndex of the segment that seat leads. If this node still leads
// in the same term when it has ended, it led all the while, and the round was its
// own.
func (s *scope) round(seat line.Seat, done func(term uint64, err error)) {
	l := s.lines
	l.engine.ReadIndex(seat.Segment, func(_ uint64, err error) {
		l.do(func() {
			term := uint64(0)
			if st, ok := l.engine.Status(seat.Segment); ok && st.Leads() && st.Term == seat.Term {
				term = seat.Term
			}
			done(term, err)
		})
	})
}

// stop gives everything back.
func (s *scope) stop() {
	for id := range s.lines.led {
		if s.lines.led[id] == s {
			s.depose(id)
			delete(s.lines.led, id)
		}
	}
	s.home.Deposed()
	for _, h := range s.stirred {
		fx := h.Take()
		for _, w := range fx.Back {
			w.done(consensus.Result{Err: consensus.ErrStopped})
		}
		s.pass(fx.Passed)
	}
	s.stirred = nil
	for _, a := range s.home.Take().Answers {
		if done := s.answers[a.Token]; done != nil {
			delete(s.answers, a.Token)
			done(a)
		}
	}
	for _, q := range s.asking {
		q.done(Told{}, ErrStopped)
	}
	s.asking = nil
}
