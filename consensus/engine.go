package consensus

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// Engine runs the groups of a node.
type Engine struct {
	cfg       Config
	log       Log
	transport Transport
	snapshots Snapshots
	workers   []*worker
	writer    *writer

	mu     sync.RWMutex
	groups map[anchormesh.SegmentID]*group
	lanes  map[string]*lane

	stop    chan struct{}
	running sync.WaitGroup
}

// New returns an engine; Run starts it.
func New(cfg Config, log Log, transport Transport, snapshots Snapshots) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, log: log, transport: transport, snapshots: snapshots,
		groups: make(map[anchormesh.SegmentID]*group), lanes: make(map[string]*lane), stop: make(chan struct{}),
	}
	e.writer = newWriter(e)
	for range cfg.Workers {
		e.workers = append(e.workers, newWorker(e))
	}
	return e, nil
}

// Start starts the goroutines.
func (e *Engine) Start() {
	for _, w := range e.workers {
		e.running.Go(w.run)
		e.running.Go(w.apply.run)
	}
	e.running.Go(e.writer.run)
	e.running.Go(e.writer.syncer.run)
	e.running.Go(e.tick)
}

// Stop closes every replica and joins the goroutines. Workers end first, since
// they feed the others; what the log writer still holds is written.
func (e *Engine) Stop() {
	close(e.stop)
	for _, w := range e.workers {
		_ = w.do((*shard.Shard).RemoveAll)
	}
	e.mu.Lock()
	groups := e.groups
	e.groups = make(map[anchormesh.SegmentID]*group)
	e.mu.Unlock()
	for _, g := range groups {
		g.stop()
	}
	for _, w := range e.workers {
		w.apply.drain()
	}
	e.writer.drain()
	for _, w := range e.workers {
		w.inbox.close()
		w.apply.inbox.close()
	}
	e.writer.close()
	e.running.Wait()
}

func (e *Engine) tick() {
	ticker := time.NewTicker(e.cfg.Tick)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-e.stop:
			return
		case <-ticker.C:
		}
		// A worker that is late loses ticks: were it to make up for them before it reads
		// its messages, it would take its leaders for dead, and be later still.
		for _, w := range e.workers {
			w.inbox.put(func(in *inbox) { in.Ticks = 1 })
		}
		if n%e.cfg.ElectionTicks == 0 {
			e.writer.inbox.put(func(in *writes) { in.rest = true })
			for _, w := range e.workers {
				w.truncate()
			}
		}
	}
}

func (e *Engine) worker(segment anchormesh.SegmentID) *worker {
	return e.workers[e.index(segment)]
}

func (e *Engine) index(segment anchormesh.SegmentID) int {
	return int(uint64(segment) % uint64(len(e.workers)))
}

func (e *Engine) group(segment anchormesh.SegmentID) *group {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.groups[segment]
}

// Segments returns the segments with a running replica, sorted.
func (e *Engine) Segments() []anchormesh.SegmentID {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Sorted(maps.Keys(e.groups))
}

// StartGroup starts a replica from its state machine's durable state and the
// log behind it. It does not wait for it: what is asked of the group from now on finds it.
func (e *Engine) StartGroup(spec GroupSpec) error {
	g := &group{segment: spec.Segment, replica: spec.Replica, machine: spec.Machine, log: e.log.Group(spec.Segment)}
	g.applied.Store(spec.Start.Index)
	g.gate.told = e.cfg.Listener.Gated
	cfg := e.cfg.Replica
	cfg.ID, cfg.Applied, cfg.Boot = spec.Replica, spec.Start.Index, rand.Uint64()
	cfg.ElectionTicks, cfg.HeartbeatTicks = e.cfg.ElectionTicks, e.cfg.HeartbeatTicks
	cfg.Light = spec.Light
	cfg.Storage = &storage{GroupLog: g.log, start: spec.Start, machine: spec.Machine}
	r, err := replica.New(cfg)
	if err != nil {
		return fmt.Errorf("segment %s: %w", spec.Segment, err)
	}
	status := r.Status()
	g.status.Store(&Status{Status: status, Replica: spec.Replica})
	e.mu.Lock()
	if e.groups[spec.Segment] != nil {
		e.mu.Unlock()
		return fmt.Errorf("segment %s: %w", spec.Segment, ErrGroupExists)
	}
	e.groups[spec.Segment] = g
	e.mu.Unlock()
	peers, urge := maps.Clone(spec.Peers), spec.Campaign || soleVoter(spec.Start.Conf, spec.Replica)
	w := e.worker(spec.Segment)
	w.groups.Add(1)
	ok := w.inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) {
			s.Add(spec.Segment, r, peers)
			if urge {
				s.Urge(spec.Segment)
			}
		})
	})
	if !ok {
		return ErrStopped
	}
	return nil
}

// soleVoter reports whether nobody else could win an election: there is no
// reason to wait for the election timeout then.
func soleVoter(conf *raftpb.ConfState, id anchormesh.ReplicaID) bool {
	return len(conf.GetVoters()) == 1 && conf.GetVoters()[0] == uint64(id) && len(conf.GetVotersOutgoing()) == 0
}

// StopGroup closes a replica; proposals on their way end with ErrUnknown.
//
// When it returns, nothing of the replica is on its way any more: its state
// machine is not called again, and what it wrote is in the log. Whoever looks at
// the log or replaces the state afterwards relies on that.
func (e *Engine) StopGroup(segment anchormesh.SegmentID) {
	w := e.worker(segment)
	_ = w.do(func(s *shard.Shard) { s.Remove(segment) })
	e.mu.Lock()
	g := e.groups[segment]
	delete(e.groups, segment)
	e.mu.Unlock()
	if g == nil {
		e.writer.drain() // of votes for a replica without state
		return
	}
	w.groups.Add(-1)
	g.stop()
	w.apply.drain()
	e.writer.drain()
}

// Await lets this node answer for a replica that has no state yet: the group's
// leader will send a snapshot. It votes meanwhile, by its log: Hush before that is
// written, or the group started.
func (e *Engine) Await(segment anchormesh.SegmentID, id anchormesh.ReplicaID) {
	log := &storage{GroupLog: e.log.Group(segment)}
	_ = e.worker(segment).do(func(s *shard.Shard) { s.AddAbsent(segment, id, log, e.cfg.ElectionTicks) })
}

// Hush ends the votes for a replica that has no state yet. When it returns, those that were
// given are in the log.
func (e *Engine) Hush(segment anchormesh.SegmentID) {
	_ = e.worker(segment).do(func(s *shard.Shard) { s.Hush(segment) })
	e.writer.drain()
}

// RestartLog makes the segment's log begin behind a point, durably: for a
// snapshot that was installed. The group must be stopped.
func (e *Engine) RestartLog(segment anchormesh.SegmentID, at wal.Mark) error {
	return e.update(wal.Update{Group: segment, Snapshot: &at, Promise: wal.Disk})
}

// BeginLog is RestartLog for the log of a replica that has said nothing to anybody yet:
// it returns when the beginning is written. Nothing of the group is acknowledged before
// it is synced, for that is written behind it.
func (e *Engine) BeginLog(segment anchormesh.SegmentID, at wal.Mark) error {
	done := make(chan struct{})
	u := wal.Update{Group: segment, Snapshot: &at, Promise: wal.Disk}
	if !e.writer.inbox.put(func(in *writes) {
		in.begins, in.begun = append(in.begins, u), append(in.begun, func() { close(done) })
	}) {
		return ErrStopped
	}
	<-done
	return nil
}

// DropLog removes the segment's log from this node, durably. Nothing is said for a replica
// of it any more that was awaited: without the log nobody knows whom it voted for.
func (e *Engine) DropLog(segment anchormesh.SegmentID) error {
	_ = e.worker(segment).do(func(s *shard.Shard) { s.Forget(segment) })
	e.writer.drain()
	return e.update(wal.Update{Group: segment, Remove: true})
}

func (e *Engine) update(u wal.Update) error {
	return e.writer.wait(func(in *writes) { in.updates = append(in.updates, u) })
}

// SetLight says whether a group's entries may be acknowledged before they are synced.
// Who says so must have the switch synced, in the log; that this replica made use of it
// is noted in the log before it does. done, which may be nil, is called when a group
// that is light no more has everything on disk; not if the engine stops before.
func (e *Engine) SetLight(segment anchormesh.SegmentID, light bool, done func()) {
	w := e.worker(segment)
	w.inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) {
			s.With(segment, func(r *replica.Replica) { r.SetLight(light) })
			if !light { // behind what this worker has handed over
				e.writer.inbox.put(func(in *writes) { in.harden = append(in.harden, hardening{segment, done}) })
			}
		})
	})
}

// SetAcks says how many voters must have an entry on disk before its proposer is told,
// from now on. It delays that answer alone. Fewer reachable voters than that refuse
// requests with ErrTooFewAnchors; acknowledgements that do not come are ErrUnknown, after
// Config.AckTimeout.
func (e *Engine) SetAcks(segment anchormesh.SegmentID, acks Acks) {
	g := e.group(segment)
	if g == nil {
		return
	}
	g.gate.set(acks != Acks{})
	e.worker(segment).with(segment, func(r *replica.Replica) { r.SetAcks(acks) })
}

// SetPeers says on which nodes a group's replicas are.
func (e *Engine) SetPeers(segment anchormesh.SegmentID, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	peers = maps.Clone(peers)
	e.worker(segment).inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) { s.SetPeers(segment, peers) })
	})
}

// Propose sends a request into a segment's log. done is called exactly once,
// from any goroutine, and must not block.
func (e *Engine) Propose(segment anchormesh.SegmentID, gen anchormesh.Generation, payload []byte, done func(Result)) {
	e.Submit(segment, Proposal{Generation: gen, Payload: payload, Done: done})
}

// Submit is Propose with all a proposal can say. Requests of one goroutine go into
// the log in their order.
func (e *Engine) Submit(segment anchormesh.SegmentID, p Proposal) {
	ok := e.worker(segment).inbox.put(func(in *inbox) {
		in.Proposals = append(in.Proposals, shard.Proposal{Segment: segment, Proposal: p})
	})
	if !ok {
		p.Done(Result{Err: ErrStopped})
	}
}

// ReadIndex calls done when a read of this node's applied state is
// linearizable with respect to this call.
func (e *Engine) ReadIndex(segment anchormesh.SegmentID, done func(index uint64, err error)) {
	ok := e.worker(segment).inbox.put(func(in *inbox) {
		in.Reads = append(in.Reads, shard.Read{Segment: segment, Done: done})
	})
	if !ok {
		done(0, ErrStopped)
	}
}

// WhenApplied calls done once this node applied a segment's entry.
func (e *Engine) WhenApplied(segment anchormesh.SegmentID, index uint64, done func(error)) {
	if g := e.group(segment); g != nil {
		g.whenApplied(index, done)
		return
	}
	done(ErrNoGroup)
}

// ChangeConf proposes a change of the anchor group. context goes into the
// entry, for the state machine.
func (e *Engine) ChangeConf(segment anchormesh.SegmentID, gen anchormesh.Generation, cc *raftpb.ConfChangeV2, context []byte, done func(Result)) {
	if e.group(segment) == nil {
		done(Result{Err: ErrNoGroup})
		return
	}
	e.worker(segment).with(segment, func(r *replica.Replica) { r.ProposeConfChange(gen, cc, context, done) })
}

// TransferLeader asks this node's leader replica to hand over.
func (e *Engine) TransferLeader(segment anchormesh.SegmentID, to anchormesh.ReplicaID) {
	e.worker(segment).with(segment, func(r *replica.Replica) { r.TransferLeader(to) })
}

// NodeLost tells all groups that a node is gone: see shard.NodeLost.
func (e *Engine) NodeLost(node anchormesh.NodeID) {
	for _, w := range e.workers {
		w.inbox.put(func(in *inbox) {
			in.Commands = append(in.Commands, func(s *shard.Shard) { s.NodeLost(node) })
		})
	}
}

// LeaderGone tells a group that a replica leads no more: see shard.LeaderGone.
func (e *Engine) LeaderGone(segment anchormesh.SegmentID, leader anchormesh.ReplicaID) {
	e.worker(segment).inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) { s.LeaderGone(segment, leader) })
	})
}

// Receive takes a frame from another node. The frame is kept.
func (e *Engine) Receive(from anchormesh.NodeID, frame []byte) error {
	lists := make([][]shard.Inbound, len(e.workers))
	err := message.Decode(frame, func(segment anchormesh.SegmentID, m *raftpb.Message) {
		i := e.index(segment)
		lists[i] = append(lists[i], shard.Inbound{From: from, Segment: segment, Message: m})
	})
	for i, list := range lists {
		if len(list) > 0 {
			e.workers[i].receive(list)
		}
	}
	return err
}

// Seek has a group that sleeps and knows no leader look for one at once. Who needs a leader
// and finds none says so, for a group may wait for its turn to wake: see package shard.
func (e *Engine) Seek(segment anchormesh.SegmentID) {
	g := e.group(segment)
	if g == nil || !g.asleep.Load() || g.status.Load().Leader != "" {
		return
	}
	e.worker(segment).inbox.put(func(in *inbox) {
		in.Commands = append(in.Commands, func(s *shard.Shard) { s.Seek(segment) })
	})
}

// Status returns what is known of a group, if it runs here.
func (e *Engine) Status(segment anchormesh.SegmentID) (Status, bool) {
	g := e.group(segment)
	if g == nil {
		return Status{}, false
	}
	s := *g.status.Load()
	s.Applied, s.Asleep = g.applied.Load(), g.asleep.Load()
	return s, true
}

// Resting reports whether every group sleeps: who looks for those that do not need not
// look at each.
func (e *Engine) Resting() bool {
	for _, w := range e.workers {
		if w.asleep.Load() < w.groups.Load() {
			return false
		}
	}
	return true
}

// Load returns how many groups there are.
func (e *Engine) Load() Load {
	e.mu.RLock()
	l := Load{Groups: len(e.groups)}
	for _, g := range e.groups {
		if g.status.Load().Leads() {
			l.Led++
		}
	}
	e.mu.RUnlock()
	for _, w := range e.workers {
		l.Asleep += int(w.asleep.Load())
	}
	return l
}

// Progress returns a leader's view of its group now: commit index and replicas.
// It is false where this node does not lead. A group that sleeps goes on sleeping:
// what it knows of the others is as old as its sleep.
func (e *Engine) Progress(segment anchormesh.SegmentID) (commit uint64, peers map[anchormesh.ReplicaID]replica.PeerProgress, ok bool) {
	p, ok := e.ProgressAll([]anchormesh.SegmentID{segment})[segment]
	return p.Commit, p.Peers, ok
}

// Progress is a leader's view of its group: see Engine.Progress.
type Progress struct {
	Commit uint64
	Peers  map[anchormesh.ReplicaID]replica.PeerProgress
}

// ProgressAll is Progress of many groups; those not led here are missing. It waits once for
// each worker, not once for each group.
func (e *Engine) ProgressAll(segments []anchormesh.SegmentID) map[anchormesh.SegmentID]Progress {
	out := make(map[anchormesh.SegmentID]Progress)
	shares := make(map[*worker][]anchormesh.SegmentID)
	for _, id := range segments {
		if g := e.group(id); g != nil && g.status.Load().Leads() {
			shares[e.worker(id)] = append(shares[e.worker(id)], id)
		}
	}
	for w, share := range shares {
		_ = w.do(func(s *shard.Shard) {
			for _, id := range share {
				s.Look(id, func(r *replica.Replica) {
					if p, leads := progress(r); leads {
						out[id] = p
					}
				})
			}
		})
	}
	return out
}

// progress is false for a replica that does not lead.
func progress(r *replica.Replica) (Progress, bool) {
	if !r.Leads() {
		return Progress{}, false
	}
	out := Progress{Commit: r.Status().Commit, Peers: make(map[anchormesh.ReplicaID]replica.PeerProgress)}
	r.Progress(func(id anchormesh.ReplicaID, p replica.PeerProgress) { out.Peers[id] = p })
	return out, true
}

// failed ends the process: nothing unsynced may ever be acknowledged.
func (e *Engine) failed(err error) {
	if f := e.cfg.Listener.Failed; f != nil {
		f(err)
	}
	panic("consensus: the log cannot be written: " + err.Error())
}

func (e *Engine) publish(s shard.Status) {
	g := e.group(s.Segment)
	if g == nil {
		return
	}
	status := Status{Leader: s.Leader, Status: s.Status, Replica: g.replica}
	g.status.Store(&status)
	if !status.Leads() {
		g.gate.lose()
	}
	if f := e.cfg.Listener.StatusChanged; f != nil {
		f(s.Segment, status)
	}
}

// sendSnapshot streams the state in the background. The log behind it is kept
// until the replica has had an election timeout to connect to it.
func (e *Engine) sendSnapshot(s shard.Snapshot) {
	g := e.group(s.Segment)
	if g == nil {
		return
	}
	g.pin(s.To, s.Index)
	w := e.worker(s.Segment)
	e.snapshots.Send(s.Segment, s.Node, s.To, func(ok bool) {
		w.with(s.Segment, func(r *replica.Replica) { r.SnapshotDone(s.To, ok) })
		time.AfterFunc(time.Duration(e.cfg.ElectionTicks)*e.cfg.Tick, func() { g.unpin(s.To) })
	})
}
