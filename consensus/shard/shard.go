package shard

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// Shard owns replicas. It is not safe for concurrent use.
type Shard struct {
	groups map[anchormesh.SegmentID]*group
	order  []*group // every group, in the order of arrival: what is done to all is deterministic
	ticked []*group // those whose clocks go, in the order of waking, and some that have stopped since
	dirty  []*group // groups that may have something to do
	absent map[anchormesh.SegmentID]*absent
	early  []early
	nodes  nodes
	rests  rests
	queue  queue
	now    uint64 // ticks so far
	runs   uint64 // replicas taken in so far
	out    *Effects
	frames frames
	msgs   []*raftpb.Message // of one group and step; kept for reuse
}

type group struct {
	run     uint64 // tells it from earlier and later stays of the same replica
	segment anchormesh.SegmentID
	replica *replica.Replica
	peers   peers
	guests  map[anchormesh.ReplicaID]anchormesh.NodeID // who wrote and is no peer yet
	dirty   bool
	ticked  bool // on the list of those whose clocks go
	gone    bool // removed
	silence int  // ticks since the last message of the leader
	wake    int  // ticks until a campaign that a lost leader called for; 0 is none
	urge    int  // ticks left in which a new group is urged to have a leader
	sleep   sleeper
	acked   uint64 // as the last effects said
}

// Inbox is what arrived for a shard since its last step. Fields are handled in
// the order in which they stand here.
type Inbox struct {
	Commands  []func(*Shard)
	Ticks     int
	Appended  []Appended
	Applied   []Applied
	Messages  []Inbound
	Proposals []Proposal
	Reads     []Read
}

// Reset empties the inbox and keeps its memory.
func (in *Inbox) Reset() {
	clear(in.Commands)
	clear(in.Appended)
	clear(in.Applied)
	clear(in.Messages)
	clear(in.Proposals)
	clear(in.Reads)
	*in = Inbox{
		Commands: in.Commands[:0], Appended: in.Appended[:0], Applied: in.Applied[:0],
		Messages: in.Messages[:0], Proposals: in.Proposals[:0], Reads: in.Reads[:0],
	}
}

// Inbound is a Raft message from another node.
type Inbound struct {
	From    anchormesh.NodeID
	Segment anchormesh.SegmentID
	Message *raftpb.Message
}

// Appended says that an Append was carried out.
type Appended struct {
	Segment anchormesh.SegmentID
	Replica anchormesh.ReplicaID
	Run     uint64
	Local   []*raftpb.Message
}

// Applied says that an Apply was carried out.
type Applied struct {
	Segment  anchormesh.SegmentID
	Replica  anchormesh.ReplicaID
	Run      uint64
	Response *raftpb.Message
}

// Proposal is a request for a segment.
type Proposal struct {
	Segment anchormesh.SegmentID
	replica.Proposal
}

// Read is a linearizable read of a segment.
type Read struct {
	Segment anchormesh.SegmentID
	Done    replica.ReadWaiter
}

// Effects is what a step wants done.
type Effects struct {
	Frames    []Frame
	Appends   []Append
	Applies   []Apply
	Reads     []ReadReady
	Snapshots []Snapshot
	Statuses  []Status
	Sleeps    []Sleep
	Acked     []Acked
	Strangers []Stranger
}

// Frame goes to one node.
type Frame struct {
	To   anchormesh.NodeID
	Data []byte
}

// Append is one group's writes. Frames leave once they are durable; then Done
// goes back into the inbox.
type Append struct {
	Segment anchormesh.SegmentID
	*replica.Append
	Frames []Frame
	Done   Appended
}

// Apply is one group's committed entries; when they are applied, Done goes back
// into the inbox.
type Apply struct {
	Segment anchormesh.SegmentID
	Entries []replica.Entry
	Done    Applied
}

// ReadReady is a read whose round is confirmed.
type ReadReady struct {
	Segment anchormesh.SegmentID
	replica.Read
}

// Snapshot asks for a segment's state to be streamed to a replica.
type Snapshot struct {
	Segment anchormesh.SegmentID
	Node    anchormesh.NodeID
	replica.SnapshotRequest
}

// Stranger is a node that sent a message for a group or replica that is not
// here: it knows something about the group that this node does not.
type Stranger struct {
	Segment anchormesh.SegmentID
	From    anchormesh.NodeID
}

// Status is a change of leader, role or term.
type Status struct {
	Segment anchormesh.SegmentID
	Leader  anchormesh.NodeID // empty: unknown
	replica.Status
}

// New returns an empty shard.
func New() *Shard {
	return &Shard{
		groups: make(map[anchormesh.SegmentID]*group),
		absent: make(map[anchormesh.SegmentID]*absent),
		nodes:  newNodes(),
		queue:  queue{most: awakeMost},
	}
}

// Add takes a replica in. peers says on which nodes the group's replicas are.
func (s *Shard) Add(segment anchormesh.SegmentID, r *replica.Replica, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	if s.groups[segment] != nil {
		panic("shard: segment " + segment.String() + " is here already")
	}
	delete(s.absent, segment)
	s.runs++
	g := &group{run: s.runs, segment: segment, replica: r, peers: peersOf(peers)}
	s.groups[segment] = g
	s.begin(g)
	s.order = append(s.order, g)
	s.touch(g)
	s.receiveEarly(g)
}

// Remove closes a replica and forgets it, absent ones included.
func (s *Shard) Remove(segment anchormesh.SegmentID) {
	delete(s.absent, segment)
	g := s.groups[segment]
	if g == nil {
		return
	}
	s.close(g)
	s.order = slices.DeleteFunc(s.order, func(o *group) bool { return o == g })
}

// RemoveAll closes every replica.
func (s *Shard) RemoveAll() {
	clear(s.absent)
	for _, g := range s.order {
		s.close(g)
	}
	s.order = nil
}

func (s *Shard) close(g *group) {
	g.replica.Close()
	g.gone = true
	if g.sleep.asleep {
		s.rests.asleep--
	}
	delete(s.groups, g.segment)
}

// SetPeers replaces what the shard knows about where replicas are.
func (s *Shard) SetPeers(segment anchormesh.SegmentID, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	if g := s.groups[segment]; g != nil {
		g.peers, g.guests = peersOf(peers), nil
	}
}

// guestsMax bounds how many replicas a group remembers that its state does not name. A
// group that was replaced whole while this replica was away is not larger.
const guestsMax = 16

// welcome remembers where a replica is that this one does not know: it was added by an
// entry that has not come here yet, and may lead by now. Without an answer a leader sends
// neither entries nor a snapshot, and so nothing that tells of it would ever come.
func (g *group) welcome(id anchormesh.ReplicaID, node anchormesh.NodeID) {
	if len(g.guests) >= guestsMax {
		return
	}
	if g.guests == nil {
		g.guests = make(map[anchormesh.ReplicaID]anchormesh.NodeID)
	}
	g.guests[id] = node
}

// node returns where a replica of the group is, as far as is known.
func (g *group) node(id anchormesh.ReplicaID) (anchormesh.NodeID, bool) {
	node, ok := g.peers.node(id)
	if !ok {
		node, ok = g.guests[id]
	}
	return node, ok
}

// With calls f with a segment's replica, if it is here, and steps it afterwards. It
// wakes a group that sleeps.
func (s *Shard) With(segment anchormesh.SegmentID, f func(*replica.Replica)) bool {
	g := s.groups[segment]
	if g == nil {
		return false
	}
	s.stir(g)
	f(g.replica)
	s.touch(g)
	return true
}

// Look calls f with a segment's replica, if it is here. f must change nothing; who
// sleeps goes on sleeping.
func (s *Shard) Look(segment anchormesh.SegmentID, f func(*replica.Replica)) bool {
	g := s.groups[segment]
	if g == nil {
		return false
	}
	f(g.replica)
	return true
}

// Awake calls look with every replica whose clock goes. look must change nothing.
func (s *Shard) Awake(look func(anchormesh.SegmentID, *replica.Replica)) {
	for _, g := range s.ticked {
		if !g.gone && !g.sleep.asleep {
			look(g.segment, g.replica)
		}
	}
}

// Step handles an inbox and returns what is to be done. Effects.Frames are valid
// until the next step, which builds its own in the same memory; the rest is the
// caller's.
func (s *Shard) Step(in *Inbox) *Effects {
	s.out = &Effects{}
	s.frames.reset()
	for _, f := range in.Commands {
		f(s)
	}
	for range in.Ticks {
		s.tick()
	}
	for _, a := range in.Appended {
		if g := s.mine(a.Segment, a.Run); g != nil {
			g.replica.Appended(a.Local)
		}
	}
	for _, a := range in.Applied {
		if g := s.mine(a.Segment, a.Run); g != nil {
			g.replica.Applied(a.Response)
		}
	}
	for _, m := range in.Messages {
		s.receive(m)
	}
	for _, p := range in.Proposals {
		if g := s.groups[p.Segment]; g != nil {
			s.want(g)
			if s.barred(g, &p.Proposal) {
				p.Done(replica.Result{Err: replica.ErrTooFewAnchors})
				continue
			}
			g.replica.Propose(p.Proposal)
			s.touch(g)
		} else {
			p.Done(replica.Result{Err: replica.ErrNotLeader})
		}
	}
	for _, r := range in.Reads {
		if g := s.groups[r.Segment]; g != nil {
			s.want(g)
			g.replica.ReadIndex(r.Done)
			s.touch(g)
		} else {
			r.Done(0, replica.ErrDropped)
		}
	}
	s.drain()
	return s.out
}

// mine finds the group if the replica that asked is still the one that is here. Its
// ID does not tell: after a snapshot it is back under the same one, and what was
// asked for before is not in its log.
func (s *Shard) mine(segment anchormesh.SegmentID, run uint64) *group {
	g := s.groups[segment]
	if g == nil || g.run != run {
		return nil
	}
	if !g.waits() { // what one that has just started replays is no reason to wake
		s.stir(g)
	}
	s.touch(g)
	return g
}

func (s *Shard) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		s.dirty = append(s.dirty, g)
	}
}

// drain runs every dirty replica until it has nothing more to do.
func (s *Shard) drain() {
	for len(s.dirty) > 0 {
		dirty := s.dirty
		s.dirty = nil
		for _, g := range dirty {
			g.dirty = false
			s.run(g)
		}
	}
	s.out.Frames = s.frames.list
}

// run gets everything out of a replica. Its messages are put into frames at the
// end: an entry that commits frees the way for the next, whose append then
// makes the one that only told of the commit superfluous.
func (s *Shard) run(g *group) {
	s.msgs = s.msgs[:0]
	for g.replica.Pending() {
		rd, ok := g.replica.Ready()
		if !ok {
			break
		}
		s.msgs = append(s.msgs, rd.Messages...)
		s.collect(g, rd)
	}
	for _, m := range replica.DropOvertaken(s.msgs) {
		s.frames.add(g, m)
	}
	clear(s.msgs)
	s.showAcked(g)
	s.showSleep(g)
}

func (s *Shard) collect(g *group, rd replica.Ready) {
	if a := rd.Append; a != nil {
		var later frames
		for _, m := range a.Remote {
			later.add(g, m)
		}
		s.out.Appends = append(s.out.Appends, Append{
			Segment: g.segment, Append: a, Frames: later.list,
			Done: Appended{Segment: g.segment, Replica: g.replica.ID(), Run: g.run, Local: a.Local},
		})
	}
	if a := rd.Apply; a != nil {
		s.out.Applies = append(s.out.Applies, Apply{
			Segment: g.segment, Entries: a.Entries,
			Done: Applied{Segment: g.segment, Replica: g.replica.ID(), Run: g.run, Response: a.Response},
		})
	}
	for _, r := range rd.Reads {
		s.out.Reads = append(s.out.Reads, ReadReady{Segment: g.segment, Read: r})
	}
	for _, r := range rd.Snapshots {
		to, _ := g.peers.node(r.To)
		s.out.Snapshots = append(s.out.Snapshots, Snapshot{Segment: g.segment, Node: to, SnapshotRequest: r})
	}
	if rd.Status != nil {
		leader, _ := g.node(rd.Status.Leader)
		s.out.Statuses = append(s.out.Statuses, Status{Segment: g.segment, Leader: leader, Status: *rd.Status})
	}
}
