package node

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// This file is package consensus's shell (engine, worker, writer, applier) with its
// goroutines turned into events: shards, replicas and the log are the real ones,
// only when each runs is the simulation's choice.

// Group is what the shell knows of one running replica.
type Group struct {
	Segment anchormesh.SegmentID
	replica anchormesh.ReplicaID
	Machine *machine.Machine
	log     *wal.GroupLog
	Status  shard.Status
	Applied uint64
	told    uint64 // what raft knows to be applied; it may read the log from there
	waiting []appliedWaiter
	pins    map[anchormesh.ReplicaID]uint64
	Asleep  bool
}

type appliedWaiter struct {
	index uint64
	done  func(error)
}

func (g *Group) Leads() bool {
	return g.Status.Status.Leader != 0 && g.Status.Status.Leader == g.replica
}

func (g *Group) WhenApplied(index uint64, done func(error)) {
	if g.Applied >= index {
		done(nil)
		return
	}
	g.waiting = append(g.waiting, appliedWaiter{index, done})
}

func (g *Group) advance(index uint64) {
	g.Applied = index
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
func (p *Process) startGroup(segment anchormesh.SegmentID, id anchormesh.ReplicaID, m *machine.Machine, first bool) error {
	start := m.Start()
	g := &Group{Segment: segment, replica: id, Machine: m, log: p.log.Group(segment), Applied: start.Index, told: start.Index,
		pins: make(map[anchormesh.ReplicaID]uint64)}
	cfg := replica.DefaultConfig()
	cfg.ID, cfg.Applied, cfg.Boot = id, start.Index, p.Rng.Uint64()
	cfg.ElectionTicks, cfg.HeartbeatTicks = p.Mesh.Cfg.Mesh.ElectionTicks, 1
	cfg.MaxBatchRequests, cfg.MaxInflightBatches = p.Mesh.Cfg.Mesh.BatchRequests, p.Mesh.Cfg.Mesh.InflightBatches
	cfg.MaxMessageBytes, cfg.MaxBatchBytes = 4<<10, 8<<10
	cfg.Keeps = machine.MustLast
	cfg.Storage = &storage{GroupLog: g.log, start: start, machine: m}
	r, err := replica.New(cfg)
	if err != nil {
		return err
	}
	g.Status.Status = r.Status()
	p.Groups[segment] = g
	p.Worker(segment).shard.Add(segment, r, maps.Clone(m.State().Peers()))
	v := start.Conf.GetVoters()
	if first || len(v) == 1 && v[0] == uint64(id) && len(start.Conf.GetVotersOutgoing()) == 0 {
		p.Worker(segment).shard.Urge(segment)
	}
	p.Worker(segment).Kick()
	return nil
}

// stopGroup closes a replica.
func (p *Process) stopGroup(segment anchormesh.SegmentID) {
	p.Worker(segment).shard.Remove(segment)
	g := p.Groups[segment]
	delete(p.Groups, segment)
	if g == nil {
		return
	}
	for _, w := range g.waiting {
		w.done(consensus.ErrNoGroup)
	}
	g.waiting = nil
}

// tick moves the groups' clocks and now and then lets go of log.
func (p *Process) tick() {
	for _, w := range p.workers {
		w.Inbox.Ticks++
		w.Kick()
	}
	if p.Rng.IntN(p.Mesh.Cfg.Mesh.ElectionTicks) != 0 {
		return
	}
	for _, w := range p.workers {
		w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) {
			s.Awake(func(segment anchormesh.SegmentID, _ *replica.Replica) {
				if g := p.Groups[segment]; g != nil {
					p.truncate(g, p.Mesh.Cfg.Mesh.KeepEntries)
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
		g, keep := w.p.Groups[segment], w.p.Mesh.Cfg.Mesh.KeepEntries
		if g == nil || !g.Asleep {
			delete(w.dozed, segment)
			continue
		}
		if w.dozed[segment] {
			keep = 0
		}
		last, err := g.log.LastIndex()
		if durable, _ := g.Machine.Durable(); err != nil || w.p.truncate(g, keep) == last || keep > 0 && durable >= last {
			delete(w.dozed, segment)
		}
	}
}

// truncate lets go of a group's log but for the last entries, and returns the index
// up to which it went.
func (p *Process) truncate(g *Group, keep uint64) (upTo uint64) {
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
	upTo, _ = g.Machine.Durable()
	upTo = min(upTo, last-keep)
	if p.Mesh.Cfg.Plant != plan.PlantTruncateAhead {
		upTo = min(upTo, g.told)
	}
	for _, pin := range g.pins {
		upTo = min(upTo, pin)
	}
	if upTo < first {
		return first - 1
	}
	if term, err := g.log.Term(upTo); err == nil {
		p.log.Truncate(g.Segment, wal.Mark{Index: upTo, Term: term})
	}
	return upTo
}

// NodeLost tells all groups that a connection to a node ended.
func (p *Process) NodeLost(id anchormesh.NodeID) {
	for _, w := range p.workers {
		w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) { s.NodeLost(id) })
		w.Kick()
	}
}

// LeaderGone tells a group that a replica leads no more.
func (p *Process) LeaderGone(segment anchormesh.SegmentID, leader anchormesh.ReplicaID) {
	w := p.Worker(segment)
	w.Inbox.Commands = append(w.Inbox.Commands, func(s *shard.Shard) { s.LeaderGone(segment, leader) })
	w.Kick()
}

// Submit puts a proposal into a segment's log.
func (p *Process) Submit(segment anchormesh.SegmentID, proposal replica.Proposal) {
	w := p.Worker(segment)
	w.Inbox.Proposals = append(w.Inbox.Proposals, shard.Proposal{Segment: segment, Proposal: proposal})
	w.Kick()
}

// Propose sends a request into a segment's log.
func (p *Process) Propose(segment anchormesh.SegmentID, gen anchormesh.Generation, payload []byte, done func(consensus.Result)) {
	p.Submit(segment, replica.Proposal{Generation: gen, Payload: payload, Done: done})
}

// ReadIndex calls done when a read of the applied state here is linearizable.
func (p *Process) ReadIndex(segment anchormesh.SegmentID, done func(index uint64, err error)) {
	w := p.Worker(segment)
	w.Inbox.Reads = append(w.Inbox.Reads, shard.Read{Segment: segment, Done: done})
	w.Kick()
}
