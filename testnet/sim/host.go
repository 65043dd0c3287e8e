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
	errBegins     = errors.New("sim: the child of a split begins here in a moment")
	errOverlap    = errors.New("sim: another replica holds the keys here")
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
	known := make(map[anchormesh.SegmentID]bool)
	for _, id := range p.store.Segments() {
		known[id] = true
		if err := p.reopen(id); err != nil {
			return err
		}
	}
	for _, id := range p.store.Absent() {
		known[id] = true
		if _, retired := p.dir.Record().Retired[id]; retired {
			p.host.lock(func(unlock func()) { p.discard(id, unlock) })
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
// genesis that a crash cut short. Anything else has lost acknowledged writes.
func (p *process) orphan(id anchormesh.SegmentID) error {
	if _, retired := p.dir.Record().Retired[id]; retired {
		p.update(wal.Update{Group: id, Remove: true}, func() {})
		return nil
	}
	last, err := p.log.Group(id).LastIndex()
	if err != nil {
		return err
	}
	if p.mesh.root(id) && last == genesisIndex || p.mesh.cfg.Plant == PlantAmnesia {
		return nil
	}
	return fmt.Errorf("%w: the log holds segment %s up to %d, the store does not know it", errIncomplete, id, last)
}

func (p *process) reopen(id anchormesh.SegmentID) error {
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
		p.host.lock(func(unlock func()) { p.discard(id, unlock) })
		return nil
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
	p.host.lock(func(unlock func()) {
		p.update(wal.Update{Group: id, Snapshot: &birthMark}, func() { birth(unlock) })
	})
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
// urge makes the replica stand for election at once.
func (p *process) run(segment *mvcc.Segment, id anchormesh.ReplicaID, urge bool) error {
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
	if (first > meta.Applied+1 || last < max(meta.Applied, commit)) && p.mesh.cfg.Plant != PlantAmnesia {
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
	r := &replicaHere{id: id, hub: hub}
	m, err := machine.New(segment, space, noSignatures, func(c machine.Change) { p.changed(r, c) })
	if err != nil {
		return err
	}
	r.machine = m
	p.host.held[segment.ID()] = r
	p.table.Learn(m.Descriptor())
	delete(p.host.awaiting, segment.ID())
	p.mesh.k.Note("run", p.idx, uint64(segment.ID()), uint64(id), meta.Applied, last)
	return p.startGroup(segment.ID(), id, m, urge)
}

// changed follows a segment's record of itself.
func (p *process) changed(r *replicaHere, c machine.Change) {
	s, d := c.State, c.State.Descriptor
	p.mesh.recorded(c)
	if s.Line != 0 {
		defer p.lines.changed(d.Segment, r.standing(s, c.Place.Index, c.Place.Term))
	}
	if d.Changed != c.Place.Index {
		return // neither descriptor nor configuration
	}
	peers := s.Peers()
	w := p.worker(d.Segment)
	w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) { s.SetPeers(d.Segment, peers) })
	w.kick()
	p.table.Learn(d)
	p.mesh.k.Note("anchors", p.idx, uint64(d.Segment), d.Changed, uint64(len(d.Voters())), uint64(len(d.Anchors)))
	if c.Child != nil {
		p.split(r, c)
		return
	}
	if _, stays := p.replicaOf(s); !stays && p.mesh.cfg.Plant != PlantKeepRemoved {
		p.after(p.moment(), func() {
			if p.host.held[d.Segment] == r {
				p.retire(d.Segment, r.id, nil)
			}
		})
	}
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
				Mesh: meshID, Segment: id, Scope: rng.Start, Line: rng.Start, Range: rng, Generation: 1, NextReplica: 2,
				Anchors: []anchormesh.Anchor{{Node: p.id, Replica: 1, Role: anchormesh.Voter, Zone: p.zone}},
			}, want, lineage.Place{Index: start.Index, Term: start.Term})
			if err != nil {
				p.broken("genesis", err)
				return
			}
			created, err := p.store.Create(id, rng, mvcc.Meta{Applied: start.Index, Term: start.Term, State: state.Encode()})
			if err == nil {
				err = p.run(created, 1, false)
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
	if running != nil {
		if d.Newer(running.machine.Descriptor()) && (!named || mine.Replica > running.id) {
			p.retire(d.Segment, running.id, func() { p.expect(d, mine, named) })
		}
		return
	}
	p.expect(d, mine, named)
}

// expect awaits the replica that a descriptor names here, or ends the wait for one.
func (p *process) expect(d *anchormesh.Descriptor, mine anchormesh.Anchor, named bool) {
	if !named && p.host.awaiting[d.Segment] == 0 {
		return
	}
	p.host.lock(func(unlock func()) {
		defer unlock()
		if named {
			_ = p.await(d.Segment, mine.Replica)
		} else if p.host.awaiting[d.Segment] != 0 {
			delete(p.host.awaiting, d.Segment)
			p.stopGroup(d.Segment)
		}
	})
}

// retire gives a replica up for good, then calls then, which may be nil.
func (p *process) retire(segment anchormesh.SegmentID, id anchormesh.ReplicaID, then func()) {
	p.host.lock(func(unlock func()) {
		end := func() {
			unlock()
			if then != nil {
				then()
			}
		}
		r := p.host.held[segment]
		if r == nil || r.id != id {
			end()
			return
		}
		p.mesh.k.Note("retire", p.idx, uint64(segment), uint64(id), 0, 0)
		p.mesh.stats.Retired++
		p.mesh.begins("retire", p)
		if err := p.retired(segment, id); err != nil {
			p.broken("retire", err)
			return
		}
		p.stopReplica(segment, r)
		p.drain(segment, func() { p.discard(segment, end) })
	})
}

// retired notes for good that a replica may not come back.
func (p *process) retired(segment anchormesh.SegmentID, id anchormesh.ReplicaID) error {
	rec := p.dir.Record()
	rec.Retired[segment] = max(rec.Retired[segment], id)
	return p.dir.Save(rec)
}

// drain calls then when what a stopped replica had handed to the log writer is
// written.
func (p *process) drain(segment anchormesh.SegmentID, then func()) {
	p.update(wal.Update{Group: segment}, then)
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
		done := func(into *installing, err error) {
			unlock()
			done(into, err)
		}
		if to <= p.dir.Record().Retired[d.Segment] {
			done(nil, errRetired)
			return
		}
		r := p.host.held[d.Segment]
		if err := p.refuses(r, d, meta); err != nil {
			done(nil, err)
			return
		}
		if r != nil && (p.has(d.Segment, meta.Applied, meta.Term) || p.mesh.cfg.Plant == PlantNoInstall) {
			done(nil, nil)
			return
		}
		if r == nil {
			p.installInto(to, d, meta, done)
			return
		}
		p.stopReplica(d.Segment, r)
		p.drain(d.Segment, func() {
			if p.has(d.Segment, meta.Applied, meta.Term) && p.mesh.cfg.Plant != PlantDropTail {
				done(nil, p.resume(d.Segment, r.id))
				return
			}
			p.installInto(to, d, meta, done)
		})
	})
}

// refuses says why a snapshot may not come here now.
func (p *process) refuses(r *replicaHere, d *anchormesh.Descriptor, meta mvcc.Meta) error {
	// An installation that was cut short may have left a log that begins later.
	first, err := p.log.Group(d.Segment).FirstIndex()
	if r == nil && err == nil && meta.Applied+1 < first && p.mesh.cfg.Plant != PlantOldOffer {
		return errOlder
	}
	if _, present := p.store.Segment(d.Segment); r == nil && present && p.mesh.cfg.Plant != PlantRacingBirth {
		return errBegins
	}
	return p.refuseOverlap(d)
}

// resume starts a replica again that was stopped and has lost nothing.
func (p *process) resume(id anchormesh.SegmentID, replica anchormesh.ReplicaID) error {
	if err := p.store.Commit(); err != nil {
		return err
	}
	segment, ok := p.store.Segment(id)
	if !ok {
		return fmt.Errorf("%w: the store lost segment %s while its replica was stopped", errIncomplete, id)
	}
	return p.run(segment, replica, false)
}

func (p *process) installInto(to anchormesh.ReplicaID, d *anchormesh.Descriptor, meta mvcc.Meta, done func(*installing, error)) {
	p.mesh.begins("install", p)
	into, err := p.store.Install(d.Segment, d.Range)
	if err != nil {
		done(nil, err)
		return
	}
	p.mesh.k.Note("install", p.idx, uint64(d.Segment), uint64(to), meta.Applied, meta.Term)
	p.mesh.stats.Snapshots++
	done(&installing{p, d.Segment, to, meta, into}, nil)
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
			segment, err := i.into.Finish(i.meta)
			if err == nil {
				err = p.run(segment, i.id, false)
			}
			unlock()
			done(err)
		}
		if p.has(i.segment, i.meta.Applied, i.meta.Term) && p.mesh.cfg.Plant != PlantDropTail {
			finish()
			return
		}
		mark := wal.Mark{Index: i.meta.Applied, Term: i.meta.Term}
		p.update(wal.Update{Group: i.segment, Snapshot: &mark}, finish)
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

// noSignatures: nobody has a key in the simulation, so nothing signed is believed.
func noSignatures(anchormesh.NodeID, []byte, []byte) bool { return false }
