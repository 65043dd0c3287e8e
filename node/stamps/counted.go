package stamps

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
)

// A line of one segment that counts as it applies needs no stamps. Its leader answers
// for it when somebody reads or commits over several lines: T is its revision after a
// round, and an entry of its log lifts it where another line is further on.

// Counts reports whether the segment is the only one of a line of its own, and counts.
// The one segment of a mesh that was never split is asked for nothing.
func (s *Standing) Counts() bool { return s.Line == 0 && len(s.Descriptor.Line) > 0 }

// away reports whether nothing is to be led: the segment serves nothing, or was never
// split and is all there is.
func (s *Standing) away() bool { return s.Frozen || s.Line == 0 && !s.Counts() }

// counted answers a request for a line that counts, on its segment's leader. done runs
// on the goroutine of Lines.
func (l *Lines) counted(req line.Request, done func(line.Answer)) {
	l.engine.ReadIndex(req.Segment, func(_ uint64, err error) {
		l.do(func() {
			at, ok := l.segments.Standing(req.Segment)
			switch {
			case err != nil:
				err = line.ErrRound
			case !ok || at.Frozen || !at.Counts():
				err = line.ErrNotLeader
			case at.Descriptor.Generation != req.Generation:
				err = line.ErrGeneration
			case len(req.Asks) > 0:
				err = line.ErrLine
			}
			if err != nil {
				done(line.Answer{Err: err})
				return
			}
			l.countedTo(&req, &at, done)
		})
	})
}

// countedTo lifts the counter, if that is asked for and it is not there.
func (l *Lines) countedTo(req *line.Request, at *Standing, done func(line.Answer)) {
	last := at.Last
	ans := line.Answer{T: last, Spreads: make([]line.Spread, len(req.Since))}
	for i := range ans.Spreads {
		ans.Spreads[i].Ranges = []anchormesh.KeyRange{at.Descriptor.Range}
	}
	to := max(req.Raise, req.Claim)
	if to <= last {
		done(ans)
		return
	}
	l.lift(req.Segment, req.Generation, to, req.Claim > 0, func(err error) {
		now, _ := l.segments.Standing(req.Segment)
		switch {
		case err == nil:
			ans.T, ans.Claimed = to, req.Claim > 0
		case req.Claim > 0 && now.Last >= to: // another write was there first
			ans.T = now.Last
		default:
			ans = line.Answer{Err: err}
		}
		done(ans)
	})
}

// lift makes a segment that counts, and is led here, go on above rev. done runs on the
// goroutine of Lines.
func (l *Lines) lift(segment anchormesh.SegmentID, generation anchormesh.Generation, rev anchormesh.Revision, fresh bool, done func(error)) {
	st, ok := l.engine.Status(segment)
	if !ok || !st.Leads() {
		done(line.ErrNotLeader)
		return
	}
	l.engine.Submit(segment, consensus.Proposal{
		Generation: generation, Term: st.Term, Alone: true, Payload: l.cfg.Commands.Lift(rev, fresh),
		Done: func(r consensus.Result) { l.do(func() { done(r.Err) }) },
	})
}

// liftedBarrier is a barrier in a segment that counts: it counts on above the barrier
// first, and then waits like the others for what is prepared.
func (l *Lines) liftedBarrier(b line.Barrier, done func(uint64, error)) {
	at, ok := l.segments.Standing(b.Segment)
	switch {
	case !ok || !at.Counts():
		done(0, line.ErrNotLeader)
	case at.Descriptor.Generation != b.Generation:
		done(0, line.ErrGeneration)
	case at.Last >= b.T:
		l.bar(b, done)
	default:
		l.lift(b.Segment, b.Generation, b.T, false, func(err error) {
			if err != nil {
				done(0, line.ErrRound)
				return
			}
			l.bar(b, done)
		})
	}
}
