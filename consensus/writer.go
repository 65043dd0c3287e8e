package consensus

import (
	"maps"
	"slices"
	"sync/atomic"

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
	// begins are the beginnings of new logs. begun is called when they are written.
	begins []wal.Update
	begun  []func()
	// marks: let the log record how far it was truncated, even if there is nothing else.
	marks bool
	// rest: sync what nobody waits for, and look which light groups are at rest.
	rest bool
	// harden names groups that are light no more.
	harden []hardening
}

type hardening struct {
	segment anchormesh.SegmentID
	done    func()
}

// writer carries appends out: one write for all that gathered; the log makes more of what is too
// much for one. What has to be on disk
// goes on to the syncer; what a light group may acknowledge from memory is said at once.
type writer struct {
	engine *Engine
	inbox  *mailbox[writes]
	syncer *syncer
	batch  []wal.Update
	frames outgoing
	// lazy holds commit indexes that nothing waits for; they ride on the next
	// batch that is written anyway.
	lazy  map[anchormesh.SegmentID]*raftpb.HardState
	light map[anchormesh.SegmentID]*light
	later syncs // being built
	lanes lanes
	now   []going
	// loose counts the bytes written that nobody has asked to sync.
	loose int
}

// light is a group that acknowledges from memory.
type light struct {
	// open: the log says so, durably, as it must before the first such acknowledgement.
	open atomic.Bool
	// waiting counts its appends that wait for the disk; those behind them wait, too.
	waiting atomic.Int32
	quiet   int // rests since the last append
}

// quietRests is how many rests, a second or so each, a light group must not be written
// to until the log says that all of it is on disk. After that a crash of the machine cannot
// have taken anything of it; its next write waits for the disk.
const quietRests = 10

// looseBytesMax bounds what is written and not synced before the next rest.
const looseBytesMax = 8 << 20

func newWriter(e *Engine) *writer {
	return &writer{
		engine: e, inbox: newMailbox[writes](), syncer: newSyncer(e),
		lazy: make(map[anchormesh.SegmentID]*raftpb.HardState), light: make(map[anchormesh.SegmentID]*light),
	}
}

func (w *writer) run() {
	spare := new(writes)
	for {
		in := w.inbox.take(spare)
		if in == nil {
			if w.lanes.held.Load() > 0 {
				w.handle(&writes{marks: true})
			}
			w.leave()
			return
		}
		w.handle(in)
		clear(in.appends)
		clear(in.updates)
		clear(in.done)
		clear(in.begins)
		clear(in.begun)
		clear(in.harden)
		*in = writes{
			appends: in.appends[:0], updates: in.updates[:0], done: in.done[:0],
			begins: in.begins[:0], begun: in.begun[:0], harden: in.harden[:0],
		}
		spare = in
	}
}

// close lets the writer end after what has gathered, and the syncer after that.
func (w *writer) close() { w.inbox.close() }

// leave lets the log say that all light groups are on disk: they are, behind the sync.
func (w *writer) leave() {
	w.batch = w.batch[:0]
	for _, id := range slices.Sorted(maps.Keys(w.light)) {
		w.batch = append(w.batch, wal.Update{Group: id, Promise: wal.Disk})
	}
	if len(w.batch) > 0 {
		w.write()
	}
	w.syncer.inbox.put(func(in *syncs) { in.needed = true })
	w.syncer.inbox.close()
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

// drain waits until everything handed over before is carried out.
func (w *writer) drain() { _ = w.wait(func(*writes) {}) }

// handle writes a bundle and says what may be said.
func (w *writer) handle(in *writes) {
	w.batch = w.batch[:0]
	later := &w.later
	later.done, later.needed = append(later.done, in.done...), len(in.updates) > 0 || in.marks
	now := w.now[:0]
	for _, g := range w.admit(in) {
		a := g.Append
		l := w.stage(&a)
		// What needs no sync itself says that all before it is stored, and overtakes nothing.
		behind := len(later.appends) > 0 || !w.syncer.idle()
		switch {
		case l != nil && l.waiting.Load() == 0 && (!a.Sync || a.Memory && l.open.Load()), l == nil && !a.Sync && !behind:
			now = append(now, g)
		default:
			if l != nil {
				l.waiting.Add(1)
			}
			later.add(g, l)
		}
	}
	w.batch = append(w.batch, in.updates...)
	for i := range in.updates {
		delete(w.light, in.updates[i].Group)
	}
	w.batch = append(w.batch, in.begins...)
	w.settle(in, later)
	if len(w.batch) > 0 || in.marks {
		w.write()
	}
	for _, f := range in.begun {
		f()
	}
	tell(w.engine, &w.frames, now)
	clear(now)
	w.now = now
	if w.loose > looseBytesMax {
		later.needed = true
	}
	if later.needed {
		w.loose = 0
	}
	w.syncer.take(later)
	later.reset()
}

// stage adds an append to the batch. It returns the group's state if it is light.
func (w *writer) stage(a *shard.Append) *light {
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
	w.count(a)
	w.batch = append(w.batch, u)
	return l
}

// settle lets the log say of groups that are light no more, and of light ones to which
// nothing happens, that they are on disk.
func (w *writer) settle(in *writes, later *syncs) {
	for _, h := range in.harden {
		if w.light[h.segment] != nil {
			w.rest(h.segment)
		}
		later.needed = true
		if h.done != nil {
			later.done = append(later.done, h.done)
		}
	}
	if !in.rest || len(w.light) == 0 {
		return
	}
	later.needed = true
	for _, id := range slices.Sorted(maps.Keys(w.light)) {
		if l := w.light[id]; l.quiet < quietRests {
			l.quiet++
		} else if l.waiting.Load() == 0 {
			w.rest(id)
		}
	}
}

// rest notes that a group is on disk with the batch that is being built. Its next
// acknowledgement from memory has to open it again.
func (w *writer) rest(segment anchormesh.SegmentID) {
	delete(w.light, segment)
	w.batch = append(w.batch, wal.Update{Group: segment, Promise: wal.Disk})
}

// write gives the batch to the log. Failure stops the process: see the package comment.
func (w *writer) write() {
	if err := w.engine.log.Write(w.batch); err != nil {
		w.engine.failed(err)
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
		w.loose += len(e.GetData())
		g.tail.bytes.Add(uint64(len(e.GetData())))
	}
}

// tell says what may be said of appends.
func tell(e *Engine, frames *outgoing, appends []going) {
	for i := range appends {
		frames.add(appends[i].Frames)
	}
	frames.send(e.transport)
	for i := range appends {
		done := appends[i].Done
		if len(done.Local) > 0 {
			e.worker(done.Segment).inbox.put(func(in *inbox) { in.Appended = append(in.Appended, done) })
		}
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
