package node

import (
	"time"

	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// This file is node/host/split.go and node/steward/split.go.

var birthMark = wal.Mark{Index: machine.BirthIndex, Term: machine.BirthTerm}

// split follows an applied split.
func (p *Process) split(parent *ReplicaHere, c machine.Change) {
	d, born := c.State.Descriptor, c.Born.Descriptor
	g := p.Groups[d.Segment]
	leads := g != nil && g.Leads()
	p.Mesh.K.Note("split", p.Index, uint64(d.Segment), uint64(d.Generation), uint64(born.Segment), d.Changed)
	p.Mesh.begins("split", p)
	p.Table.Learn(born)
	if p.Mesh.Cfg.Plant == plan.PlantEarlyChild {
		p.update(wal.Update{Group: born.Segment, Snapshot: &birthMark}, func() {
			p.After(p.pauseOfBirth(), func() { p.birth(parent, c, leads) })
		})
		return
	}
	p.After(p.pauseOfBirth(), func() { p.birth(parent, c, leads) })
}

// birth starts the right child of a split once the cut is on disk.
func (p *Process) birth(parent *ReplicaHere, c machine.Change, leads bool) {
	p.Mesh.begins("birth", p)
	if err := parent.Machine.Segment().Commit(); err != nil {
		p.broken("commit", err)
		return
	}
	p.After(p.pauseOfBirth(), func() {
		p.Host.lock(func(unlock func()) { p.begin(c.Child, leads, unlock) })
	})
}

func (p *Process) begin(child *mvcc.Segment, leads bool, unlock func()) {
	id := child.ID()
	if held := p.Host.Held[id]; held != nil && p.Mesh.Cfg.Plant != plan.PlantRacingBirth {
		unlock() // the group's leader was faster, with a snapshot
		return
	}
	state, err := machine.DecodeState(child.Meta().State)
	if err != nil {
		p.broken("split", err)
		return
	}
	self, ok := p.replicaOf(state)
	if !ok || self <= p.dir.Record().Retired[id] {
		p.discard(id, unlock)
		return
	}
	start := func() {
		defer unlock()
		if err := p.run(child, self, leads); err != nil {
			p.broken("split", err)
		}
	}
	p.hush(id, func() {
		begins, err := p.lacksLog(child)
		switch {
		case err != nil:
			p.broken("split", err)
		case begins:
			p.update(wal.Update{Group: id, Snapshot: &birthMark}, start)
		default:
			start()
		}
	})
}

// pauseOfBirth is the time between two steps of a birth: the disk may be slow.
func (p *Process) pauseOfBirth() time.Duration {
	if p.Rng.IntN(8) == 0 && !p.Mesh.Healed {
		return time.Duration(p.Rng.Int64N(int64(3 * time.Second)))
	}
	return p.Moment() + p.Disk.Sync()
}

// lacksLog reports whether a child has no log yet.
func (p *Process) lacksLog(segment *mvcc.Segment) (bool, error) {
	meta := segment.Meta()
	if meta.Applied != birthMark.Index || meta.Term != birthMark.Term || p.Mesh.Root(segment.ID()) {
		return false, nil
	}
	last, err := p.log.Group(segment.ID()).LastIndex()
	return err == nil && last < birthMark.Index, err
}
