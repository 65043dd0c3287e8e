package consensus

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// writes is a bundle for the log writer.
type writes struct {
	appends []shard.Append
	// updates are records that are not Raft's: marks and removals. done is
	// called after the fsync.
	updates []wal.Update
	done    []func()
	// marks: let the log record how far it was truncated, even if there is nothing else.
	marks bool
}

// writer carries appends out: one write and one fsync for all that gathered.
type writer struct {
	engine *Engine
	inbox  *mailbox[writes]
	batch  []wal.Update
	frames outgoing
	// lazy holds commit indexes that nothing waits for; they ride on the next
	// batch that is synced anyway.
	lazy map[anchormesh.SegmentID]*raftpb.HardState
}

func newWriter(e *Engine) *writer {
	return &writer{engine: e, inbox: newMailbox[writes](), lazy: make(map[anchormesh.SegmentID]*raftpb.HardState)}
}

func (w *writer) run() {
	spare := new(writes)
	for {
		in := w.inbox.take(spare)
		if in == nil {
			return
		}
		w.write(in)
		w.deliver(in)
		clear(in.appends)
		clear(in.updates)
		clear(in.done)
		in.appends, in.updates, in.done, in.marks = in.appends[:0], in.updates[:0], in.done[:0], false
		spare = in
	}
}

// wait adds to the next bundle and returns when it was carried out.
func (w *writer) wait(add func(*writes)) error {
	done := make(chan struct{})
	ok := w.inbox.put(func(in *writes) {
		add(in)
		in.done = append(in.done, func() { close(done) })
	})
	if !ok {
		return ErrStopped
	}
	<-done
	return nil
}

// drain waits until everything handed over before is written.
func (w *writer) drain() { _ = w.wait(func(*writes) {}) }

// write makes the bundle durable if anything in it needs that. Failure stops
// the process: see the package comment.
func (w *writer) write(in *writes) {
	w.batch = w.batch[:0]
	for i := range in.appends {
		a := &in.appends[i]
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
		w.count(a)
		w.batch = append(w.batch, wal.Update{Group: a.Segment, HardState: hs, Entries: a.Entries})
	}
	w.batch = append(w.batch, in.updates...)
	if len(w.batch) == 0 && !in.marks {
		return
	}
	begin := time.Now()
	if err := w.engine.log.Append(w.batch); err != nil {
		w.engine.failed(err)
	}
	if f := w.engine.cfg.Listener.Synced; f != nil {
		f(len(w.batch), time.Since(begin))
	}
	clear(w.batch)
}

// count adds the entries' bytes to what the group's log grew by.
func (w *writer) count(a *shard.Append) {
	g := w.engine.group(a.Segment)
	if g == nil {
		return
	}
	for _, e := range a.Entries {
		g.tail.bytes.Add(uint64(len(e.GetData())))
	}
}

// deliver says what may be said now.
func (w *writer) deliver(in *writes) {
	for i := range in.appends {
		w.frames.add(in.appends[i].Frames)
	}
	w.frames.send(w.engine.transport)
	for i := range in.appends {
		done := in.appends[i].Done
		if len(done.Local) > 0 {
			w.engine.worker(done.Segment).inbox.put(func(in *inbox) { in.Appended = append(in.Appended, done) })
		}
	}
	for _, f := range in.done {
		f()
	}
}

// outgoing merges frames by destination, so that one flush is one write.
type outgoing struct{ frames []shard.Frame }

func (o *outgoing) add(frames []shard.Frame) {
next:
	for _, f := range frames {
		for i := range o.frames {
			if o.frames[i].To == f.To {
				o.frames[i].Data = append(o.frames[i].Data, f.Data...)
				continue next
			}
		}
		o.frames = append(o.frames, f)
	}
}

func (o *outgoing) send(t Transport) {
	for _, f := range o.frames {
		t.Send(f.To, f.Data)
	}
	clear(o.frames)
	o.frames = o.frames[:0]
}
