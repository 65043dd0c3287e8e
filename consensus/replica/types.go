package replica

import (
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

var (
	// ErrNotLeader says that this replica does not lead its group; the request
	// took effect nowhere.
	ErrNotLeader = errors.New("not the leader of this segment")
	// ErrDropped says that a request took effect nowhere and never will.
	ErrDropped = errors.New("request was dropped by a change of leader")
	// ErrOverloaded says that the replica's queue is full; the request took
	// effect nowhere.
	ErrOverloaded = errors.New("too many requests are waiting for this segment")
	// ErrTooFewAnchors says that not as many anchors can be reached as have to acknowledge
	// a request; it took effect nowhere.
	ErrTooFewAnchors = errors.New("too few anchors of this segment can be reached for the acknowledgements that its scope asks for")
	// ErrUnknown says that a request may or may not have taken effect.
	ErrUnknown = errors.New("outcome of the request is unknown")
	// ErrConfChangePending says that another change of the configuration is
	// not applied yet.
	ErrConfChangePending = errors.New("another change of the anchor group is under way")
)

// Result is how a proposal ended.
type Result struct {
	Index, Term uint64
	Response    []byte
	Err         error
	Parts       []Part // of a request that holds several
}

// Part is how one of the requests ended that a proposal held.
type Part struct {
	Response []byte
	Err      error
}

// Waiter is told how its proposal ended, exactly once. It must not block.
type Waiter func(Result)

// ReadWaiter is told the index that must be applied before its read may be
// answered, and the term in which the round was confirmed; or an error.
type ReadWaiter func(index uint64, err error)

// Proposal is one request on its way into the log.
type Proposal struct {
	Generation anchormesh.Generation
	// Term is the only one in which the request may go on an entry; 0 is any.
	Term uint64
	// Alone wants an entry of its own: what comes behind it may not be valid any
	// more once it is applied.
	Alone   bool
	Payload []byte // kept until the proposal is on an entry
	Done    Waiter
	// Held, if not nil, is told that the request is applied and only its answer waits, for
	// more acknowledgements than Raft's; Done comes later. It must not block.
	Held func()
}

// Entry is one committed log entry on its way to the state machine.
type Entry struct {
	Index, Term uint64
	Generation  anchormesh.Generation
	// Refused: the stamped term is not the Raft term; the entry changes nothing
	// but the applied index.
	Refused  bool
	Payloads [][]byte
	// Conf is set for a change of the configuration.
	Conf *ConfChange
	// Waiters is nil when nobody on this node waits; otherwise it has one
	// element per payload (or one for Conf).
	Waiters []Waiter
	// Held are the funcs of those proposals that have one; nil where nobody waits.
	Held []func()
}

// ConfChange is a change of the anchor group in force from its entry on.
type ConfChange struct {
	Change *raftpb.ConfChangeV2
	// Context is what the proposer attached, without the replica's own header.
	Context []byte
	// State is the configuration after the change.
	State *raftpb.ConfState
}

// Append is what must be durable before its responses are delivered.
type Append struct {
	HardState *raftpb.HardState // nil: unchanged
	Entries   []*raftpb.Entry
	// Sync is false when nothing here needs the disk before Responses may go:
	// a bare commit index is not worth an fsync.
	Sync bool
	// Memory says that it is enough for the Responses if the process's death loses
	// nothing of it; the disk may follow. Only a light group's appends are such.
	Memory bool
	// Local responses are stepped into this replica, the others are sent.
	Local, Remote []*raftpb.Message
}

// Apply is a run of committed entries. When they are applied, Applied must be
// called with Response.
type Apply struct {
	Entries  []Entry
	Response *raftpb.Message
}

// SnapshotRequest asks for the state to be streamed to another replica.
type SnapshotRequest struct {
	To    anchormesh.ReplicaID
	Index uint64
}

// Read is a read whose round is confirmed.
type Read struct {
	Index uint64
	Done  ReadWaiter
}

// Ready is everything a replica wants done.
type Ready struct {
	Messages  []*raftpb.Message
	Append    *Append
	Apply     *Apply
	Snapshots []SnapshotRequest
	Reads     []Read
	// Status is set when leader, role, term or configuration changed.
	Status *Status
}

// Status is what a replica knows about its group.
type Status struct {
	Leader anchormesh.ReplicaID // 0: unknown
	Role   raft.StateType
	Term   uint64
	Commit uint64
}

// Config of a replica.
type Config struct {
	ID      anchormesh.ReplicaID
	Storage raft.Storage
	Applied uint64 // index the state machine stands at
	// Boot is a number that no earlier run of this replica used: random, or a
	// counter that survives. It keeps an answer to a read round of an earlier
	// run, late on the wire, from confirming a round of this one.
	Boot uint64
	// ElectionTicks without a word from the leader start an election.
	ElectionTicks, HeartbeatTicks int
	// MaxBatchBytes and MaxBatchRequests bound one entry; what does not fit
	// goes onto the next.
	MaxBatchBytes, MaxBatchRequests int
	// MaxInflightBatches bounds the entries that are proposed and not yet
	// committed. Small is good: requests that wait meanwhile share one entry.
	MaxInflightBatches int
	// MaxQueuedBytes bounds the requests that wait for an entry; beyond it
	// Propose answers ErrOverloaded.
	MaxQueuedBytes int
	// Light: entries may be acknowledged before they are synced. See SetLight.
	Light bool
	// Keeps reports whether a request has to be synced before it is acknowledged even so;
	// nil: none. Changes of the configuration always are.
	Keeps func(payload []byte) bool
	// Acks is what proposers wait for beyond a commit, and Gates says whether that of a
	// request does; nil: all.
	Acks  Acks
	Gates func(payload []byte) bool
	// MaxMessageBytes bounds the entries in one append message.
	MaxMessageBytes uint64
}

// DefaultConfig returns the limits; identity, storage and ticks are the
// caller's.
func DefaultConfig() Config {
	return Config{
		ElectionTicks:      10,
		HeartbeatTicks:     1,
		MaxBatchBytes:      1 << 20,
		MaxBatchRequests:   1024,
		MaxInflightBatches: 1,
		MaxQueuedBytes:     64 << 20,
		MaxMessageBytes:    1 << 20,
	}
}

// Validate reports the first field that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.ID == 0:
		return errors.New("replica: ID is zero")
	case c.Storage == nil:
		return errors.New("replica: no storage")
	case c.HeartbeatTicks <= 0 || c.ElectionTicks <= c.HeartbeatTicks:
		return errors.New("replica: election ticks must be above heartbeat ticks")
	case c.MaxBatchBytes <= 0 || c.MaxBatchRequests <= 0 || c.MaxInflightBatches <= 0:
		return errors.New("replica: batch limits must be above zero")
	case c.MaxQueuedBytes < c.MaxBatchBytes:
		return errors.New("replica: queue must hold at least one batch")
	}
	return nil
}
