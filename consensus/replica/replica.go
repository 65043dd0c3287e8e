package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// Replica is one node's part in one anchor group. It is not safe for concurrent
// use.
type Replica struct {
	cfg  Config
	node *raft.RawNode

	proposals proposals
	reads     reads
	out       outbox
	last      Status
	contacts  contacts
	conf      uint64 // the last change of the configuration in the log that asLeft knows of
}

// outbox remembers between two Readys what RawNode does not.
type outbox struct {
	touched       bool // something was stepped since the last Ready
	statusChanged bool // and not reported yet
	term, vote    uint64
	answered      answered
	// committedTerm is the term of the newest entry handed out for apply. A
	// leader answers reads only when it equals its own term: what an earlier
	// leader acknowledged is then below the commit index. raft itself skips
	// this check for a group of one.
	committedTerm uint64
	// offers are snapshots that this package asks for; offered are the replicas whose
	// one has not ended.
	offers  []SnapshotRequest
	offered map[anchormesh.ReplicaID]bool // nil: none yet
}

// New returns a replica that stands where its storage and state machine stand.
func New(cfg Config) (*Replica, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID:                        uint64(cfg.ID),
		ElectionTick:              cfg.ElectionTicks,
		HeartbeatTick:             cfg.HeartbeatTicks,
		Storage:                   cfg.Storage,
		Applied:                   cfg.Applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             cfg.MaxMessageBytes,
		MaxCommittedSizePerReady:  16 * cfg.MaxMessageBytes,
		MaxUncommittedEntriesSize: uint64(4 * cfg.MaxBatchBytes * cfg.MaxInflightBatches),
		MaxInflightMsgs:           256,
		MaxInflightBytes:          64 * cfg.MaxMessageBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    silent{},
	})
	if err != nil {
		return nil, fmt.Errorf("replica %d: %w", cfg.ID, err)
	}
	r := &Replica{cfg: cfg, node: node}
	r.last = r.Status()
	if err := r.recallConf(); err != nil {
		return nil, fmt.Errorf("replica %d: %w", cfg.ID, err)
	}
	return r, nil
}

// ID returns the replica's own ID.
func (r *Replica) ID() anchormesh.ReplicaID { return r.cfg.ID }

// ElectionTicks is how long a follower waits for a word of its leader.
func (r *Replica) ElectionTicks() int { return r.cfg.ElectionTicks }

// Status returns what the replica knows now.
func (r *Replica) Status() Status {
	s := r.node.BasicStatus()
	return Status{
		Leader: anchormesh.ReplicaID(s.Lead),
		Role:   s.RaftState,
		Term:   s.GetTerm(),
		Commit: s.GetCommit(),
	}
}

// ToldApplied is the index up to which raft was told that entries are applied,
// which may lag behind what is. It still reads the log from there.
func (r *Replica) ToldApplied() uint64 { return r.node.BasicStatus().Applied }

// Leader returns the leader as of the last Ready, zero if none was known. It
// costs nothing, unlike Status.
func (r *Replica) Leader() anchormesh.ReplicaID { return r.last.Leader }

// Leads reports whether this replica leads its group.
func (r *Replica) Leads() bool { return r.last.Role == raft.StateLeader }

// Progress visits the leader's view of every replica, in order of their IDs.
func (r *Replica) Progress(visit func(anchormesh.ReplicaID, PeerProgress)) {
	r.visitProgress(visit)
}

// Tick moves the group's logical clock by one.
func (r *Replica) Tick() {
	r.node.Tick()
	r.contacts.clock++
	r.reads.tick(r.cfg.ElectionTicks)
	r.out.touched = true
}

// Step takes a message of another replica. Messages that make no sense here are
// dropped: Raft's senders repeat what matters.
func (r *Replica) Step(m *raftpb.Message) {
	r.out.touched = true
	if r.forgot(m) {
		r.offer(anchormesh.ReplicaID(m.GetFrom()))
		return
	}
	if r.early(m) {
		return
	}
	r.note(m)
	if m.GetType() == raftpb.MsgApp {
		r.noteConf(m.GetEntries())
	}
	_ = r.node.Step(r.asLeft(m)) // every error says "dropped"; there is nobody to tell
}

// Appended is told that an Append's writes are as durable as it asked for.
func (r *Replica) Appended(local []*raftpb.Message) {
	for _, m := range local {
		_ = r.node.Step(m)
	}
	r.out.touched = true
}

// Applied is told that an Apply was carried out.
func (r *Replica) Applied(response *raftpb.Message) {
	_ = r.node.Step(response)
	r.out.touched = true
}

// ForgetLeader makes a follower leaderless at once, for use when the leader's
// node is known to be gone: it lifts the vote guard that CheckQuorum puts up.
func (r *Replica) ForgetLeader() {
	_ = r.node.ForgetLeader()
	r.out.touched = true
}

// Campaign starts a (pre-)election.
func (r *Replica) Campaign() {
	_ = r.node.Campaign()
	r.out.touched = true
}

// TransferLeader asks the leader to hand over to another voter.
func (r *Replica) TransferLeader(to anchormesh.ReplicaID) {
	r.node.TransferLeader(uint64(to))
	r.out.touched = true
}

// Unreachable tells the leader that messages to a replica are being lost.
func (r *Replica) Unreachable(id anchormesh.ReplicaID) {
	r.node.ReportUnreachable(uint64(id))
	r.out.touched = true
}

// SnapshotDone tells the leader how a SnapshotRequest ended.
func (r *Replica) SnapshotDone(to anchormesh.ReplicaID, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	r.node.ReportSnapshot(uint64(to), status)
	delete(r.out.offered, to)
	r.out.touched = true
}

// Close ends every wait with ErrUnknown (proposals on entries) or ErrDropped
// (everything that never left this replica).
func (r *Replica) Close() {
	r.proposals.failQueued(ErrDropped)
	r.proposals.failInflight(ErrUnknown)
	r.reads.failAll(ErrDropped)
}

// silent discards raft's own log: what matters is visible in Status, and it
// formats its arguments on hot paths.
type silent struct{}

func (silent) Debug(...any)            {}
func (silent) Debugf(string, ...any)   {}
func (silent) Error(...any)            {}
func (silent) Errorf(string, ...any)   {}
func (silent) Info(...any)             {}
func (silent) Infof(string, ...any)    {}
func (silent) Warning(...any)          {}
func (silent) Warningf(string, ...any) {}

// Fatal and Panic are raft's words for a broken invariant.
func (silent) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (silent) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (silent) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (silent) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
