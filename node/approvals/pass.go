package approvals

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
)

// Stamped are the lines of revisions, behind the approvals: what needs them gets them
// first, everything else passes.
type Stamped struct {
	Lines
	approvals *Approvals
}

// Stamped returns the lines behind the approvals.
func (a *Approvals) Stamped() *Stamped { return &Stamped{a.lines, a} }

// Propose puts a write into the log of a segment that this node leads, with a stamp.
func (s *Stamped) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	r, here := s.approvals.replicas.Get(d.Segment)
	if here && Wants(r.Machine, command) {
		s.approvals.Submit(d.Segment, d.Generation, command, done)
		return
	}
	s.Lines.Propose(d, command, done)
}

// Propose puts a write into the log of a segment that this node leads, which takes no
// stamp.
func (a *Approvals) Propose(segment anchormesh.SegmentID, gen anchormesh.Generation, command []byte, done func(consensus.Result)) {
	r, here := a.replicas.Get(segment)
	if here && Wants(r.Machine, command) {
		a.Submit(segment, gen, command, done)
		return
	}
	a.engine.Submit(segment, consensus.Proposal{Generation: gen, Payload: command, Done: done})
}
