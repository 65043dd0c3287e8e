package merger

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

const (
	interval   = 100 * time.Millisecond
	sweepEvery = 5 * time.Second
	tick       = 25 * time.Millisecond
)

// Merger runs attempts to merge on one node.
type Merger struct {
	node.Quiet
	*node.Process
	drives map[anchormesh.SegmentID]*drive
	askers map[anchormesh.SegmentID]*merge.Asker
}

// New returns a process's merger.
func New(p *node.Process) node.Shell {
	return &Merger{Process: p, drives: make(map[anchormesh.SegmentID]*drive), askers: make(map[anchormesh.SegmentID]*merge.Asker)}
}

// At is the merger of a process.
func At(p *node.Process) *Merger { return node.Part[*Merger](p) }

// Booted looks after merges from now on.
func (m *Merger) Booted() {
	m.Every(interval, m.look)
	m.Every(sweepEvery, m.sweep)
}

// leads is the replica here of a segment that this node leads.
func (m *Merger) leads(id anchormesh.SegmentID) (*node.ReplicaHere, uint64, bool) {
	r, g := m.Host.Held[id], m.Groups[id]
	if r == nil || g == nil || !g.Leads() {
		return nil, 0, false
	}
	return r, g.Status.Term, true
}

// Merge opens an attempt to join a segment that is led here with its right neighbour,
// if nothing is known to be in the way.
func (m *Merger) Merge(left anchormesh.SegmentID) bool {
	r, term, ok := m.leads(left)
	if !ok || m.drives[left] != nil {
		return false
	}
	state := r.Machine.State()
	d := state.Descriptor
	right, known := m.Table.Lookup(d.Range.End)
	if len(d.Range.End) == 0 || !known || !bytes.Equal(right.Range.Start, d.Range.End) || !bytes.Equal(right.Line, d.Line) ||
		right.Joint || state.Settled() != nil {
		return false
	}
	side := func(d *anchormesh.Descriptor) place.Side {
		return place.Side{Descriptor: d, Policy: d.Policy, Dormant: true}
	}
	if !place.Pair(side(d), side(right), nil, nil).Ready {
		return false
	}
	pair := merge.Pair{Left: state.Side(), Right: machine.SideOf(right)}
	m.Mesh.Stats.Attempts++
	attempt := state.Left.Next(d.Generation)
	approvals.At(m.Process).Agree(left, machine.Open(attempt, &pair), func(opening []byte, err error) {
		if err == nil && m.drives[left] == nil {
			core, fx := merge.NewDriver(m.Mesh.K.Now(), attempt, pair)
			m.drive(core, r, term, opening, fx)
		}
	})
	return true
}

// look starts what the segments led here need.
func (m *Merger) look() {
	now := m.Mesh.K.Now()
	for _, id := range slices.Sorted(maps.Keys(m.Host.Held)) {
		r, term, ok := m.leads(id)
		if !ok {
			delete(m.askers, id)
			continue
		}
		state := r.Machine.State()
		if state.Left.Open && m.drives[id] == nil {
			core, fx := merge.Inherit(&state.Left)
			m.drive(core, r, term, nil, fx)
		}
		switch {
		case !state.Right.Frozen:
			delete(m.askers, id)
		case m.asker(id, state).Tick(now):
			m.ask(r, term, state)
		}
	}
}

func (m *Merger) asker(id anchormesh.SegmentID, state *machine.State) *merge.Asker {
	if a := m.askers[id]; a != nil && a.Hear(state.Right.By, merge.Aborted) {
		return a
	}
	m.askers[id] = merge.NewAsker(&state.Right)
	return m.askers[id]
}

// ask finds out what became of the attempt that froze a segment led here.
func (m *Merger) ask(r *node.ReplicaHere, term uint64, state *machine.State) {
	key, by := state.Descriptor.Range.Start, state.Right.By
	thaw := func(v merge.Verdict) {
		if d, ok := m.Table.Lookup(key); ok && d.Segment != state.Descriptor.Segment && d.Generation > state.Descriptor.Generation {
			return // overtaken, perhaps: it is worth waiting for a better hint
		}
		if merge.NewAsker(&state.Right).Hear(by, v) {
			m.propose(state, term, machine.Thaw(by, v), func(consensus.Result) {})
		}
	}
	if m.Mesh.Cfg.Plant == plan.PlantThawUnproved {
		thaw(merge.Aborted)
		return
	}
	if left, ok := m.Table.Before(key); ok {
		m.inquire(left, m.Table.Candidates(left), func(q *Merger, done func(merge.Verdict, error)) {
			q.judge(left.Segment, key, by, done)
		}, thaw)
	}
}

// inquire asks a segment's leader, or whoever may be it, one after the other.
func (m *Merger) inquire(d *anchormesh.Descriptor, candidates []anchormesh.NodeID, question func(*Merger, func(merge.Verdict, error)), heard func(merge.Verdict)) {
	if len(candidates) == 0 {
		return
	}
	m.call(candidates[0], question, func(v merge.Verdict, err error) {
		if err == nil {
			heard(v)
			return
		}
		m.inquire(d, candidates[1:], question, heard)
	})
}

// call asks a node, this one included.
func (m *Merger) call(to anchormesh.NodeID, question func(*Merger, func(merge.Verdict, error)), done func(merge.Verdict, error)) {
	if to == m.ID {
		m.After(m.Moment(), func() { question(m, done) })
		return
	}
	m.Call(to, func(q *node.Process, reply func(func())) {
		question(At(q), func(v merge.Verdict, err error) { reply(func() { done(v, err) }) })
	}, func() { done(0, node.ErrRetry) })
}

// judge says what became of an attempt, by what is applied behind a read round.
func (m *Merger) judge(id anchormesh.SegmentID, key []byte, n merge.Attempt, done func(merge.Verdict, error)) {
	m.confirmed(id, func(state *machine.State, err error) {
		if err != nil {
			done(0, err)
			return
		}
		v, ok := state.Judge(key, n)
		if !ok {
			err = node.ErrRetry
		}
		done(v, err)
	})
}

// confirmed is the state of a segment that this node leads, behind a read round.
func (m *Merger) confirmed(id anchormesh.SegmentID, done func(*machine.State, error)) {
	r, _, ok := m.leads(id)
	if !ok {
		done(nil, node.ErrRetry)
		return
	}
	m.ReadIndex(id, func(_ uint64, err error) { done(r.Machine.State(), err) })
}

// sweep gives up replicas here that nobody needs any more, by the word of who holds
// their keys now.
func (m *Merger) sweep() {
	for _, r := range m.Host.Sorted() {
		s := r.Machine.State()
		was := s.Descriptor
		now, ok := m.Table.Lookup(was.Range.Start)
		if !ok || now.Segment == was.Segment || now.Generation <= was.Generation || m.Host.Held[now.Segment] != nil ||
			s.Frozen() && m.Host.Held[s.Right.Pair.Left.Segment] != nil {
			continue
		}
		m.inquire(now, m.Table.Candidates(now), func(q *Merger, done func(merge.Verdict, error)) {
			q.confirmed(now.Segment, func(state *machine.State, err error) {
				if err == nil && (!state.Descriptor.Range.Contains(was.Range.Start) || state.Descriptor.Generation <= was.Generation) {
					err = node.ErrRetry
				}
				done(merge.Merged, err)
			})
		}, func(merge.Verdict) { m.Retire(was.Segment, r.ID, nil) })
	}
}

// propose puts a structural command into the log of a segment led here.
func (m *Merger) propose(state *machine.State, term uint64, command []byte, done func(consensus.Result)) {
	m.Submit(state.Descriptor.Segment, replica.Proposal{
		Generation: state.Descriptor.Generation, Term: term, Alone: true, Payload: command, Done: done,
	})
}
