package stamps

import (
	"github.com/anchormesh/anchormesh"
)

// search is a new leader on its way to lead its segment's cores. What is asked of the
// segment meanwhile waits for that: a refusal would be tried again only after a pause,
// which was half of what a writer waited for at a split.
type search struct {
	term    uint64
	waiting []func()
}

// seek leads the segment's cores once an entry of the term is applied here.
func (l *Lines) seek(segment anchormesh.SegmentID, term uint64) {
	if at, ok := l.segments.Standing(segment); !ok || at.away() {
		return // not yet split: its first split tells (Changed); likewise its thaw
	}
	if s := l.sought[segment]; s != nil && s.term == term {
		return
	}
	l.giveUp(segment)
	s := &search{term: term}
	l.sought[segment] = s
	l.engine.ReadIndex(segment, func(_ uint64, err error) {
		l.do(func() {
			if l.sought[segment] != s {
				return
			}
			if err == nil {
				l.lead(segment, term)
			}
			l.giveUp(segment)
		})
	})
}

// again leads a segment whose cores do not lead although its replica does: perhaps
// the round behind the last change of leaders failed.
func (l *Lines) again(segment anchormesh.SegmentID) {
	if s := l.led[segment]; s != nil && s.collector.Holder(segment).Seat().Term != 0 {
		return
	}
	if st, ok := l.engine.Status(segment); ok && st.Leads() {
		l.seek(segment, st.Term)
	}
}

// when runs f, which finds out for itself whether the segment is led here: at once, or
// when a search has ended. As many wait as writes may; beyond that nobody does.
func (l *Lines) when(segment anchormesh.SegmentID, f func()) {
	if l.led[segment] == nil {
		l.again(segment)
		if s := l.sought[segment]; s != nil && len(s.waiting) < l.cfg.Line.WritesMax {
			s.waiting = append(s.waiting, f)
			return
		}
	}
	f()
}

// giveUp ends a search, found or not.
func (l *Lines) giveUp(segment anchormesh.SegmentID) {
	s := l.sought[segment]
	if s == nil {
		return
	}
	delete(l.sought, segment)
	for _, f := range s.waiting {
		f()
	}
}
