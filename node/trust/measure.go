package trust

import (
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

// outcome is what became of one question to one voter.
type outcome uint8

const (
	unasked outcome = iota
	answered
	late
	missed
)

// record is what this node has seen of one voter of one segment: the last questions in a
// ring, of which each also holds what was refused and what differed since the one before.
type record struct {
	ring []sample
	next int
	now  sample // refused and differing since the last question
}

type sample struct {
	outcome          outcome
	invalid, differs uint32
}

// add ends a question.
func (r *record) add(o outcome, window int) {
	s := r.now
	s.outcome, r.now = o, sample{}
	if len(r.ring) < window {
		r.ring = append(r.ring, s)
		return
	}
	r.ring[r.next] = s
	r.next = (r.next + 1) % len(r.ring)
}

// measure sums the ring up.
func (r *record) measure() (m trust.Measure) {
	for _, s := range append(slices.Clone(r.ring), r.now) {
		m.Invalid += s.invalid
		m.Differs += s.differs
		switch s.outcome {
		case late:
			m.Late++
			m.Answered++
		case answered:
			m.Answered++
		case missed:
			m.Missed++
		}
	}
	return m
}

// seen is what this node has seen of one segment's other voters.
type seen struct {
	generation anchormesh.Generation
	of         map[anchormesh.NodeID]*record
	applied    []uint64 // here, at the last questions, oldest first
	cursor     []byte   // the next piece that is compared begins here
	asked      int      // questions so far
	slept      int      // questions to others since this one fell asleep
	reported   int64    // writes here when reports were asked for last
}

func (s *seen) record(node anchormesh.NodeID) *record {
	r := s.of[node]
	if r == nil {
		r = &record{}
		s.of[node] = r
	}
	return r
}

// keep forgets whoever is no voter any more.
func (s *seen) keep(voters []anchormesh.NodeID) {
	for node := range s.of {
		if !slices.Contains(voters, node) {
			delete(s.of, node)
		}
	}
}

// tick notes how far this node has applied, and returns how far it had before so many
// questions: whoever is behind that is late.
func (s *seen) tick(applied uint64, behind int) (bar uint64) {
	s.asked++
	s.applied = append(s.applied, applied)
	if over := len(s.applied) - behind - 1; over > 0 {
		s.applied = slices.Delete(s.applied, 0, over)
	}
	if len(s.applied) <= behind {
		return 0
	}
	return s.applied[0]
}
