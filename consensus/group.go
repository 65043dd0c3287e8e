package consensus

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// group is what the shell knows of one running replica.
type group struct {
	segment anchormesh.SegmentID
	replica anchormesh.ReplicaID
	machine StateMachine
	log     *wal.GroupLog
	status  atomic.Pointer[Status]
	applied atomic.Uint64
	asleep  atomic.Bool
	tail    tail
	gate    gate
	lane    atomic.Pointer[lane] // nil: none
	queued  *lane                // the writer's: where its last append went

	mu      sync.Mutex
	stopped bool
	waiting []appliedWaiter
	pins    map[anchormesh.ReplicaID]uint64 // log kept for snapshots under way
}

// appliedWaiter waits until index is applied.
type appliedWaiter struct {
	index uint64
	done  func(error)
}

// whenApplied calls done once index is applied, at once if it is.
func (g *group) whenApplied(index uint64, done func(error)) {
	if g.applied.Load() >= index {
		done(nil)
		return
	}
	g.mu.Lock()
	if g.stopped {
		g.mu.Unlock()
		done(ErrNoGroup)
		return
	}
	if g.applied.Load() >= index {
		g.mu.Unlock()
		done(nil)
		return
	}
	g.waiting = append(g.waiting, appliedWaiter{index, done})
	g.mu.Unlock()
}

// advance publishes an applied index and wakes who waited for it.
func (g *group) advance(index uint64) {
	g.mu.Lock()
	g.applied.Store(index)
	var ready []appliedWaiter
	kept := g.waiting[:0]
	for _, w := range g.waiting {
		if w.index <= index {
			ready = append(ready, w)
		} else {
			kept = append(kept, w)
		}
	}
	clear(g.waiting[len(kept):])
	g.waiting = kept
	g.mu.Unlock()
	for _, w := range ready {
		w.done(nil)
	}
}

// stop ends all waits.
func (g *group) stop() {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting, g.stopped = nil, true
	g.mu.Unlock()
	for _, w := range waiting {
		w.done(ErrNoGroup)
	}
	g.gate.lose()
}

func (g *group) pin(to anchormesh.ReplicaID, index uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pins == nil {
		g.pins = make(map[anchormesh.ReplicaID]uint64)
	}
	g.pins[to] = index
}

func (g *group) unpin(to anchormesh.ReplicaID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pins, to)
}

// pinned returns the lowest index that a snapshot under way still needs.
func (g *group) pinned() (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var low uint64
	for _, index := range g.pins {
		if low == 0 || index < low {
			low = index
		}
	}
	return low, len(g.pins) > 0
}

// storage is raft's view of the group's log and durable state.
type storage struct {
	*wal.GroupLog
	start   Point
	machine StateMachine
}

// InitialState returns the hard state, with a commit index that is not behind
// what is applied (a bare commit index is not synced, the applied index is) and
// not beyond the log: an installation restarts the log below what this replica
// knew to be committed when it was cut short.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	last, err := s.LastIndex()
	if err != nil {
		return nil, nil, err
	}
	hs := s.InitialHardState()
	commit := min(max(hs.GetCommit(), s.start.Index), max(last, s.start.Index))
	out := &raftpb.HardState{Term: new(max(hs.GetTerm(), s.start.Term)), Vote: new(hs.GetVote()), Commit: new(commit)}
	if hs.GetTerm() < s.start.Term {
		out.Vote = new(uint64(0))
	}
	return out, s.start.Conf, nil
}

// Snapshot describes the durable state; its bytes travel on their own stream.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	index, conf := s.machine.Durable()
	term, err := s.Term(index)
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(index), Term: new(term), ConfState: conf,
	}}, nil
}
