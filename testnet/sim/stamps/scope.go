package stamps

import (
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// scope is one scope's cores on a node.
type scope struct {
	lines     *Lines
	prefix    []byte
	home      *line.Home
	homeAt    anchormesh.SegmentID
	collector *line.Collector[*stampedWrite]
	known     map[anchormesh.SegmentID]uint64
	heldAt    map[anchormesh.SegmentID]uint64 // the same of prepared transactions
	stirred   []*line.Holder[*stampedWrite]
	answers   map[uint64]func(line.Answer)
	passed    map[uint64]func(error)

	asking    []func(anchormesh.Revision, error) // for the largest number
	numbering []func(anchormesh.Revision, error) // for one more
	asked     bool
	notBefore time.Time
}

// line is the configuration of the lines: windows may be small, so that they end.
func lineConfig(m *node.Mesh) line.Config {
	c := line.DefaultConfig()
	c.Window = max(2, m.Cfg.Mesh.Window)
	return c
}

func newScope(l *Lines, prefix []byte) *scope {
	cfg := lineConfig(l.p.Mesh)
	return &scope{
		lines: l, prefix: prefix, home: line.NewHome(cfg), collector: line.NewCollector[*stampedWrite](cfg),
		known: make(map[anchormesh.SegmentID]uint64), heldAt: make(map[anchormesh.SegmentID]uint64), answers: make(map[uint64]func(line.Answer)), passed: make(map[uint64]func(error)),
	}
}

func (s *scope) stir(h *line.Holder[*stampedWrite]) { s.stirred = append(s.stirred, h) }

func (s *scope) lead(segment anchormesh.SegmentID, term uint64, at standing) {
	h := s.collector.Holder(segment)
	if h == nil {
		h = line.NewHolder[*stampedWrite](lineConfig(s.lines.p.Mesh))
		s.collector.Add(segment, h)
	}
	seat := line.Seat{Line: at.line, Segment: segment, Generation: at.d.Generation, Term: term}
	if h.Seat() == seat {
		return
	}
	if s.lines.p.Mesh.Cfg.Plant == plan.PlantForgetfulLeader {
		at.held = nil
	}
	s.known[segment], s.heldAt[segment] = at.applied, at.heldAt
	h.Lead(seat, at.d.Range, at.held)
	s.stir(h)
	if at.d.LineHome() {
		s.lines.p.Mesh.K.Note("home", s.lines.p.Index, uint64(segment), term, uint64(at.window), uint64(at.last))
		s.home.Lead(line.Lead{Seat: seat, Range: at.d.Range, Window: at.window, Last: at.last})
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

func (s *scope) Changed(segment anchormesh.SegmentID, now standing) {
	if now.applied <= s.known[segment] {
		return
	}
	s.known[segment] = now.applied
	h, d := s.collector.Holder(segment), now.d
	if h.Seat().Generation != d.Generation {
		s.heldAt[segment] = now.heldAt
		h.Structure(now.term, d.Generation, d.Range, now.held)
		s.stir(h)
		if s.homeAt == segment {
			s.home.Structure(now.term, d.Generation, d.Range, now.window)
		}
	} else if s.homeAt == segment {
		s.home.Windowed(now.term, now.window)
	}
}

// heldBy follows what is prepared and decided. News that came with the standing are none.
func (s *scope) heldBy(segment anchormesh.SegmentID, now keyspace.Hold) {
	if now.Index <= s.heldAt[segment] {
		return
	}
	h := s.collector.Holder(segment)
	if now.Released {
		h.Release(now.Stamp)
	} else {
		h.Hold(now.Stamp)
	}
	s.stir(h)
}

func (s *scope) take(w incoming) {
	h := s.collector.Holder(w.segment)
	if h.Seat().Generation != w.generation {
		w.write.done(consensus.Result{Err: consensus.ErrDropped})
		return
	}
	if err := s.collector.Write(w.segment, w.write); err != nil {
		w.write.done(consensus.Result{Err: lineError(err)})
		s.lines.again(w.segment)
	}
}

// lineError words the errors of the cores as those of a proposal.
func lineError(err error) error {
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
			return
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
	s.send(line.Request{Asks: slices.Clone(asks)}, func(a line.Answer) {
		if a.Err != nil {
			s.pause()
			s.collector.Failed(seq)
			return
		}
		s.stirred = append(s.stirred, s.collector.Granted(seq, a.Grants)...)
	})
}

func (s *scope) pause() { s.notBefore = s.lines.now.Add(linePause) }

// Ask sends the next question, for all who wait.
func (s *scope) ask() {
	if s.asked || len(s.asking)+len(s.numbering) == 0 || s.lines.now.Before(s.notBefore) {
		return
	}
	batch, numbers := s.asking, s.numbering
	s.asking, s.numbering, s.asked = nil, nil, true
	var req line.Request
	for range numbers {
		req.Asks = append(req.Asks, line.Ask{Count: 1})
	}
	s.send(req, func(a line.Answer) {
		s.asked = false
		if a.Err != nil {
			s.pause()
		}
		for _, done := range batch {
			done(a.T, a.Err)
		}
		for i, done := range numbers {
			switch {
			case a.Err != nil:
				done(0, a.Err)
			case i >= len(a.Grants):
				done(0, errNoHome)
			default:
				done(a.Grants[i].First, nil)
			}
		}
	})
}

// send takes a request to the home's leader.
func (s *scope) send(req line.Request, done func(line.Answer)) {
	l, p := s.lines, s.lines.p
	d, ok := p.Table.Lookup(s.prefix)
	if !ok || !d.LineHome() {
		done(line.Answer{Err: errNoHome})
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
	if g := p.Groups[d.Segment]; g != nil && g.Leads() {
		l.again(d.Segment)
		done(line.Answer{Err: errNoHome})
		return
	}
	to := l.whom(d)
	heard := func(a line.Answer) {
		l.do(func() {
			l.heard(d.Segment, to, a.Err)
			done(a)
		})
	}
	p.Call(to, func(q *node.Process, reply func(func())) {
		LinesAt(q).serve(req, func(a line.Answer) { reply(func() { heard(a) }) })
	}, func() { heard(line.Answer{Err: node.ErrNoAnswer}) })
}

// carryOut does what a holder wants.
func (s *scope) carryOut(h *line.Holder[*stampedWrite]) (next time.Time) {
	h.Tick(s.lines.now)
	fx := h.Take()
	for i := range fx.Stamped {
		s.submit(fx.Seat, fx.Stamped[i].Stamp, fx.Stamped[i].Write)
	}
	for _, w := range fx.Back {
		w.done(consensus.Result{Err: lineError(fx.BackErr)})
	}
	for _, p := range fx.Passed {
		if done := s.passed[p.Token]; done != nil {
			delete(s.passed, p.Token)
			done(p.Err)
		}
	}
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

// submit puts a stamped write into the log.
func (s *scope) submit(seat line.Seat, rev anchormesh.Revision, w *stampedWrite) {
	l := s.lines
	l.p.Mesh.Stats.Stamped++
	if w.batch != nil {
		w.batch.stamped(l, seat, rev)
		return
	}
	l.p.Submit(seat.Segment, replica.Proposal{
		Generation: seat.Generation, Term: seat.Term, Payload: Stamp(rev, w.command),
		Done: func(r consensus.Result) {
			w.done(r)
			if !errors.Is(r.Err, consensus.ErrUnknown) {
				l.end(seat, rev)
			}
		},
	})
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

// extend proposes a new window.
func (s *scope) extend(w anchormesh.Revision) {
	l, seat := s.lines, s.collector.Holder(s.homeAt).Seat()
	l.p.Submit(seat.Segment, replica.Proposal{
		Generation: seat.Generation, Term: seat.Term, Alone: true, Payload: machine.Window(w),
		Done: func(r consensus.Result) {
			if r.Err != nil {
				l.p.After(linePause, func() { l.do(s.home.WindowFailed) })
			}
		},
	})
}

// round starts a ReadIndex of the segment that seat leads.
func (s *scope) round(seat line.Seat, done func(term uint64, err error)) {
	l := s.lines
	end := func(err error) {
		l.do(func() {
			term := uint64(0)
			if g := l.p.Groups[seat.Segment]; g != nil && g.Leads() && g.Status.Term == seat.Term {
				term = seat.Term
			}
			done(term, err)
		})
	}
	if l.p.Mesh.Cfg.Plant == plan.PlantNoRound {
		l.do(func() { done(seat.Term, nil) })
		return
	}
	l.p.ReadIndex(seat.Segment, func(_ uint64, err error) { end(err) })
}
