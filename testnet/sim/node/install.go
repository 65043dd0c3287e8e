package node

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// installing is a snapshot on its way in.
type installing struct {
	p       *Process
	segment anchormesh.SegmentID
	id      anchormesh.ReplicaID
	meta    mvcc.Meta
	into    *mvcc.Installer
}

// install begins to install a snapshot and calls done with nil if it is not needed.
func (p *Process) install(to anchormesh.ReplicaID, meta mvcc.Meta, done func(*installing, error)) {
	state, err := machine.DecodeState(meta.State)
	if err != nil {
		done(nil, err)
		return
	}
	d := state.Descriptor
	if state.Peers()[to] != p.ID {
		done(nil, errUninvited)
		return
	}
	p.Host.lock(func(unlock func()) {
		done := func(into *installing, err error) {
			unlock()
			done(into, err)
		}
		p.superseded(d, true, func(bool) {
			if p.forbidden(d.Segment, to) {
				done(nil, errRetired)
				return
			}
			p.clearOverlapping(d, func() { p.offered(to, state, meta, done) })
		})
	})
}

// offered judges a snapshot against what is here.
func (p *Process) offered(to anchormesh.ReplicaID, state *machine.State, meta mvcc.Meta, done func(*installing, error)) {
	d := state.Descriptor
	r := p.Host.Held[d.Segment]
	if err := p.refuses(r, d, meta); err != nil {
		done(nil, err)
		return
	}
	if r != nil && (p.has(d.Segment, meta.Applied, meta.Term) || !brings(r, state) || p.Mesh.Cfg.Plant == plan.PlantNoInstall) {
		done(nil, nil)
		return
	}
	p.makeRoom(d, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		p.replace(to, d, meta, done)
	})
}

// replace begins the installation where nothing is in its way.
func (p *Process) replace(to anchormesh.ReplicaID, d *anchormesh.Descriptor, meta mvcc.Meta, done func(*installing, error)) {
	r := p.Host.Held[d.Segment]
	if _, present := p.store.Segment(d.Segment); r == nil && present && p.Mesh.Cfg.Plant != plan.PlantRacingBirth {
		done(nil, errBegins)
		return
	}
	if r == nil {
		p.installInto(to, d, meta, done)
		return
	}
	p.stopReplica(d.Segment, r)
	p.drain(d.Segment, func() {
		if p.has(d.Segment, meta.Applied, meta.Term) && p.Mesh.Cfg.Plant != plan.PlantDropTail {
			done(nil, p.resume(d.Segment, r.ID))
			return
		}
		p.installInto(to, d, meta, done)
	})
}

// refuses says why a snapshot may not come here now.
func (p *Process) refuses(r *ReplicaHere, d *anchormesh.Descriptor, meta mvcc.Meta) error {
	// An installation that was cut short may have left a log that begins later.
	first, err := p.log.Group(d.Segment).FirstIndex()
	if r == nil && err == nil && meta.Applied+1 < first && p.Mesh.Cfg.Plant != plan.PlantOldOffer {
		return errOlder
	}
	return nil
}

// resume starts a replica again that was stopped and has lost nothing.
func (p *Process) resume(id anchormesh.SegmentID, replica anchormesh.ReplicaID) error {
	if err := p.store.Commit(); err != nil {
		return err
	}
	segment, ok := p.store.Segment(id)
	if !ok {
		return fmt.Errorf("%w: the store lost segment %s while its replica was stopped", ErrIncomplete, id)
	}
	return p.run(segment, replica, false)
}

func (p *Process) installInto(to anchormesh.ReplicaID, d *anchormesh.Descriptor, meta mvcc.Meta, done func(*installing, error)) {
	p.Mesh.begins("install", p)
	p.Host.awaiting[d.Segment] = to
	into, err := p.store.Install(d.Segment, d.Range)
	if err != nil {
		done(nil, err)
		return
	}
	p.Mesh.K.Note("install", p.Index, uint64(d.Segment), uint64(to), meta.Applied, meta.Term)
	p.Mesh.Stats.Snapshots++
	done(&installing{p, d.Segment, to, meta, into}, nil)
}

// has reports whether the log already holds, or has left behind, a position.
func (p *Process) has(segment anchormesh.SegmentID, index, term uint64) bool {
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
	p.Host.lock(func(unlock func()) {
		finish := func() {
			segment, err := i.into.Finish(i.meta)
			if err == nil {
				err = p.run(segment, i.id, false)
			}
			unlock()
			done(err)
		}
		p.hush(i.segment, func() {
			if p.has(i.segment, i.meta.Applied, i.meta.Term) && p.Mesh.Cfg.Plant != plan.PlantDropTail {
				finish()
				return
			}
			mark := wal.Mark{Index: i.meta.Applied, Term: i.meta.Term}
			p.update(wal.Update{Group: i.segment, Snapshot: &mark}, finish)
		})
	})
}

// abort leaves the replica absent.
func (i *installing) abort() {
	i.into.Abort()
	p := i.p
	p.Host.lock(func(unlock func()) {
		defer unlock()
		_ = p.await(i.segment, i.id)
	})
}
