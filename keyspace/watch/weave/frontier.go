package weave

import (
	"cmp"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
)

// Frontier makes the questions and barriers of all weaves of a scope on a node few:
// while a question to the home is under way, what others want to know is gathered
// into the next; while a barrier is, those that it serves share it. It also serves
// the threads that other nodes have on this one. Its methods are called by one
// goroutine at a time.
type Frontier struct {
	most    int // questions under way
	next    uint64
	flying  map[uint64][]asker
	waiting []asker
	since   int64 // of the waiting
	bars    map[anchormesh.SegmentID]*bars
}

// asker is one question of one weave.
type asker struct{ weave, seq uint64 }

// Question is what the home is asked: a revision, and which ranges hold or got stamps
// since. It begins after it was returned.
type Question struct {
	ID    uint64
	Since int64
}

// Tell is the home's answer for one weave.
type Tell struct {
	Weave uint64
	Told  Told
}

// Bar is a barrier that a segment's leader is asked for.
type Bar struct {
	Segment  anchormesh.SegmentID
	Revision int64
}

// Mark is a mark on threads of one weave: Stream.Mark(Revision, Threads...).
type Mark struct {
	Weave    uint64
	Revision int64
	Threads  []int64
}

// bars is the barriers of one segment.
type bars struct {
	revision int64  // of the one under way; zero: none is
	joined   []Mark // served by it; its revision is what was wanted
	waiting  []Mark // by the next, one for each weave
}

// NewFrontier returns a frontier that has at most so many questions to the home under
// way: with one, who comes just behind a question waits for two.
func NewFrontier(questions int) *Frontier {
	invariant.Always(questions > 0, "weave: a frontier of %d questions", questions)
	return &Frontier{
		most:   questions,
		flying: make(map[uint64][]asker),
		bars:   make(map[anchormesh.SegmentID]*bars),
	}
}

// Ask takes a weave's question and returns the one to send now, if any.
func (f *Frontier) Ask(weave uint64, a Ask) (Question, bool) {
	if len(f.waiting) == 0 || a.Since < f.since {
		f.since = a.Since
	}
	f.waiting = append(f.waiting, asker{weave, a.Seq})
	return f.question()
}

func (f *Frontier) question() (Question, bool) {
	if len(f.waiting) == 0 || len(f.flying) >= f.most {
		return Question{}, false
	}
	f.next++
	f.flying[f.next] = f.waiting
	f.waiting = nil
	return Question{ID: f.next, Since: f.since}, true
}

// Answer takes the home's answer to a question and returns what to tell whom, and the
// question to send next, if any. An answer that came before is ignored.
func (f *Frontier) Answer(q Question, revision int64, ranges []anchormesh.KeyRange) (tell []Tell, next Question, ok bool) {
	for _, a := range f.flying[q.ID] {
		tell = append(tell, Tell{a.weave, Told{Seq: a.seq, Revision: revision, Since: q.Since, Ranges: ranges}})
	}
	delete(f.flying, q.ID)
	next, ok = f.question()
	return tell, next, ok
}

// Barrier takes a weave's request and returns the barrier to ask for now, if any.
func (f *Frontier) Barrier(weave uint64, b Barrier) (Bar, bool) {
	s := f.bars[b.Segment]
	if s == nil {
		s = &bars{}
		f.bars[b.Segment] = s
	}
	m := Mark{Weave: weave, Revision: b.Revision, Threads: b.Threads}
	if s.revision >= b.Revision {
		// Nothing at or below it can appear behind the read index of the one under way.
		s.joined = merge(s.joined, m)
		return Bar{}, false
	}
	s.waiting = merge(s.waiting, m)
	return s.begin(b.Segment)
}

// merge adds a mark to the one for the same weave, so that what waits for a segment
// that does not answer is bounded by the threads.
func merge(marks []Mark, m Mark) []Mark {
	for i := range marks {
		if old := &marks[i]; old.Weave == m.Weave {
			old.Revision = max(old.Revision, m.Revision)
			old.Threads = slices.Concat(old.Threads, m.Threads)
			slices.Sort(old.Threads)
			old.Threads = slices.Compact(old.Threads)
			return marks
		}
	}
	return append(marks, m)
}

func (s *bars) begin(segment anchormesh.SegmentID) (Bar, bool) {
	if s.revision != 0 || len(s.waiting) == 0 {
		return Bar{}, false
	}
	s.joined, s.waiting = s.waiting, nil
	s.revision = slices.MaxFunc(s.joined, func(a, b Mark) int { return cmp.Compare(a.Revision, b.Revision) }).Revision
	return Bar{Segment: segment, Revision: s.revision}, true
}

// Barred takes the answer to a barrier, after all that its leader had applied then was
// applied and published here, and returns the marks to put and the barrier to ask for next, if any.
func (f *Frontier) Barred(b Bar) (marks []Mark, next Bar, ok bool) {
	s := f.bars[b.Segment]
	if s == nil || s.revision != b.Revision {
		return nil, Bar{}, false
	}
	for _, m := range s.joined {
		m.Revision = b.Revision
		marks = append(marks, m)
	}
	s.joined, s.revision = nil, 0
	if next, ok = s.begin(b.Segment); !ok {
		delete(f.bars, b.Segment)
	}
	return marks, next, ok
}

// Left forgets the barriers of a segment that left this node: its hub has stopped, so
// its threads have ended.
func (f *Frontier) Left(segment anchormesh.SegmentID) { delete(f.bars, segment) }

// Closed forgets what a weave wanted.
func (f *Frontier) Closed(weave uint64) {
	of := func(m Mark) bool { return m.Weave == weave }
	for _, s := range f.bars {
		s.joined = slices.DeleteFunc(s.joined, of)
		s.waiting = slices.DeleteFunc(s.waiting, of)
	}
	by := func(a asker) bool { return a.weave == weave }
	f.waiting = slices.DeleteFunc(f.waiting, by)
	for id, askers := range f.flying {
		f.flying[id] = slices.DeleteFunc(askers, by)
	}
}
