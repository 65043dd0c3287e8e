package sim

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/node/machine"
)

// This file is package consensus's shell (engine, worker, writer, applier) with its
// goroutines turned into events: shards, replicas and the log are the real ones,
// only when each runs is the simulation's choice.

// group is what the shell knows of one running replica.
type group struct {
	segment anchormesh.SegmentID
	replica anchormesh.ReplicaID
	machine *machine.Machine
	log     *wal.GroupLog
	status  shard.Status
	applied uint64
	told    uint64 // what raft knows to be applied; it may read the log from there
	waiting []appliedWaiter
	pins    map[anchormesh.ReplicaID]uint64
	asleep  bool
}

type appliedWaiter struct {
	index uint64
	done  func(error)
}

func (g *group) leads() bool {
	return g.status.Status.Leader != 0 && g.status.Status.Leader == g.replica
}

func (g *group) whenApplied(index uint64, done func(error)) {
	if g.applied >= index {
		done(nil)
		return
	}
	g.waiting = append(g.waiting, appliedWaiter{index, done})
}

func (g *group) advance(index uint64) {
	g.applied = index
	waiting := g.waiting
	g.waiting = nil
	for _, w := range waiting {
		if w.index <= index {
			w.done(nil)
		} else {
			g.waiting = append(g.waiting, w)
		}
	}
}

// storage is raft's view of the group's log and durable state, as in package
// consensus.
type storage struct {
	*wal.GroupLog
	start   consensus.Point
	machine *machine.Machine
}

func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs := s.InitialHardState()
	out := &raftpb.HardState{
		Term: new(max(hs.GetTerm(), s.start.Term)), Vote: new(hs.GetVote()), Commit: new(max(hs.GetCommit(), s.start.Index)),
	}
	if hs.GetTerm() < s.start.Term {
		out.Vote = new(uint64(0))
	}
	// A snapshot older than a commit index noted before it: the index is only a hint.
	if last, err := s.LastIndex(); err == nil && s.machine != nil {
		out.Commit = new(min(out.GetCommit(), last))
	}
	return out, s.start.Conf, nil
}

func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	index, conf := s.machine.Durable()
	term, err := s.Term(index)
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: conf}}, nil
}

// startGroup starts a replica from its state machine and the log behind it.
// first makes it stand for election at once.
func (p *process) startGroup(segment anchormesh.SegmentID, id anchormesh.ReplicaID, m *machine.Machine, first bool) error {
	start := m.Start()
	g := &group{segment: segment, replica: id, machine: m, log: p.log.Group(segment), applied: start.Index, told: start.Index,
		pins: make(map[anchormesh.ReplicaID]uint64)}
	cfg := replica.DefaultConfig()
	cfg.ID, cfg.Applied, cfg.Boot = id, start.Index, p.rng.Uint64()
	cfg.ElectionTicks, cfg.HeartbeatTicks = p.mesh.cfg.Mesh.ElectionTicks, 1
	cfg.MaxBatchRequests, cfg.MaxInflightBatches = p.mesh.cfg.Mesh.BatchRequests, p.mesh.cfg.Mesh.InflightBatches
	cfg.MaxMessageBytes, cfg.MaxBatchBytes = 4<<10, 8<<10
	cfg.Storage = &storage{GroupLog: g.log, start: start, machine: m}
	r, err := replica.New(cfg)
	if err != nil {
		return err
	}
	g.status.Status = r.Status()
	p.groups[segment] = g
	p.worker(segment).shard.Add(segment, r, maps.Clone(m.State().Peers()))
	v := start.Conf.GetVoters()
	if first || len(v) == 1 && v[0] == uint64(id) && len(start.Conf.GetVotersOutgoing()) == 0 {
		p.worker(segment).shard.Urge(segment)
	}
	p.worker(segment).kick()
	return nil
}

// stopGroup closes a replica.
func (p *process) stopGroup(segment anchormesh.SegmentID) {
	p.worker(segment).shard.Remove(segment)
	g := p.groups[segment]
	delete(p.groups, segment)
	if g == nil {
		return
	}
	for _, w := range g.waiting {
		w.done(consensus.ErrNoGroup)
	}
	g.waiting = nil
}

// worker drives one shard.
type worker struct {
	p        *process
	shard    *shard.Shard
	inbox    shard.Inbox
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
	group *group
}

func newWorker(p *process) *worker {
	w := &worker{p: p, shard: shard.New(), dozed: make(map[anchormesh.SegmentID]bool)}
	w.shard.SleepAfter(p.mesh.cfg.Mesh.SleepTicks)
	return w
}

func (p *process) worker(segment anchormesh.SegmentID) *worker {
	return p.workers[uint64(segment)%uint64(len(p.workers))]
}

// with runs f on a segment's replica, as a command in the worker's inbox.
func (p *process) with(segment anchormesh.SegmentID, f func(*replica.Replica)) {
	w := p.worker(segment)
	w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) { s.With(segment, f) })
	w.kick()
}

func (w *worker) kick() {
	if !w.due {
		w.due = true
		w.p.after(w.p.moment(), w.run)
	}
}

func (w *worker) run() {
	w.due = false
	in := w.inbox
	w.inbox = shard.Inbox{}
	applied := in.Applied
	w.carryOut(w.shard.Step(&in))
	for _, a := range applied {
		if g, ents := w.p.groups[a.Segment], a.Response.GetEntries(); g != nil && len(ents) > 0 {
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
			w.applies = append(w.applies, applyTask{a, p.groups[a.Segment]})
		}
		w.applySoon()
	}
	for _, r := range fx.Reads {
		if g := p.groups[r.Segment]; g != nil {
			done, index := r.Done, r.Index
			g.whenApplied(index, func(err error) { done(index, err) })
		} else {
			r.Done(0, consensus.ErrNoGroup)
		}
	}
	for _, s := range fx.Snapshots {
		p.sendSnapshot(s)
	}
}

func (p *process) publish(s shard.Status) {
	g := p.groups[s.Segment]
	if g == nil {
		return
	}
	g.status = s
	p.mesh.k.Note("status", p.idx, uint64(s.Segment), s.Term, uint64(s.Status.Leader), uint64(s.Role))
	if s.Role == raft.StateLeader {
		p.mesh.stats.Elections++
		p.mesh.fail(p.mesh.leaders.Leads(uint64(s.Segment), s.Term, string(p.id)))
	}
	p.table.SetLeader(s.Segment, s.Leader)
	p.lessor.statusChanged(g)
	p.lines.statusChanged(s.Segment, g.leads(), s.Term)
	if g.leads() {
		p.after(p.moment(), p.steward)
	}
}

// sendFrames posts frames as they are; the network may double or reorder them.
func (p *process) sendFrames(frames []shard.Frame) {
	for _, f := range frames {
		to := p.mesh.find(f.To)
		if to == nil {
			continue
		}
		data := slices.Clone(f.Data) // the writer appends to frames
		p.mesh.net.Send(p.idx, to.idx, func() {
			if q := to.proc; q != nil {
				q.do(func() { q.receive(p.id, data) })
			}
		})
	}
}

func (p *process) receive(from anchormesh.NodeID, frame []byte) {
	err := message.Decode(slices.Clone(frame), func(segment anchormesh.SegmentID, m *raftpb.Message) {
		w := p.worker(segment)
		w.inbox.Messages = append(w.inbox.Messages, shard.Inbound{From: from, Segment: segment, Message: m})
		w.kick()
	})
	p.mesh.fail(err)
}

// applySoon lets the worker's applier go on.
func (w *worker) applySoon() {
	if w.applying || len(w.applies) == 0 {
		return
	}
	w.applying = true
	wait := w.p.moment()
	if !w.p.mesh.healed && w.p.rng.Float64() < w.p.mesh.cfg.Mesh.Stall { // a store that is behind makes appliers wait
		wait += time.Duration(w.p.rng.Int64N(int64(5 * time.Second)))
	}
	w.p.after(wait, func() {
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
	g := p.groups[task.Segment]
	if g == nil || g.replica != task.Done.Replica || g != task.group && p.mesh.cfg.Plant != PlantLateApply {
		for i := range task.Entries {
			finish(&task.Entries[i], nil, consensus.ErrUnknown)
		}
		return true
	}
	for len(task.Entries) > 0 {
		e := &task.Entries[0]
		p.mesh.before, _ = g.machine.Space().Revision()
		generation := g.machine.Descriptor().Generation
		out := g.machine.Apply(e, true)
		p.mesh.applied(p, g, e, generation, out)
		g.advance(e.Index)
		finish(e, out, nil)
		task.Entries = task.Entries[1:]
		if len(task.Entries) > 0 && p.rng.IntN(8) == 0 {
			return false
		}
	}
	w.inbox.Applied = append(w.inbox.Applied, task.Done)
	w.kick()
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
			res.Response, res.Err = out[i].Response, out[i].Err
		}
		done(res)
	}
}

// slept notes that a group fell asleep or woke.
func (w *worker) slept(s shard.Sleep) {
	if s.Asleep {
		w.dozed[s.Segment] = s.Whole
		w.p.mesh.stats.Slept++
	} else {
		delete(w.dozed, s.Segment)
	}
	if g := w.p.groups[s.Segment]; g != nil {
		g.asleep = s.Asleep
	}
}

// tick moves the groups' clocks and now and then lets go of log.
func (p *process) tick() {
	for _, w := range p.workers {
		w.inbox.Ticks++
		w.kick()
	}
	if p.rng.IntN(p.mesh.cfg.Mesh.ElectionTicks) != 0 {
		return
	}
	for _, w := range p.workers {
		w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) {
			s.Awake(func(segment anchormesh.SegmentID, _ *replica.Replica) {
				if g := p.groups[segment]; g != nil {
					p.truncate(g, p.mesh.cfg.Mesh.KeepEntries)
				}
			})
			w.truncateDozed()
		})
	}
}

// truncateDozed lets go of the log of groups that sleep, once: of all of it, if all
// their anchors have everything.
func (w *worker) truncateDozed() {
	for _, segment := range slices.Sorted(maps.Keys(w.dozed)) {
		g, keep := w.p.groups[segment], w.p.mesh.cfg.Mesh.KeepEntries
		if g == nil || !g.asleep {
			delete(w.dozed, segment)
			continue
		}
		if w.dozed[segment] {
			keep = 0
		}
		last, err := g.log.LastIndex()
		if durable, _ := g.machine.Durable(); err != nil || w.p.truncate(g, keep) == last || keep > 0 && durable >= last {
			delete(w.dozed, segment)
		}
	}
}

// truncate lets go of a group's log but for the last entries, and returns the index
// up to which it went.
func (p *process) truncate(g *group, keep uint64) (upTo uint64) {
	first, err := g.log.FirstIndex()
	if err != nil {
		p.broken("log", err)
		return 0
	}
	last, err := g.log.LastIndex()
	if err != nil {
		p.broken("log", err)
		return 0
	}
	if last <= keep {
		return 0
	}
	upTo, _ = g.machine.Durable()
	upTo = min(upTo, last-keep)
	if p.mesh.cfg.Plant != PlantTruncateAhead {
		upTo = min(upTo, g.told)
	}
	for _, pin := range g.pins {
		upTo = min(upTo, pin)
	}
	if upTo < first {
		return first - 1
	}
	if term, err := g.log.Term(upTo); err == nil {
		p.log.Truncate(g.segment, wal.Mark{Index: upTo, Term: term})
	}
	return upTo
}

// nodeLost tells all groups that a connection to a node ended.
func (p *process) nodeLost(id anchormesh.NodeID) {
	for _, w := range p.workers {
		w.inbox.Commands = append(w.inbox.Commands, func(s *shard.Shard) { s.NodeLost(id) })
		w.kick()
	}
}

// electionTimeout is the shortest of the mesh's election timeouts.
func (m *mesh) electionTimeout() time.Duration {
	return time.Duration(m.cfg.Mesh.ElectionTicks) * m.cfg.Mesh.Tick
}
