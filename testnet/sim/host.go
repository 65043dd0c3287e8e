package sim

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
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// This file is package node/host with its waits turned into events. The steps and
// their order, which is what crashes test, are the same; the node's record, the log
// and the store are the real ones.

var (
	errIncomplete = errors.New("sim: log and store do not belong together")
	errRetired    = errors.New("sim: this replica was given up here")
	errRuns       = errors.New("sim: another replica runs here")
	errOlder      = errors.New("sim: the snapshot is older than the log here")
	errUninvited  = errors.New("sim: not invited")
)

// host holds the replicas of a process.
type host struct {
	held     map[anchormesh.SegmentID]*replicaHere
	awaiting map[anchormesh.SegmentID]anchormesh.ReplicaID
	locked   bool
	waiting  []func(unlock func())
}

// replicaHere is a running replica.
type replicaHere struct {
	id      anchormesh.ReplicaID
	machine *machine.Machine
	hub     *hub
	floor   uint64
}

func (r *replicaHere) closeHub() { r.hub.close() }

func (h *host) init() {
	h.held = make(map[anchormesh.SegmentID]*replicaHere)
	h.awaiting = make(map[anchormesh.SegmentID]anchormesh.ReplicaID)
}

func (h *host) sorted() []*replicaHere {
	var out []*replicaHere
	for _, id := range slices.Sorted(maps.Keys(h.held)) {
		out = append(out, h.held[id])
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

func (p *process) openReplicas() error {
	for _, id := range p.store.Segments() {
		segment, ok := p.store.Segment(id)
		if !ok {
			continue
		}
		state, err := machine.DecodeState(segment.Meta().State)
		if err != nil {
			return err
		}
		self, ok := p.replicaOf(state)
		if !ok || self <= p.dir.Record().Retired[id] {
			p.host.lock(func(unlock func()) { p.discard(id, unlock) })
			continue
		}
		if err := p.run(segment, self); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) replicaOf(state *machine.State) (anchormesh.ReplicaID, bool) {
	peers := state.Peers()
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		if peers[id] == p.id {
			return id, true
		}
	}
	return 0, false
}

// run opens a present segment and starts its group.
func (p *process) run(segment *mvcc.Segment, id anchormesh.ReplicaID) error {
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
	if (first > meta.Applied+1 || last < meta.Applied) && p.mesh.cfg.Plant != PlantAmnesia {
		return fmt.Errorf("%w: segment %s stands at %d, the log holds %d to %d", errIncomplete, segment.ID(), meta.Applied, first, last)
	}
	space, err := keyspace.NewSpace(segment, keyspace.Identity{ClusterID: uint64(meshID), MemberID: p.id.MemberID()}, keyspace.DefaultLimits())
	if err != nil {
		return err
	}
	space.OnLeases(p.lessor.follow(segment.ID()))
	hub, err := newHub(p, segment)
	if err != nil {
		return err
	}
	segment.SetPublisher(hub)
	m, err := machine.New(segment, space, func(c machine.Change) { p.changed(c.State) })
	if err != nil {
		return err
	}
	p.host.held[segment.ID()] = &replicaHere{id: id, machine: m, hub: hub}
	p.table.Learn(m.Descriptor())
	delete(p.host.awaiting, segment.ID())
	p.mesh.k.Note("run", p.idx, uint64(segment.ID()), uint64(id), meta.Applied, last)
	return p.startGroup(segment.ID(), id, m)
}

// changed follows descriptor and configuration.
func (p *process) changed(s *machine.State) {
	d := s.Descriptor
	peers := s.Peers()
	w := p.worker(d.Segment)
	w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) { s.SetPeers(d.Segment, peers) })
	w.kick()
	p.table.Learn(d)
	p.mesh.k.Note("anchors", p.idx, uint64(d.Segment), d.Changed, uint64(len(d.Voters())), uint64(len(d.Anchors)))
}

// genesisIndex is node/host's.
const genesisIndex = 5

// genesis creates a segment with this node as its only anchor.
func (p *process) genesis(id anchormesh.SegmentID, rng anchormesh.KeyRange, want int) {
	p.host.lock(func(unlock func()) {
		if p.host.held[id] != nil {
			unlock()
			return
		}
		p.mesh.begins("genesis", p)
		rec := p.dir.Record()
		if rec.Genesis == 0 {
			rec.Mesh, rec.Genesis = meshID, id
			if err := p.dir.Save(rec); err != nil {
				p.broken("genesis", err)
				return
			}
		}
		start := wal.Mark{Index: genesisIndex, Term: 1}
		p.update(wal.Update{Group: id, Snapshot: &start}, func() {
			state, err := machine.Founding(&anchormesh.Descriptor{
				Mesh: meshID, Segment: id, Range: rng, Generation: 1, NextReplica: 2,
				Anchors: []anchormesh.Anchor{{Node: p.id, Replica: 1, Role: anchormesh.Voter, Zone: p.zone}},
			}, want, lineage.Place{Index: start.Index, Term: start.Term})
			if err != nil {
				p.broken("genesis", err)
				return
			}
			created, err := p.store.Create(id, rng, mvcc.Meta{Applied: start.Index, Term: start.Term, State: state.Encode()})
			if err == nil {
				err = p.run(created, 1)
			}
			if err != nil {
				p.broken("genesis", err)
				return
			}
			p.mesh.born[id] = true
			unlock()
		})
	})
}

// await prepares for a replica that will come as a snapshot.
func (p *process) await(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	if id <= p.dir.Record().Retired[segment] {
		return errRetired
	}
	if r := p.host.held[segment]; r != nil {
		if r.id == id {
			return nil
		}
		return errRuns
	}
	p.host.awaiting[segment] = id
	p.worker(segment).shard.AddAbsent(segment, id)
	return nil
}

// hint takes a descriptor that somebody told.
func (p *process) hint(d *anchormesh.Descriptor) {
	p.table.Learn(d)
	if newest, ok := p.table.Segment(d.Segment); ok {
		d = newest
	}
	mine, named := d.AnchorOn(p.id)
	running := p.host.held[d.Segment]
	switch {
	case running != nil:
		if (!named || mine.Replica > running.id) && running.removedBy(d, p.mesh.cfg.Plant) {
			p.retire(d.Segment, running.id) // the next hint awaits the new one, if there is one
		}
	case named:
		p.host.lock(func(unlock func()) {
			defer unlock()
			_ = p.await(d.Segment, mine.Replica)
		})
	case p.host.awaiting[d.Segment] != 0:
		p.host.lock(func(unlock func()) {
			defer unlock()
			delete(p.host.awaiting, d.Segment)
			p.stopGroup(d.Segment)
		})
	}
}

// removedBy reports whether a descriptor that does not name this replica is proof
// enough: it is newer, or the one in force here, unless the old voters still count.
func (r *replicaHere) removedBy(d *anchormesh.Descriptor, plant Plant) bool {
	own := r.machine.State()
	if plant == PlantKeepRemoved && !d.Newer(own.Descriptor) {
		return false
	}
	if d.Newer(own.Descriptor) {
		return true
	}
	return !own.Descriptor.Newer(d) && !own.Joint()
}

// retire gives a replica up for good.
func (p *process) retire(segment anchormesh.SegmentID, id anchormesh.ReplicaID) {
	p.host.lock(func(unlock func()) {
		r := p.host.held[segment]
		if r == nil || r.id != id {
			unlock()
			return
		}
		p.mesh.k.Note("retire", p.idx, uint64(segment), uint64(id), 0, 0)
		p.mesh.stats.Retired++
		p.mesh.begins("retire", p)
		rec := p.dir.Record()
		rec.Retired[segment] = max(rec.Retired[segment], id)
		if err := p.dir.Save(rec); err != nil {
			p.broken("retire", err)
			return
		}
		p.stopReplica(segment, r)
		p.discard(segment, unlock)
	})
}

func (p *process) stopReplica(segment anchormesh.SegmentID, r *replicaHere) {
	delete(p.host.held, segment)
	p.stopGroup(segment)
	r.closeHub()
}

func (p *process) discard(segment anchormesh.SegmentID, unlock func()) {
	if err := p.store.Remove(segment); err != nil {
		p.broken("retire", err)
		return
	}
	p.update(wal.Update{Group: segment, Remove: true}, unlock)
}

// installing is a snapshot on its way in.
type installing struct {
	p       *process
	segment anchormesh.SegmentID
	id      anchormesh.ReplicaID
	meta    mvcc.Meta
	into    *mvcc.Installer
}

// install begins to install a snapshot and calls done with nil if it is not needed.
func (p *process) install(to anchormesh.ReplicaID, meta mvcc.Meta, done func(*installing, error)) {
	state, err := machine.DecodeState(meta.State)
	if err != nil {
		done(nil, err)
		return
	}
	d := state.Descriptor
	if state.Peers()[to] != p.id {
		done(nil, errUninvited)
		return
	}
	p.host.lock(func(unlock func()) {
		defer unlock()
		if to <= p.dir.Record().Retired[d.Segment] {
			done(nil, errRetired)
			return
		}
		if r := p.host.held[d.Segment]; r != nil {
			if r.id == to && p.has(d.Segment, meta.Applied, meta.Term) || p.mesh.cfg.Plant == PlantNoInstall {
				done(nil, nil)
				return
			}
			p.stopReplica(d.Segment, r)
		}
		// An installation that was cut short may have left a log that begins later.
		if first, err := p.log.Group(d.Segment).FirstIndex(); err == nil && meta.Applied+1 < first && p.mesh.cfg.Plant != PlantOldOffer {
			_ = p.await(d.Segment, to)
			done(nil, errOlder)
			return
		}
		p.mesh.begins("install", p)
		into, err := p.store.Install(d.Segment, d.Range)
		if err != nil {
			done(nil, err)
			return
		}
		p.mesh.k.Note("install", p.idx, uint64(d.Segment), uint64(to), meta.Applied, meta.Term)
		p.mesh.stats.Snapshots++
		done(&installing{p, d.Segment, to, meta, into}, nil)
	})
}

// has reports whether the log already holds, or has left behind, a position.
func (p *process) has(segment anchormesh.SegmentID, index, term uint64) bool {
	log := p.log.Group(segment)
	first, err := log.FirstIndex()
	if err != nil || index+1 < first {
		return err == nil
	}
	got, err := log.Term(index)
	return err == nil && got == term
}

// finish makes the replica present and starts it.
func (i *installing) finish(done func(error)) {
	p := i.p
	p.host.lock(func(unlock func()) {
		finish := func() {
			defer unlock()
			segment, err := i.into.Finish(i.meta)
			if err == nil {
				err = p.run(segment, i.id)
			}
			done(err)
		}
		mark := wal.Mark{Index: i.meta.Applied, Term: i.meta.Term}
		restart := func() { p.update(wal.Update{Group: i.segment, Snapshot: &mark}, finish) }
		if p.mesh.cfg.Plant == PlantDropTail {
			restart()
			return
		}
		// What the stopped replica had handed to the log writer is written, and then
		// acknowledged. A log that holds the snapshot's position after that stays: a
		// majority may count on the entries behind it.
		p.update(wal.Update{Group: i.segment}, func() {
			if p.has(i.segment, mark.Index, mark.Term) {
				finish()
			} else {
				restart()
			}
		})
	})
}

// abort leaves the replica absent.
func (i *installing) abort() {
	i.into.Abort()
	p := i.p
	p.host.lock(func(unlock func()) {
		defer unlock()
		_ = p.await(i.segment, i.id)
	})
}
