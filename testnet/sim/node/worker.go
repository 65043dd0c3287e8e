package node

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Worker drives one shard.
type worker struct {
	p        *Process
	shard    *shard.Shard
	Inbox    shard.Inbox
	due      bool
	applies  []applyTask
	applying bool
	// dozed are groups that fell asleep and still hold log; whether all of it may go.
	dozed map[anchormesh.SegmentID]bool
}

// applyTask is bound to the group as it was when the task came: the same replica may
// be gone and back from a snapshot before its turn.
type applyTask struct {
	shard.Apply
	group *Group
}

func newWorker(p *Process) *worker {
	w := &worker{p: p, shard: shard.New(), dozed: make(map[anchormesh.SegmentID]bool)}
	w.shard.SleepAfter(p.Mesh.Cfg.Mesh.SleepTicks)
	w.shard.AwakeAtMost(1) // a mesh here has few groups
	return w
}

func (p *Process) Worker(segment anchormesh.SegmentID) *worker {
	return p.workers[uint64(segment)%uint64(len(p.workers))]
}

// With runs f on a segment's replica, as a command in the worker's inbox.
func (p *Process) With(segment anchormesh.SegmentID, f func(*replica.Replica)) {
	w := p.Worker(segment)
	w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) { s.With(segment, f) })
	w.Kick()
}

func (w *worker) Kick() {
	if !w.due {
		w.due = true
		w.p.After(w.p.Moment(), w.run)
	}
}

func (w *worker) run() {
	w.due = false
	in := w.Inbox
	w.Inbox = shard.Inbox{}
	applied := in.Applied
	w.carryOut(w.shard.Step(&in))
	for _, a := range applied {
		if g, ents := w.p.Groups[a.Segment], a.Response.GetEntries(); g != nil && len(ents) > 0 {
			g.told = max(g.told, ents[len(ents)-1].GetIndex())
		}
	}
}

func (w *worker) carryOut(fx *shard.Effects) {
	p := w.p
	for _, s := range fx.Statuses {
		p.publish(s)
	}
	for _, s := range fx.Sleeps {
		w.slept(s)
	}
	for _, s := range fx.Strangers {
		p.stranger(s.From)
	}
	p.sendFrames(fx.Frames)
	if len(fx.Appends) > 0 {
		p.writer.appends = append(p.writer.appends, fx.Appends...)
		p.write()
	}
	if len(fx.Applies) > 0 {
		for _, a := range fx.Applies {
			w.applies = append(w.applies, applyTask{a, p.Groups[a.Segment]})
		}
		w.applySoon()
	}
	for _, r := range fx.Reads {
		if g := p.Groups[r.Segment]; g != nil {
			done, index := r.Done, r.Index
			g.WhenApplied(index, func(err error) { done(index, err) })
		} else {
			r.Done(0, consensus.ErrNoGroup)
		}
	}
	for _, s := range fx.Snapshots {
		p.sendSnapshot(s)
	}
}

func (p *Process) publish(s shard.Status) {
	g := p.Groups[s.Segment]
	if g == nil {
		return
	}
	g.Status = s
	p.Mesh.K.Note("status", p.Index, uint64(s.Segment), s.Term, uint64(s.Status.Leader), uint64(s.Role))
	if s.Role == raft.StateLeader {
		p.Mesh.Stats.Elections++
		p.Mesh.Fail(p.Mesh.Leaders.Leads(uint64(s.Segment), s.Term, string(p.ID)))
	}
	p.Table.SetLeader(s.Segment, s.Leader)
	for _, s := range p.shells {
		s.Follows(g)
	}
}

// sendFrames posts frames as they are; the network may double or reorder them.
func (p *Process) sendFrames(frames []shard.Frame) {
	for _, f := range frames {
		to := p.Mesh.Find(f.To)
		if to == nil {
			continue
		}
		data := slices.Clone(f.Data) // the writer appends to frames
		p.Mesh.Net.Send(p.Index, to.Index, func() {
			if q := to.Proc; q != nil {
				q.Do(func() { q.receive(p.ID, data) })
			}
		})
	}
}

func (p *Process) receive(from anchormesh.NodeID, frame []byte) {
	err := message.Decode(slices.Clone(frame), func(segment anchormesh.SegmentID, m *raftpb.Message) {
		w := p.Worker(segment)
		w.Inbox.Messages = append(w.Inbox.Messages, shard.Inbound{From: from, Segment: segment, Message: m})
		w.Kick()
	})
	p.Mesh.Fail(err)
}

// applySoon lets the worker's applier go on.
func (w *worker) applySoon() {
	if w.applying || len(w.applies) == 0 {
		return
	}
	w.applying = true
	wait := w.p.Moment()
	if !w.p.Mesh.Healed && w.p.Rng.Float64() < w.p.Mesh.Cfg.Mesh.Stall { // a store that is behind makes appliers wait
		wait += time.Duration(w.p.Rng.Int64N(int64(5 * time.Second)))
	}
	w.p.After(wait, func() {
		w.applying = false
		task := &w.applies[0]
		if w.applySome(task) {
			w.applies = w.applies[1:]
		}
		w.applySoon()
	})
}

// applySome applies entries of a task; sometimes it pauses half way, so that
// commits and crashes fall between entries. It reports whether the task is done.
func (w *worker) applySome(task *applyTask) bool {
	p := w.p
	g := p.Groups[task.Segment]
	if g == nil || g.replica != task.Done.Replica || g != task.group && p.Mesh.Cfg.Plant != plan.PlantLateApply {
		for i := range task.Entries {
			finish(&task.Entries[i], nil, consensus.ErrUnknown)
		}
		return true
	}
	for len(task.Entries) > 0 {
		e := &task.Entries[0]
		p.Mesh.Before, _ = g.Machine.Space().Revision()
		was := g.Machine.State()
		generation := was.Descriptor.Generation
		out := g.Machine.Apply(e, true)
		p.Mesh.judge(g.Segment, was, e, out)
		p.Mesh.Applied(string(p.ID), p.Index, g.Segment, g.Machine.Space(), e, generation, out)
		g.advance(e.Index)
		finish(e, out, nil)
		task.Entries = task.Entries[1:]
		if len(task.Entries) > 0 && p.Rng.IntN(8) == 0 {
			return false
		}
	}
	w.Inbox.Applied = append(w.Inbox.Applied, task.Done)
	w.Kick()
	return true
}

func finish(e *replica.Entry, out []consensus.Outcome, err error) {
	for i, done := range e.Waiters {
		res := replica.Result{Index: e.Index, Term: e.Term, Err: err}
		switch {
		case err != nil:
		case e.Refused:
			res.Err = consensus.ErrDropped
		case i < len(out):
			res.Response, res.Err, res.Parts = out[i].Response, out[i].Err, out[i].Parts
		}
		done(res)
	}
}

// slept notes that a group fell asleep or woke.
func (w *worker) slept(s shard.Sleep) {
	if s.Asleep {
		w.dozed[s.Segment] = s.Whole
		w.p.Mesh.Stats.Slept++
	} else {
		delete(w.dozed, s.Segment)
	}
	if g := w.p.Groups[s.Segment]; g != nil {
		g.Asleep = s.Asleep
	}
}
