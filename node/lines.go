package node

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/stamps"
	"github.com/anchormesh/anchormesh/node/turns"
	"github.com/anchormesh/anchormesh/node/txns"
)

// newLines connects the lines of revisions to the replicas of this node.
func (n *Node) newLines(a *assembly) *stamps.Lines {
	cfg := stamps.DefaultConfig(a.mesh.Self().ID)
	cfg.Line.Patience = n.cfg.Raft.Election
	cfg.Logger = n.log
	cfg.Commands = stamps.Commands{
		Stamp:  stamped,
		Window: machine.Window, Lift: machine.Lift,
	}
	return stamps.New(cfg, a.engine, standings{a}, a.table, a.mesh)
}

// newTurns connects the hand-overs between lines to the replicas of this node.
func (n *Node) newTurns(a *assembly) *turns.Turns {
	x := turns.New(turns.Config{Patience: n.cfg.Raft.Election, Logger: n.log, Ended: a.metrics.HandedOver}, a.host, a.engine, a.lines, a.table)
	a.lines.OnAdopt(x.Adopt)
	return x
}

// newTxns connects the transactions over several segments to the replicas of this node.
func (n *Node) newTxns(a *assembly) *txns.Txns {
	return txns.New(txns.Config{
		Self: a.mesh.Self().ID, Logger: n.log,
		Admit: func(r *host.Replica, d *anchormesh.Descriptor, command []byte) error {
			return a.requests.Admit(r, d, command)
		},
	}, a.host, a.engine, a.approvals.Stamped(), a.table, a.mesh)
}

// stamped returns the command with its revision in front.
func stamped(rev anchormesh.Revision, command []byte) []byte {
	return append(keyspace.AppendStamp(make([]byte, 0, keyspace.StampBytes+len(command)), rev), command...)
}

// standings tells where the replicas of this node stand.
type standings struct{ *assembly }

// Standing implements stamps.Segments.
func (s standings) Standing(id anchormesh.SegmentID) (stamps.Standing, bool) {
	r, ok := s.host.Get(id)
	if !ok {
		return stamps.Standing{}, false
	}
	// Position first: a state read behind it is at least as new.
	applied, term := r.Machine.Segment().Applied()
	return standing(r, r.Machine.State(), applied, term), true
}

// Counts implements stamps.Segments.
func (s standings) Counts(id anchormesh.SegmentID) bool {
	r, ok := s.host.Get(id)
	if !ok {
		return false
	}
	state := r.Machine.State()
	return state.Counts() && len(state.Descriptor.Line) > 0
}

func standing(r *host.Replica, s *machine.State, applied, term uint64) stamps.Standing {
	last, _ := r.Machine.Segment().Revision()
	held, at := r.Machine.Space().Held()
	return stamps.Standing{
		Descriptor: s.Descriptor, Line: line.ID(s.Line), Window: s.Window, Last: last, Applied: applied, Term: term,
		Frozen: s.Silent() != nil,
		Held:   held, HeldAt: at,
	}
}

// held follows what is prepared and decided in the segments, in the order of their logs.
func (a *assembly) held(segment anchormesh.SegmentID, h keyspace.Hold) {
	if h.Stamp != 0 {
		a.lines.Held(segment, h.Index, h.Stamp, h.Released)
	}
}

// recordChanged follows the segments' records of themselves, in the order of their
// logs.
func (a *assembly) recordChanged(r *host.Replica, c machine.Change) {
	a.proofs.Changed(c.State.Descriptor.Segment)
	a.governor.Changed(c)
	a.announce(c)
	if c.State.Hardening() {
		a.classes.Kick()
	}
	a.approvals.Changed(c.State.Descriptor.Segment)
	if d := c.State.Descriptor; c.State.Line != 0 || len(d.Line) > 0 {
		a.lines.Changed(c.State.Descriptor.Segment, standing(r, c.State, c.Place.Index, c.Place.Term))
	}
}
