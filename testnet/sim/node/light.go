package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// This file is node/host/amnesia.go and class.go, and Engine.SetLight of package
// consensus.

// Forgetful is a replica that may have forgotten what it acknowledged from memory.
type Forgetful struct {
	Segment anchormesh.SegmentID
	Replica anchormesh.ReplicaID // 0: whichever the segment names on this node
	State   *machine.State       // nil: nothing is left
}

// recall finds out whether the machine was stopped since the last start, and which
// replicas may have forgotten something then.
func (p *Process) recall() error {
	rec := p.dir.Record()
	boot := p.boot()
	if rec.Boot != boot || p.log.Lost() {
		for _, id := range p.log.Groups() {
			if _, known := rec.Forgotten[id]; !known && !rec.Dropping[id] && p.log.Group(id).Memory() {
				rec.Forgotten[id] = 0
			}
		}
	}
	if rec.Boot == boot && len(rec.Forgotten) == len(p.dir.Record().Forgotten) {
		return nil
	}
	rec.Boot = boot
	return p.dir.Save(rec)
}

// boot names the machine's run.
func (n *Computer) boot() string { return fmt.Sprint("boot ", n.boots) }

// forgot keeps a present replica from running that may have forgotten something. It
// reports whether that is so.
func (p *Process) forgot(segment *mvcc.Segment, id anchormesh.ReplicaID, state *machine.State) (bool, error) {
	rec := p.dir.Record()
	known, forgotten := rec.Forgotten[segment.ID()]
	if !forgotten {
		return false, nil
	}
	p.Mesh.Stats.Forgot++
	p.Mesh.K.Note("forgot", p.Index, uint64(segment.ID()), uint64(id), segment.Meta().Applied, 0)
	if p.Mesh.Cfg.Plant == plan.PlantForgetfulVotes {
		delete(rec.Forgotten, segment.ID())
		return false, p.dir.Save(rec)
	}
	p.Host.forgetful[segment.ID()] = &Forgetful{segment.ID(), id, state}
	p.Table.Learn(state.Descriptor)
	if known == id {
		return true, nil
	}
	rec.Forgotten[segment.ID()] = id
	return true, p.dir.Save(rec)
}

// Forgotten lists the replicas here that may have forgotten something, and that their
// groups still count, as far as is known.
func (p *Process) Forgotten() (out []*Forgetful) {
	forgotten := p.dir.Record().Forgotten
	for _, id := range slices.Sorted(maps.Keys(forgotten)) {
		f := p.Host.forgetful[id]
		if f == nil {
			f = &Forgetful{Segment: id, Replica: forgotten[id]}
		}
		out = append(out, f)
	}
	return out
}

func (p *Process) hasForgotten(id anchormesh.SegmentID) bool {
	_, is := p.dir.Record().Forgotten[id]
	return is
}

// superseded takes a descriptor of a segment of which a replica here is forgetful, and
// calls then with whether the segment may have a new one here. Caller holds the lock.
func (p *Process) superseded(d *anchormesh.Descriptor, current bool, then func(free bool)) {
	rec := p.dir.Record()
	id, forgotten := rec.Forgotten[d.Segment]
	if !forgotten {
		then(true)
		return
	}
	mine, named := d.AnchorOn(p.ID)
	f := p.Host.forgetful[d.Segment]
	switch {
	case current && named && id == 0:
		rec.Forgotten[d.Segment] = mine.Replica
		if err := p.dir.Save(rec); err != nil {
			p.broken("forget", err)
			return
		}
		then(false)
		return
	case current && (named && mine.Replica <= id || f != nil && !d.Newer(f.State.Descriptor)):
		then(false)
		return
	}
	p.release(d.Segment, id, func() { then(true) })
}

// ReleaseGone gives up what is left of forgetful replicas whose segments are no more.
func (p *Process) ReleaseGone() {
	for _, id := range slices.Sorted(maps.Keys(p.dir.Record().Forgotten)) {
		if !p.isGone(id) {
			continue
		}
		p.Host.lock(func(unlock func()) {
			which, is := p.dir.Record().Forgotten[id]
			if !is {
				unlock()
				return
			}
			p.release(id, which, unlock)
		})
	}
}

// isGone reports whether a forgetful replica's segment was merged.
func (p *Process) isGone(id anchormesh.SegmentID) bool {
	if p.Host.forgetful[id] != nil {
		_, known := p.Table.Segment(id)
		return !known
	}
	_, buried := p.Table.Tombstone(id)
	return buried
}

// release gives up what is left of a forgetful replica. Caller holds the lock.
func (p *Process) release(segment anchormesh.SegmentID, id anchormesh.ReplicaID, then func()) {
	p.Mesh.begins("release", p)
	if err := p.retired(segment, id); err != nil {
		p.broken("forget", err)
		return
	}
	p.clear(segment, then)
}

// clear drops what is left of a forgetful replica. Caller holds the lock.
func (p *Process) clear(segment anchormesh.SegmentID, then func()) {
	rec := p.dir.Record()
	switch {
	case p.Host.forgetful[segment] == nil:
		p.drop(segment, then)
		return
	case !rec.Dropping[segment]:
		rec.Dropping[segment] = true
		if err := p.dir.Save(rec); err != nil {
			p.broken("forget", err)
			return
		}
	}
	delete(p.Host.forgetful, segment)
	p.discard(segment, then)
}

// clearOverlapping drops the data of forgetful replicas whose keys an offered snapshot
// holds. Caller holds the lock.
func (p *Process) clearOverlapping(d *anchormesh.Descriptor, then func()) {
	for _, id := range slices.Sorted(maps.Keys(p.Host.forgetful)) {
		if f := p.Host.forgetful[id]; id != d.Segment && f.State.Descriptor.Range.Overlaps(d.Range) {
			if was := f.State.Descriptor; was.Generation < d.Generation && d.Range.Contains(was.Range.Start) { // absorbed
				if err := p.retired(id, f.Replica); err != nil {
					p.broken("forget", err)
					return
				}
			}
			p.clear(id, func() { p.clearOverlapping(d, then) })
			return
		}
	}
	then()
}

// forbidden reports whether a replica ID was forgotten or given up here.
func (p *Process) forbidden(segment anchormesh.SegmentID, id anchormesh.ReplicaID) bool {
	rec := p.dir.Record()
	forgotten, is := rec.Forgotten[segment]
	return id <= rec.Retired[segment] || is && (forgotten == 0 || id <= forgotten)
}

// mayReboot reports whether every light segment keeps a majority, and one to spare for a
// change of its anchors that nobody has applied yet, if a machine stops: three voters or
// more, in no joint configuration, all others with what they had.
func (m *Mesh) mayReboot(n *Computer) bool {
	for _, id := range m.Live {
		state := m.Books.newest[id]
		if state == nil || !state.Light() && !state.Hardening() && !m.softSomewhere(id) {
			continue
		}
		if _, named := state.Descriptor.AnchorOn(n.ID); !named && !state.Joint() {
			continue
		}
		if state.Joint() || len(state.Descriptor.Voters()) < 3 {
			return false
		}
		for _, a := range state.Descriptor.Anchors {
			if o := m.Find(a.Node); o != n && !o.keeps(id, a) {
				return false
			}
		}
	}
	return true
}

// keeps reports whether a machine's disk has what the replica there had. A voter of a
// segment that was cut off has nothing before its birth here, and may never have one: its
// parent's log may be gone by then, and then there must be others to elect who sends it.
func (n *Computer) keeps(id anchormesh.SegmentID, a anchormesh.Anchor) bool {
	p := n.last // it may be down: its disk is as it left it
	if n.Gone || p == nil || p.dir == nil {
		return false
	}
	rec := p.dir.Record()
	if rec.Boot != n.boot() { // it was stopped, and no process has looked yet what that took
		return false
	}
	if r := p.Host.Held[id]; r != nil && r.ID == a.Replica {
		return true
	}
	known, forgot := rec.Forgotten[id]
	return a.Role == anchormesh.Learner && !(forgot && (known == 0 || a.Replica <= known))
}

// softSomewhere reports whether a replica's log may hold what is not on disk, whatever the
// segment's newest state says.
func (m *Mesh) softSomewhere(id anchormesh.SegmentID) bool {
	for _, n := range m.Computers {
		if n.Proc != nil && n.Proc.log != nil && n.Proc.log.Group(id).Memory() {
			return true
		}
	}
	return false
}

// class is how a replica acknowledges: from memory once its state says so and it has
// applied what its log held when it started.
type class struct{ light, caught, told bool }

// classed follows the class of a segment.
func (p *Process) classed(r *ReplicaHere, s *machine.State) {
	r.class.light = s.Light()
	p.tellClass(r, s.Descriptor.Segment)
}

// followClass begins to follow the class of a replica whose group has just started.
func (p *Process) followClass(r *ReplicaHere, id anchormesh.SegmentID) error {
	last, err := p.log.Group(id).LastIndex()
	if err != nil {
		return err
	}
	p.Groups[id].WhenApplied(last, func(err error) {
		if err == nil {
			r.class.caught = true
			p.tellClass(r, id)
		}
	})
	return nil
}

func (p *Process) tellClass(r *ReplicaHere, id anchormesh.SegmentID) {
	if now := r.class.light && r.class.caught; now != r.class.told {
		r.class.told = now
		p.setLight(id, now, nil)
	}
}

// setLight says whether a group's entries may be acknowledged before they are synced. done
// is called when one that is light no more has everything on disk.
func (p *Process) setLight(segment anchormesh.SegmentID, light bool, done func()) {
	w := p.Worker(segment)
	w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) {
		s.With(segment, func(r *replica.Replica) { r.SetLight(light) })
		if !light { // behind what this worker has handed over
			p.writer.harden = append(p.writer.harden, hardening{segment, done})
			p.write()
		}
	})
	w.Kick()
}

// Harden calls done once everything of a replica is on disk. It is false as long as that
// cannot be asked for.
func (p *Process) Harden(r *ReplicaHere, done func()) bool {
	if !r.class.caught || r.class.light {
		return false
	}
	p.setLight(r.Machine.Descriptor().Segment, false, done)
	return true
}
