package node

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// writer is package consensus's log writer: all that gathered is one write. What has to
// be on disk goes on to the syncer.
type writer struct {
	appends []shard.Append
	updates []wal.Update
	done    []func()
	harden  []hardening
	rest    bool
	busy    bool
	lazy    map[anchormesh.SegmentID]*raftpb.HardState
	light   map[anchormesh.SegmentID]*light
	syncer  syncer
}

// hardening names a group that is light no more.
type hardening struct {
	segment anchormesh.SegmentID
	done    func()
}

// light is a group that acknowledges from memory.
type light struct {
	open           bool // the log says so, durably
	waiting, quiet int  // appends that wait for the disk; rests since the last one
}

// quietRests is package consensus's.
const quietRests = 10

// syncer is what makes durable what was written, beside the writer: one sync for all that
// gathered meanwhile.
type syncer struct {
	in   syncs
	busy bool
}

type syncs struct {
	appends []shard.Append
	lights  []*light
	done    []func()
	needed  bool
}

func (s *syncs) add(a shard.Append, l *light) {
	s.appends, s.lights = append(s.appends, a), append(s.lights, l)
	s.needed = s.needed || a.Sync
}

func (w *writer) init() {
	w.lazy, w.light = make(map[anchormesh.SegmentID]*raftpb.HardState), make(map[anchormesh.SegmentID]*light)
}

// update makes a record of the log durable that is not Raft's, then calls done.
func (p *Process) update(u wal.Update, done func()) {
	p.writer.updates = append(p.writer.updates, u)
	p.writer.done = append(p.writer.done, done)
	p.write()
}

// rest syncs what nobody waits for, and looks which light groups are at rest.
func (p *Process) rest() {
	if len(p.writer.light) > 0 {
		p.writer.rest = true
		p.write()
	}
}

// write lets the writer go on, if it is idle and something waits.
func (p *Process) write() {
	w := &p.writer
	if w.busy || len(w.appends)+len(w.updates)+len(w.harden) == 0 && !w.rest {
		return
	}
	w.busy = true
	wait := p.Moment()
	if p.Rng.IntN(8) == 0 { // the kernel has no clean page
		wait += p.Disk.Sync()
	}
	p.After(wait, func() {
		w.busy = false
		p.writeAll()
		p.write()
	})
}

// writeAll writes what has gathered, and says what may be said.
func (p *Process) writeAll() {
	w := &p.writer
	appends, updates, harden, rest := w.appends, w.updates, w.harden, w.rest
	later := syncs{done: w.done, needed: len(updates) > 0}
	w.appends, w.updates, w.done, w.harden, w.rest = nil, nil, nil, nil, false
	if p.Mesh.Cfg.Plant == plan.PlantAckEarly {
		for i := range appends {
			p.sendFrames(appends[i].Frames)
			appends[i].Frames = nil
		}
	}
	var batch []wal.Update
	var now []shard.Append
	for i := range appends {
		a := &appends[i]
		l := w.stage(a, &batch)
		switch {
		case l != nil && l.waiting == 0 && (!a.Sync || a.Memory && l.open), l == nil && !a.Sync && !w.syncer.busy && len(later.appends) == 0:
			now = append(now, *a)
			if a.Memory {
				p.Mesh.Stats.Memory++
			}
		default:
			if l != nil {
				l.waiting++
			}
			later.add(*a, l)
		}
	}
	batch = append(batch, updates...)
	for i := range updates {
		delete(w.light, updates[i].Group)
	}
	w.settle(harden, rest, &batch, &later)
	if len(batch) > 0 {
		if err := p.log.Write(batch); err != nil {
			p.broken("log", err)
			return
		}
	}
	p.deliver(now)
	w.syncer.take(&later)
	p.sync()
}

// stage adds an append to the batch. It returns the group's state if it is light.
func (w *writer) stage(a *shard.Append, batch *[]wal.Update) *light {
	l := w.light[a.Segment]
	if !a.Sync {
		if a.HardState != nil {
			w.lazy[a.Segment] = a.HardState
		}
		return l
	}
	u := wal.Update{Group: a.Segment, HardState: a.HardState, Entries: a.Entries}
	if u.HardState == nil {
		u.HardState = w.lazy[a.Segment]
	}
	delete(w.lazy, a.Segment)
	if a.Memory && l == nil {
		l = new(light)
		w.light[a.Segment], u.Promise = l, wal.Memory
	}
	if l != nil {
		l.quiet = 0
	}
	*batch = append(*batch, u)
	return l
}

// settle lets the log say of groups that are light no more, and of light ones to which
// nothing happens, that they are on disk.
func (w *writer) settle(harden []hardening, rest bool, batch *[]wal.Update, later *syncs) {
	onDisk := func(id anchormesh.SegmentID) {
		delete(w.light, id)
		*batch = append(*batch, wal.Update{Group: id, Promise: wal.Disk})
	}
	for _, h := range harden {
		if w.light[h.segment] != nil {
			onDisk(h.segment)
		}
		later.needed = true
		if h.done != nil {
			later.done = append(later.done, h.done)
		}
	}
	if !rest || len(w.light) == 0 {
		return
	}
	later.needed = true
	for _, id := range slices.Sorted(maps.Keys(w.light)) {
		if l := w.light[id]; l.quiet < quietRests {
			l.quiet++
		} else if l.waiting == 0 {
			onDisk(id)
		}
	}
}

func (s *syncer) take(from *syncs) {
	s.in.appends, s.in.lights = append(s.in.appends, from.appends...), append(s.in.lights, from.lights...)
	s.in.done, s.in.needed = append(s.in.done, from.done...), s.in.needed || from.needed
}

// sync lets the syncer go on, if it is idle and something waits.
func (p *Process) sync() {
	s := &p.writer.syncer
	if s.busy || len(s.in.appends)+len(s.in.done) == 0 && !s.in.needed {
		return
	}
	in := s.in
	s.in, s.busy = syncs{}, true
	wait := p.Moment()
	if in.needed {
		wait = p.Disk.Sync()
	}
	p.After(wait, func() {
		if in.needed {
			if err := p.log.Sync(); err != nil {
				p.broken("log", err)
				return
			}
		}
		p.deliver(in.appends)
		for _, l := range in.lights {
			if l != nil {
				l.open = true
				l.waiting--
			}
		}
		for _, f := range in.done {
			f()
		}
		s.busy = false
		p.sync()
	})
}

// deliver says what may be said now.
func (p *Process) deliver(appends []shard.Append) {
	for i := range appends {
		p.sendFrames(appends[i].Frames)
	}
	for i := range appends {
		if d := appends[i].Done; len(d.Local) > 0 {
			w := p.Worker(d.Segment)
			w.Inbox.Appended = append(w.Inbox.Appended, d)
			w.Kick()
		}
	}
}
