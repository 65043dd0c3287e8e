package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// This file is package node/host with its waits turned into events. The steps and
// their order, which is what crashes test, are the same; the node's record, the log
// and the store are the real ones.

var (
	ErrIncomplete = errors.New("sim: log and store do not belong together")
	errRetired    = errors.New("sim: this replica was given up here")
	errRuns       = errors.New("sim: another replica runs here")
	errOlder      = errors.New("sim: the snapshot is older than the log here")
	errUninvited  = errors.New("sim: not invited")
	errBegins     = errors.New("sim: the child of a split begins here in a moment")
	errOverlap    = errors.New("sim: another replica holds the keys here")
)

// Host holds the replicas of a process.
type host struct {
	Held     map[anchormesh.SegmentID]*ReplicaHere
	awaiting map[anchormesh.SegmentID]anchormesh.ReplicaID
	// forgetful holds what is left of replicas that may have forgotten something.
	forgetful map[anchormesh.SegmentID]*Forgetful
	locked    bool
	waiting   []func(unlock func())
}

// ReplicaHere is a running replica.
type ReplicaHere struct {
	ID      anchormesh.ReplicaID
	Machine *machine.Machine
	Hub     *hub
	Floor   uint64
	class   class
}

func (r *ReplicaHere) closeHub() { r.Hub.close() }

func (h *host) init() {
	h.Held = make(map[anchormesh.SegmentID]*ReplicaHere)
	h.awaiting = make(map[anchormesh.SegmentID]anchormesh.ReplicaID)
	h.forgetful = make(map[anchormesh.SegmentID]*Forgetful)
}

func (h *host) Sorted() []*ReplicaHere {
	var out []*ReplicaHere
	for _, id := range slices.Sorted(maps.Keys(h.Held)) {
		out = append(out, h.Held[id])
	}
	return out
}

// lock is the host's mutex: f holds it until it calls unlock.
func (h *host) lock(f func(unlock func())) {
	if h.locked {
		h.waiting = append(h.waiting, f)
		return
	}
	h.locked = true
	f(func() {
		h.locked = false
		if len(h.waiting) > 0 {
			next := h.waiting[0]
			h.waiting = h.waiting[1:]
			h.lock(next)
		}
	})
}

func (p *Process) openReplicas() error {
	if err := p.recall(); err != nil {
		return err
	}
	known := make(map[anchormesh.SegmentID]bool)
	for _, id := range p.store.Segments() {
		known[id] = true
		if err := p.reopen(id); err != nil {
			return err
		}
	}
	for _, id := range p.store.Absent() {
		known[id] = true
		if p.dir.Record().Dropping[id] {
			p.Host.lock(func(unlock func()) { p.discard(id, unlock) })
		}
	}
	for _, id := range p.log.Groups() {
		if !known[id] {
			if err := p.orphan(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// orphan judges a log without a state: the end of a retirement or the beginning of a
// Genesis that a crash cut short. Anything else has lost acknowledged writes.
func (p *Process) orphan(id anchormesh.SegmentID) error {
	if replica, frozen := p.dir.Record().Frozen[id]; frozen {
		if err := p.retired(id, replica); err != nil {
			return err
		}
	}
	if p.dir.Record().Dropping[id] {
		p.Host.lock(func(unlock func()) { p.drop(id, unlock) })
		return nil
	}
	last, err := p.log.Group(id).LastIndex()
	if err != nil {
		return err
	}
	if last == 0 { // it voted, and never had a state
		return nil
	}
	if p.Mesh.Root(id) && last == genesisIndex || p.Mesh.Cfg.Plant == plan.PlantAmnesia {
		return nil
	}
	return fmt.Errorf("%w: the log holds segment %s up to %d, the store does not know it", ErrIncomplete, id, last)
}

func (p *Process) reopen(id anchormesh.SegmentID) error {
	segment, ok := p.store.Segment(id)
	if !ok {
		return nil
	}
	state, err := machine.DecodeState(segment.Meta().State)
	if err != nil {
		return err
	}
	self, ok := p.replicaOf(state)
	if !ok {
		if err := p.retired(id, state.Descriptor.NextReplica-1); err != nil {
			return err
		}
	}
	if !ok || self <= p.dir.Record().Retired[id] {
		p.Host.lock(func(unlock func()) { p.discard(id, unlock) })
		return nil
	}
	if forgot, err := p.forgot(segment, self, state); forgot || err != nil {
		return err
	}
	birth := func(unlock func()) {
		defer unlock()
		if err := p.run(segment, self, false); err != nil {
			p.broken("open", err)
		}
	}
	if begins, err := p.lacksLog(segment); err != nil || !begins {
		if err != nil {
			return err
		}
		return p.run(segment, self, false)
	}
	p.Host.lock(func(unlock func()) {
		p.update(wal.Update{Group: id, Snapshot: &birthMark}, func() { birth(unlock) })
	})
	return nil
}

func (p *Process) replicaOf(state *machine.State) (anchormesh.ReplicaID, bool) {
	peers := state.Peers()
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		if peers[id] == p.ID {
			return id, true
		}
	}
	return 0, false
}

// Run opens a present segment and starts its group.
// urge makes the replica stand for election at once.
func (p *Process) run(segment *mvcc.Segment, id anchormesh.ReplicaID, urge bool) error {
	meta := segment.Meta()
	log := p.log.Group(segment.ID())
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	commit := log.InitialHardState().GetCommit()
	if (first > meta.Applied+1 || last < max(meta.Applied, commit)) && p.Mesh.Cfg.Plant != plan.PlantAmnesia && p.Mesh.Cfg.Plant != plan.PlantForgetfulVotes {
		return fmt.Errorf("%w: segment %s stands at %d, the log holds %d to %d", ErrIncomplete, segment.ID(), meta.Applied, first, last)
	}
	space, err := keyspace.NewSpace(segment, keyspace.Identity{ClusterID: uint64(MeshID), MemberID: p.ID.MemberID()}, keyspace.DefaultLimits())
	if err != nil {
		return err
	}
	for _, s := range p.shells {
		s.Opened(segment.ID(), space)
	}
	hub, err := newHub(p, segment)
	if err != nil {
		return err
	}
	segment.SetPublisher(hub)
	r := &ReplicaHere{ID: id, Hub: hub}
	hub.Hub.Bound(segment.KeyRange(), ErrMoved)
	p.followHolds(segment.ID(), space, hub)
	m, err := machine.New(segment, space, p.Mesh.believes(), func(c machine.Change) { p.recorded(r, c) })
	if err != nil {
		return err
	}
	m.OnAbsorb(p.surrendering)
	m.OnCut(hub.cut)
	if p.Mesh.Cfg.Plant != plan.PlantUnasked {
		m.RequireAgreement()
	}
	r.Machine = m
	r.class.light = m.State().Light()
	p.Host.Held[segment.ID()] = r
	p.Table.Learn(m.Descriptor())
	delete(p.Host.awaiting, segment.ID())
	p.Mesh.K.Note("run", p.Index, uint64(segment.ID()), uint64(id), meta.Applied, last)
	if err := p.startGroup(segment.ID(), id, m, urge); err != nil {
		return err
	}
	return p.followClass(r, segment.ID())
}

// followHolds keeps the watches of a segment, and its barriers, behind what is prepared.
func (p *Process) followHolds(id anchormesh.SegmentID, space *keyspace.Space, hub *hub) {
	space.Participant(func(c *commit.Participant) {
		lowest, _ := c.Lowest()
		hub.Hub.Hold(lowest)
	})
	space.OnHold(func(h keyspace.Hold) {
		hub.Hub.Hold(h.Lowest)
		hub.Kick()
		for _, s := range p.shells {
			s.Held(id, h)
		}
	})
}

// recorded follows a segment's record of itself.
func (p *Process) recorded(r *ReplicaHere, c machine.Change) {
	s, d := c.State, c.State.Descriptor
	p.Mesh.recorded(c)
	p.classed(r, s)
	if e := s.Chain.Last(); e.Kind == lineage.Policy && e.Index == c.Place.Index {
		p.Mesh.begins("adopt", p)
	}
	if p.Mesh.Cfg.Plant == plan.PlantOldRules && d.Policy > 1 {
		_ = r.Machine.Space().Govern(nil)
	}
	defer func() {
		for _, s := range p.shells {
			s.Changed(r, c)
		}
	}()
	if c.Thawed {
		p.After(p.Moment(), func() { p.thawed(d.Segment, r) })
	}
	if d.Changed != c.Place.Index {
		return // neither descriptor nor configuration
	}
	peers := s.Peers()
	w := p.Worker(d.Segment)
	w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) { s.SetPeers(d.Segment, peers) })
	w.Kick()
	p.Table.Learn(d)
	p.Mesh.K.Note("anchors", p.Index, uint64(d.Segment), d.Changed, uint64(len(d.Voters())), uint64(len(d.Anchors)))
	switch {
	case c.Child != nil:
		p.split(r, c)
		return
	case c.Absorbed != nil:
		p.absorbed(r, c)
		return
	}
	if _, stays := p.replicaOf(s); !stays && !s.Frozen() && p.Mesh.Cfg.Plant != plan.PlantKeepRemoved {
		p.After(p.Moment(), func() {
			if p.Host.Held[d.Segment] == r {
				p.Retire(d.Segment, r.ID, nil)
			}
		})
	}
}

// genesisIndex is node/host's.
const genesisIndex = 5

// Genesis creates a segment with this node as its only anchor.
func (p *Process) Genesis(id anchormesh.SegmentID, rng anchormesh.KeyRange, want int) {
	p.Host.lock(func(unlock func()) {
		if p.Host.Held[id] != nil {
			unlock()
			return
		}
		p.Mesh.begins("genesis", p)
		rec := p.dir.Record()
		if rec.Genesis == 0 {
			rec.Mesh, rec.Genesis = MeshID, id
			if err := p.dir.Save(rec); err != nil {
				p.broken("genesis", err)
				return
			}
		}
		start := wal.Mark{Index: genesisIndex, Term: 1}
		p.update(wal.Update{Group: id, Snapshot: &start}, func() {
			state, err := machine.Founding(&anchormesh.Descriptor{
				Mesh: MeshID, Segment: id, Scope: rng.Start, Line: rng.Start, Range: rng, Generation: 1, NextReplica: 2,
				Anchors: []anchormesh.Anchor{{Node: p.ID, Replica: 1, Role: anchormesh.Voter, Zone: p.zone}},
			}, want, lineage.Place{Index: start.Index, Term: start.Term})
			if err != nil {
				p.broken("genesis", err)
				return
			}
			p.Mesh.Decided[state.Chain.Head()] = state.Chain.Last() // the only decision that no log holds
			created, err := p.store.Create(id, rng, mvcc.Meta{Applied: start.Index, Term: start.Term, State: state.Encode()})
			if err == nil {
				err = p.run(created, 1, false)
			}
			if err != nil {
				p.broken("genesis", err)
				return
			}
			p.Mesh.Born[id] = true
			unlock()
		})
	})
}

// await prepares for a replica that will come as a snapshot.
func (p *Process) await(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	if p.forbidden(segment, id) {
		return errRetired
	}
	if r := p.Host.Held[segment]; r != nil {
		if r.ID == id {
			return nil
		}
		return errRuns
	}
	p.Host.awaiting[segment] = id
	log := &storage{GroupLog: p.log.Group(segment)}
	p.Worker(segment).shard.AddAbsent(segment, id, log, p.Mesh.Cfg.Mesh.ElectionTicks)
	return nil
}

// hush ends the votes for a replica without state that is about to start, and calls then
// when those that were given are written. Caller holds the lock.
func (p *Process) hush(segment anchormesh.SegmentID, then func()) {
	if p.Host.awaiting[segment] == 0 {
		then()
		return
	}
	p.Worker(segment).shard.Hush(segment)
	p.drain(segment, then)
}

// Hint takes a descriptor that somebody told. While the configuration is joint, a replica
// that is not named any more still counts: it stays.
func (p *Process) Hint(d *anchormesh.Descriptor) {
	p.Table.Learn(d)
	newest, current := p.Table.Segment(d.Segment)
	if current {
		d = newest
	}
	if !p.hasForgotten(d.Segment) {
		p.hinted(d)
		return
	}
	p.Host.lock(func(unlock func()) {
		p.superseded(d, current, func(free bool) {
			unlock()
			if free {
				p.hinted(d)
			}
		})
	})
}

// hinted acts on the newest descriptor of a segment.
func (p *Process) hinted(d *anchormesh.Descriptor) {
	mine, named := d.AnchorOn(p.ID)
	running := p.Host.Held[d.Segment]
	if running != nil {
		if !d.Joint && d.Newer(running.Machine.Descriptor()) && (!named || mine.Replica > running.ID) {
			p.Retire(d.Segment, running.ID, func() { p.expect(d, mine, named) })
		}
		return
	}
	p.expect(d, mine, named)
}

// expect awaits the replica that a descriptor names here, or ends the wait for one.
func (p *Process) expect(d *anchormesh.Descriptor, mine anchormesh.Anchor, named bool) {
	if !named && p.Host.awaiting[d.Segment] == 0 {
		return
	}
	p.Host.lock(func(unlock func()) {
		defer unlock()
		if named {
			_ = p.await(d.Segment, mine.Replica)
		} else if p.Host.awaiting[d.Segment] != 0 {
			delete(p.Host.awaiting, d.Segment)
			p.stopGroup(d.Segment)
		}
	})
}

// Retire gives a replica up for good, then calls then, which may be nil.
func (p *Process) Retire(segment anchormesh.SegmentID, id anchormesh.ReplicaID, then func()) {
	p.Host.lock(func(unlock func()) {
		end := func() {
			unlock()
			if then != nil {
				then()
			}
		}
		r := p.Host.Held[segment]
		if r == nil || r.ID != id || p.needed(r) {
			end()
			return
		}
		p.Mesh.K.Note("retire", p.Index, uint64(segment), uint64(id), 0, 0)
		p.Mesh.Stats.Retired++
		p.Mesh.begins("retire", p)
		if err := p.retired(segment, id); err != nil {
			p.broken("retire", err)
			return
		}
		p.stopReplica(segment, r)
		p.drain(segment, func() { p.discard(segment, end) })
	})
}

// retired notes for good that a replica may not come back.
func (p *Process) retired(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	rec := p.dir.Record()
	rec.Retired[segment], rec.Dropping[segment] = max(rec.Retired[segment], id), true
	delete(rec.Frozen, segment)
	delete(rec.Forgotten, segment)
	return p.dir.Save(rec)
}

// drain calls then when what a stopped replica had handed to the log writer is
// written.
func (p *Process) drain(segment anchormesh.SegmentID, then func()) {
	p.update(wal.Update{Group: segment}, then)
}

func (p *Process) stopReplica(segment anchormesh.SegmentID, r *ReplicaHere) {
	delete(p.Host.Held, segment)
	p.stopGroup(segment)
	r.closeHub()
}

func (p *Process) discard(segment anchormesh.SegmentID, unlock func()) {
	if err := p.store.Remove(segment); err != nil {
		p.broken("retire", err)
		return
	}
	p.drop(segment, unlock)
}

// drop drops the log of a retired replica.
func (p *Process) drop(segment anchormesh.SegmentID, done func()) {
	if !p.dir.Record().Dropping[segment] {
		done()
		return
	}
	p.Worker(segment).shard.Forget(segment)
	p.update(wal.Update{Group: segment, Remove: true}, func() {
		rec := p.dir.Record()
		delete(rec.Dropping, segment)
		if err := p.dir.Save(rec); err != nil {
			p.broken("retire", err)
			return
		}
		done()
	})
}
