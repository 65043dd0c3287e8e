package consensus

import (
	"slices"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
)

type inbox = shard.Inbox

// worker drives one shard: it takes all that gathered, steps the shard once and
// carries the effects out.
type worker struct {
	engine *Engine
	inbox  *mailbox[inbox]
	shard  *shard.Shard
	apply  *applier
	groups atomic.Int64 // groups that run
	asleep atomic.Int64 // groups that sleep
	// dozed are groups that fell asleep and still hold log: see truncate. The value says
	// whether all of it may go. Only the worker's goroutine uses it.
	dozed map[anchormesh.SegmentID]bool
}

func newWorker(e *Engine) *worker {
	w := &worker{engine: e, inbox: newMailbox[inbox](), shard: shard.New(), dozed: make(map[anchormesh.SegmentID]bool)}
	w.shard.SleepAfter(e.cfg.SleepTicks)
	w.apply = &applier{engine: e, worker: w, inbox: newMailbox[applies]()}
	return w
}

func (w *worker) run() {
	spare := new(inbox)
	for {
		in := w.inbox.take(spare)
		if in == nil {
			return
		}
		w.carryOut(w.shard.Step(in))
		in.Reset()
		spare = in
	}
}

// carryOut sends what may be sent before anything is durable, then hands the
// rest on. Statuses go first, so that who is told of a lost leader already
// finds the new one.
func (w *worker) carryOut(fx *shard.Effects) {
	w.asleep.Store(int64(w.shard.Asleep()))
	for _, s := range fx.Statuses {
		w.engine.publish(s)
	}
	for _, s := range fx.Sleeps {
		w.slept(s)
	}
	for _, a := range fx.Acked {
		if g := w.engine.group(a.Segment); g != nil {
			g.gate.reach(a.Index)
		}
	}
	if f := w.engine.cfg.Listener.Stranger; f != nil {
		for _, s := range fx.Strangers {
			f(s.Segment, s.From)
		}
	}
	for _, f := range fx.Frames {
		w.engine.transport.Send(f.To, f.Data)
	}
	w.hand(fx.Appends)
	if len(fx.Applies) > 0 {
		w.apply.inbox.put(func(in *applies) { in.list = append(in.list, fx.Applies...) })
	}
	for _, r := range fx.Reads {
		if g := w.engine.group(r.Segment); g != nil {
			done := r.Done
			index := r.Index
			g.whenApplied(index, func(err error) { done(index, err) })
		} else {
			r.Done(0, ErrNoGroup)
		}
	}
	for _, s := range fx.Snapshots {
		w.engine.sendSnapshot(s)
	}
}

// hand gives appends to the log's writer. What is only a commit index, which nobody waits
// for, does not wake it.
func (w *worker) hand(appends []shard.Append) {
	if len(appends) == 0 {
		return
	}
	put := w.engine.writer.inbox.leave
	if slices.ContainsFunc(appends, func(a shard.Append) bool { return a.Sync || len(a.Frames)+len(a.Done.Local) > 0 }) {
		put = w.engine.writer.inbox.put
	}
	put(func(in *writes) { in.appends = append(in.appends, appends...) })
}

// inboundPerGroup is what a tick may bring to a group of a few anchors: a heartbeat or
// the answers to one, and as much again of other things.
const inboundPerGroup = 8

// receive puts messages into the inbox as far as there is room.
func (w *worker) receive(list []shard.Inbound) {
	limit := w.engine.cfg.MaxInboundFrames + inboundPerGroup*int(w.groups.Load())
	w.inbox.put(func(in *inbox) {
		room := max(0, limit-len(in.Messages))
		in.Messages = append(in.Messages, list[:min(room, len(list))]...)
	})
}

// slept notes that a group fell asleep or woke.
func (w *worker) slept(s shard.Sleep) {
	if g := w.engine.group(s.Segment); g != nil {
		g.asleep.Store(s.Asleep)
	}
	if s.Asleep {
		w.dozed[s.Segment] = s.Whole
	} else {
		delete(w.dozed, s.Segment)
	}
}

// do runs f on the worker's goroutine and waits for it.
func (w *worker) do(f func(*shard.Shard)) error {
	done := make(chan struct{})
	ok := w.inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) {
			f(s)
			close(done)
		})
	})
	if !ok {
		return ErrStopped
	}
	<-done
	return nil
}

// with runs f on a segment's replica, later, on the worker's goroutine.
func (w *worker) with(segment anchormesh.SegmentID, f func(*replica.Replica)) {
	w.inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) { s.With(segment, f) })
	})
}

// applies is a bundle for an applier. done is called behind the list.
type applies struct {
	list []shard.Apply
	done []func()
}

// applier calls the state machines of one worker's groups.
type applier struct {
	engine *Engine
	worker *worker
	inbox  *mailbox[applies]
}

func (a *applier) run() {
	spare := new(applies)
	for {
		in := a.inbox.take(spare)
		if in == nil {
			return
		}
		for i := range in.list {
			a.apply(&in.list[i])
		}
		for _, f := range in.done {
			f()
		}
		clear(in.list)
		clear(in.done)
		in.list, in.done = in.list[:0], in.done[:0]
		spare = in
	}
}

// drain waits until everything handed over before is applied.
func (a *applier) drain() {
	done := make(chan struct{})
	if a.inbox.put(func(in *applies) { in.done = append(in.done, func() { close(done) }) }) {
		<-done
	}
}

func (a *applier) apply(task *shard.Apply) {
	g := a.engine.group(task.Segment)
	if g == nil || g.replica != task.Done.Replica {
		for i := range task.Entries {
			finish(&task.Entries[i], nil, ErrUnknown)
		}
		return
	}
	for i := range task.Entries {
		e := &task.Entries[i]
		out := g.machine.Apply(e, e.Waiters != nil)
		g.advance(e.Index)
		a.tell(g, e, out)
		if f := a.engine.cfg.Listener.Batch; f != nil && len(e.Payloads) > 0 {
			f(len(e.Payloads))
		}
	}
	done := task.Done
	a.worker.inbox.put(func(in *inbox) { in.Applied = append(in.Applied, done) })
}

// tell finishes an entry, now or once enough voters have it on disk.
func (a *applier) tell(g *group, e *Entry, out []Outcome) {
	gated := len(e.Waiters) > 0 && len(e.Payloads) > 0 && !e.Refused && a.gates(e.Payloads[0])
	if gated {
		held := *e
		gated = g.gate.hold(e.Index, a.engine.cfg.AckTimeout, func(err error) { finish(&held, out, err) })
	}
	if !gated {
		finish(e, out, nil)
		return
	}
	for _, f := range e.Held {
		f()
	}
}

func (a *applier) gates(payload []byte) bool {
	f := a.engine.cfg.Replica.Gates
	return f == nil || f(payload)
}

// finish tells who waits for an entry how it ended.
func finish(e *Entry, out []Outcome, err error) {
	for i, done := range e.Waiters {
		res := Result{Index: e.Index, Term: e.Term, Err: err}
		switch {
		case err != nil:
		case e.Refused:
			res.Err = ErrDropped
		case i < len(out):
			res.Response, res.Err, res.Parts = out[i].Response, out[i].Err, out[i].Parts
		}
		done(res)
	}
}
