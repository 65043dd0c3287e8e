package sim

import (
	"bytes"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// This file is node/host/split.go and node/steward/split.go.

var birthMark = wal.Mark{Index: machine.BirthIndex, Term: machine.BirthTerm}

// split follows an applied split.
func (p *process) split(parent *replicaHere, c machine.Change) {
	d, born := c.State.Descriptor, c.Born.Descriptor
	g := p.groups[d.Segment]
	leads := g != nil && g.leads()
	p.mesh.k.Note("split", p.idx, uint64(d.Segment), uint64(d.Generation), uint64(born.Segment), d.Changed)
	p.mesh.begins("split", p)
	if p.mesh.cfg.Plant != PlantWatchPastSplit {
		parent.hub.hub.Bound(d.Range, errMoved)
		parent.hub.kick()
	}
	p.table.Learn(born)
	if p.mesh.cfg.Plant == PlantEarlyChild {
		p.update(wal.Update{Group: born.Segment, Snapshot: &birthMark}, func() {
			p.after(p.pauseOfBirth(), func() { p.birth(parent, c, leads) })
		})
		return
	}
	p.after(p.pauseOfBirth(), func() { p.birth(parent, c, leads) })
}

// birth starts the right child of a split once the cut is on disk.
func (p *process) birth(parent *replicaHere, c machine.Change, leads bool) {
	p.mesh.begins("birth", p)
	if err := parent.machine.Segment().Commit(); err != nil {
		p.broken("commit", err)
		return
	}
	p.after(p.pauseOfBirth(), func() {
		p.host.lock(func(unlock func()) { p.begin(c.Child, leads, unlock) })
	})
}

func (p *process) begin(child *mvcc.Segment, leads bool, unlock func()) {
	id := child.ID()
	if held := p.host.held[id]; held != nil && p.mesh.cfg.Plant != PlantRacingBirth {
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
	begins, err := p.lacksLog(child)
	switch {
	case err != nil:
		p.broken("split", err)
	case begins:
		p.update(wal.Update{Group: id, Snapshot: &birthMark}, start)
	default:
		start()
	}
}

// pauseOfBirth is the time between two steps of a birth: the disk may be slow.
func (p *process) pauseOfBirth() time.Duration {
	if p.rng.IntN(8) == 0 && !p.mesh.healed {
		return time.Duration(p.rng.Int64N(int64(3 * time.Second)))
	}
	return p.moment() + p.disk.Sync()
}

// lacksLog reports whether a child has no log yet.
func (p *process) lacksLog(segment *mvcc.Segment) (bool, error) {
	meta := segment.Meta()
	if meta.Applied != birthMark.Index || meta.Term != birthMark.Term || p.mesh.root(segment.ID()) {
		return false, nil
	}
	last, err := p.log.Group(segment.ID()).LastIndex()
	return err == nil && last < birthMark.Index, err
}

// refuseOverlap refuses a snapshot of keys that another segment's replica here still
// holds.
func (p *process) refuseOverlap(d *anchormesh.Descriptor) error {
	for _, r := range p.host.sorted() {
		held := r.machine.Descriptor()
		if held.Segment != d.Segment && held.Range.Overlaps(d.Range) {
			return errOverlap
		}
	}
	return nil
}

// proposeSplit cuts the segment that holds a key, if this node leads it. Who does not
// look lets the log refuse what is not allowed.
func (p *process) proposeSplit(at []byte, look bool) bool {
	for _, r := range p.host.sorted() {
		state := r.machine.State()
		d := state.Descriptor
		g := p.groups[d.Segment]
		if g == nil || !g.leads() || !d.Range.Contains(at) {
			continue
		}
		p.mesh.names++
		split := &machine.Split{At: at, Right: childID(p.mesh.names),
			Evidence: lineage.Evidence{Reason: lineage.Operator, Operator: fmt.Sprint(p.id)}}
		if look && state.Allows(split) != nil || bytes.Equal(at, d.Range.Start) {
			return false
		}
		p.submit(d.Segment, replica.Proposal{
			Generation: d.Generation, Alone: true, Payload: split.Command(), Done: func(replica.Result) {},
		})
		return true
	}
	return false
}

func childID(n uint64) anchormesh.SegmentID { return anchormesh.SegmentID(0x1000 + n) }

// splitSomewhere is a random split: at a random key, by whoever leads there.
func (m *mesh) splitSomewhere() {
	if m.cfg.Mesh.SplitsMax <= m.stats.Splits {
		return
	}
	s := pick(m.rng, m.segments...)
	at := fmt.Appendf(nil, "%s/%02d", s.letter(), m.rng.IntN(m.cfg.Load.Keys+1))
	if m.rng.IntN(4) == 0 {
		at = append(at, '+')
	}
	look := m.rng.IntN(4) > 0
	times := pick(m.rng, 1, 1, 2, 3)
	for range times { // several in a row, of one generation or of more
		for _, p := range m.running() {
			if !p.paused {
				p.do(func() { p.proposeSplit(at, look) })
			}
		}
		at = fmt.Appendf(nil, "%s/%02d", s.letter(), m.rng.IntN(m.cfg.Load.Keys+1))
	}
}

// recorded sees every change of a segment's record, by the first replica that
// applies it too.
func (m *mesh) recorded(c machine.Change) {
	e := c.State.Chain.Last()
	m.decided[e.Hash()] = e
	if c.Child == nil {
		return
	}
	id := c.Born.Descriptor.Segment
	if _, known := m.scopeOf[id]; known {
		return
	}
	root := m.scopeOf[c.State.Descriptor.Segment]
	m.scopeOf[id] = root
	m.live = append(m.live, id)
	m.splitLines[lineOf(root)] = true
	m.stats.Splits++
}
