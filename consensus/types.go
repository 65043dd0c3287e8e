package consensus

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

var (
	// ErrNoGroup says that the segment has no running replica on this node.
	ErrNoGroup = errors.New("this node holds no running replica of the segment")
	// ErrGroupExists says that the segment is on this node already.
	ErrGroupExists = errors.New("this node holds a replica of the segment already")
	// ErrStopped says that the engine is stopping.
	ErrStopped = errors.New("the consensus engine is stopping")
)

// Errors of proposals, see package replica.
var (
	ErrNotLeader         = replica.ErrNotLeader
	ErrDropped           = replica.ErrDropped
	ErrOverloaded        = replica.ErrOverloaded
	ErrUnknown           = replica.ErrUnknown
	ErrConfChangePending = replica.ErrConfChangePending
	ErrTooFewAnchors     = replica.ErrTooFewAnchors
)

// Result of a proposal.
type Result = replica.Result

// Proposal is one request on its way into a segment's log.
type Proposal = replica.Proposal

// Acks is how many voters must have an entry on disk before its proposer is told.
type Acks = replica.Acks

// Entry is one committed log entry.
type Entry = replica.Entry

// ConfChange is a change of the anchor group, in an Entry.
type ConfChange = replica.ConfChange

// Transport carries frames to other nodes. Send must not block and does not keep
// the frame; frames may be lost, and those to one node arrive in order or not at
// all.
type Transport interface {
	Send(to anchormesh.NodeID, frame []byte) bool
}

// Snapshots streams a segment's state to a replica on another node, in the
// background, and calls done.
type Snapshots interface {
	Send(segment anchormesh.SegmentID, node anchormesh.NodeID, to anchormesh.ReplicaID, done func(ok bool))
}

// StateMachine is one segment's applied state. Apply is called by one goroutine
// at a time, in log order; the others from any.
type StateMachine interface {
	// Apply applies one entry in memory. When want is set, it returns one
	// outcome per payload, or one for a change of the configuration.
	Apply(e *Entry, want bool) []Outcome
	// Durable returns where a restart would begin: the applied index of the
	// last synced commit, and the configuration in force there.
	Durable() (index uint64, conf *raftpb.ConfState)
}

// Outcome is what applying one request gave.
type Outcome struct {
	Response []byte
	Err      error
	Parts    []Part // of a request that holds several
}

// Part is what one of several requests in one gave.
type Part = replica.Part

// Point is a place in a group's log with the configuration in force.
type Point struct {
	Index, Term uint64
	Conf        *raftpb.ConfState
}

// GroupSpec describes a group to start.
type GroupSpec struct {
	Segment anchormesh.SegmentID
	Replica anchormesh.ReplicaID
	Peers   map[anchormesh.ReplicaID]anchormesh.NodeID
	Start   Point // where the state machine stands
	Machine StateMachine
	// Light: entries may be acknowledged before they are synced. See Engine.SetLight.
	Light bool
	// Campaign makes this replica stand for election at once, and again every few
	// ticks while no leader is known: for the child of a split, on the node that
	// leads the parent. It is harmless where there is a leader.
	Campaign bool
}

// Status is what this node knows of a group.
type Status struct {
	Leader anchormesh.NodeID // empty: unknown
	replica.Status
	Replica anchormesh.ReplicaID
	Applied uint64
	// Asleep: nothing has happened for a while, and the replica's clock stands. Leader
	// and role are what they were then.
	Asleep bool
}

// Load is how many groups an engine runs, how many of them sleep, and how many are led
// here.
type Load struct{ Groups, Asleep, Led int }

// Leads reports whether this node leads the group.
func (s *Status) Leads() bool { return s.Status.Leader != 0 && s.Status.Leader == s.Replica }

// Listener hears of what happens; fields may be nil. Funcs must not block.
type Listener struct {
	// StatusChanged: leader, role or term of a group changed.
	StatusChanged func(anchormesh.SegmentID, Status)
	// Stranger: a node sent a message for a replica that is not here.
	Stranger func(segment anchormesh.SegmentID, from anchormesh.NodeID)
	// Synced: one sync of the log, with how many groups waited for it.
	Synced func(groups int, took time.Duration)
	// Batch: one entry was applied, with how many requests it carried.
	Batch func(requests int)
	// Gated: a proposer waited for more acknowledgements than Raft's after its entry was
	// applied; ok is false if they did not come in time, or this node leads no more.
	Gated func(took time.Duration, ok bool)
	// Failed: the log cannot be written. The process must end before it returns,
	// so that nothing unsynced is acknowledged; if it returns, the engine panics.
	Failed func(error)
}

// Config of the engine.
type Config struct {
	Self anchormesh.NodeID
	// Workers is the number of shards; groups are dealt out by segment ID.
	Workers int
	// Tick is the unit of the heartbeat and election timers.
	Tick                          time.Duration
	HeartbeatTicks, ElectionTicks int
	// SleepTicks is how long nothing must happen to a group until its leader asks it
	// to sleep; 0 is never. See package shard. It relies on NodeLost.
	SleepTicks int
	// KeepEntries and KeepBytes bound the log kept behind the durable state for
	// anchors that lag; those further behind get a snapshot. A group that sleeps keeps
	// none if no anchor lags.
	KeepEntries, KeepBytes uint64
	// MaxInboundFrames bounds the messages waiting for a worker, beside eight for each
	// of its groups; what comes on top is dropped.
	MaxInboundFrames int
	// AckTimeout is how long an applied entry's proposer waits for the acknowledgements that
	// are asked for beyond Raft's majority, before it is told that the outcome is unknown.
	AckTimeout time.Duration
	Replica    replica.Config // limits; identity and ticks are filled in
	Listener   Listener
}

// DefaultConfig returns etcd's timers and measured limits.
func DefaultConfig(self anchormesh.NodeID) Config {
	return Config{
		Self:             self,
		Workers:          2,
		Tick:             100 * time.Millisecond,
		HeartbeatTicks:   1,
		ElectionTicks:    10,
		SleepTicks:       20,
		KeepEntries:      10_000,
		KeepBytes:        64 << 20,
		MaxInboundFrames: 4096,
		AckTimeout:       5 * time.Second,
		Replica:          replica.DefaultConfig(),
	}
}

// Validate reports the first field that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.Self == "":
		return errors.New("consensus: no node ID")
	case c.Workers <= 0:
		return errors.New("consensus: needs at least one worker")
	case c.Tick <= 0:
		return errors.New("consensus: tick must be above zero")
	case c.ElectionTicks <= c.HeartbeatTicks || c.HeartbeatTicks <= 0:
		return fmt.Errorf("consensus: election ticks (%d) must be above heartbeat ticks (%d)", c.ElectionTicks, c.HeartbeatTicks)
	case c.SleepTicks < 0:
		return errors.New("consensus: sleep ticks must not be below zero")
	case c.AckTimeout <= 0:
		return errors.New("consensus: acknowledgement timeout must be above zero")
	case c.MaxInboundFrames <= 0:
		return errors.New("consensus: inbound limit must be above zero")
	}
	return nil
}

// Log is the node's write-ahead log, see package wal.
type Log interface {
	Write(batch []wal.Update) error
	Sync() error
	Truncate(group anchormesh.SegmentID, upTo wal.Mark)
	Group(group anchormesh.SegmentID) *wal.GroupLog
}
