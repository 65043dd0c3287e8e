package node

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// writer is package consensus's log writer: all that gathered while the disk was
// busy is one batch.
type writer struct {
	appends []shard.Append
	updates []wal.Update
	done    []func()
	busy    bool
	lazy    map[anchormesh.SegmentID]*raftpb.HardState
}

func newLazy() map[anchormesh.SegmentID]*raftpb.HardState {
	return make(map[anchormesh.SegmentID]*raftpb.HardState)
}

// update makes a record of the log durable that is not Raft's, then calls done.
func (p *Process) update(u wal.Update, done func()) {
	p.writer.updates = append(p.writer.updates, u)
	p.writer.done = append(p.writer.done, done)
	p.write()
}

// write starts the disk, if it is idle and something waits.
func (p *Process) write() {
	w := &p.writer
	if w.busy || len(w.appends)+len(w.updates) == 0 {
		return
	}
	w.busy = true
	appends, updates, done := w.appends, w.updates, w.done
	w.appends, w.updates, w.done = nil, nil, nil
	batch := w.batch(appends, updates)
	if p.Mesh.Cfg.Plant == plan.PlantAckEarly {
		for i := range appends {
			p.sendFrames(appends[i].Frames)
			appends[i].Frames = nil
		}
	}
	finish := func() {
		w.busy = false
		p.deliver(appends, done)
		p.write()
	}
	if len(batch) == 0 {
		p.After(0, finish)
		return
	}
	p.After(p.Disk.Sync(), func() {
		if err := p.log.Append(batch); err != nil {
			p.broken("log", err)
			return
		}
		finish()
	})
}

func (w *writer) batch(appends []shard.Append, updates []wal.Update) []wal.Update {
	var out []wal.Update
	for i := range appends {
		a := &appends[i]
		if !a.Sync {
			if a.HardState != nil {
				w.lazy[a.Segment] = a.HardState
			}
			continue
		}
		hs := a.HardState
		if hs == nil {
			hs = w.lazy[a.Segment]
		}
		delete(w.lazy, a.Segment)
		out = append(out, wal.Update{Group: a.Segment, HardState: hs, Entries: a.Entries})
	}
	return append(out, updates...)
}

// deliver says what may be said now.
func (p *Process) deliver(appends []shard.Append, done []func()) {
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
	for _, f := range done {
		f()
	}
}
