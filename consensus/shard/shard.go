package shard

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// Shard owns replicas. It is not safe for concurrent use.
type Shard struct {
	groups map[anchormesh.SegmentID]*group
	order  []*group // every group, in the order of arrival: ticks are deterministic
	dirty  []*group // groups that may have something to do
	absent map[anchormesh.SegmentID]anchormesh.ReplicaID
	runs   uint64 // replicas taken in so far
	out    *Effects
	frames frames
	msgs   []*raftpb.Message // of one group and step; kept for reuse
}

type group struct {
	run     uint64 // tells it from earlier and later stays of the same replica
	segment anchormesh.SegmentID
	replica *replica.Replica
	peers   map[anchormesh.ReplicaID]anchormesh.NodeID
	dirty   bool
	silence int // ticks since the last message of the leader
	wake    int // ticks until a campaign that a lost leader called for; 0 is none
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
		absent: make(map[anchormesh.SegmentID]anchormesh.ReplicaID),
	}
}

// Add takes a replica in. peers says on which nodes the group's replicas are.
func (s *Shard) Add(segment anchormesh.SegmentID, r *replica.Replica, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	if s.groups[segment] != nil {
		panic("shard: segment " + segment.String() + " is here already")
	}
	delete(s.absent, segment)
	s.runs++
	g := &group{run: s.runs, segment: segment, replica: r, peers: peers}
	s.groups[segment] = g
	s.order = append(s.order, g)
	s.touch(g)
}

// AddAbsent lets the shard answer for a replica that has no state yet.
func (s *Shard) AddAbsent(segment anchormesh.SegmentID, id anchormesh.ReplicaID) {
	s.absent[segment] = id
}

// Remove closes a replica and forgets it, absent ones included.
func (s *Shard) Remove(segment anchormesh.SegmentID) {
	delete(s.absent, segment)
	g := s.groups[segment]
	if g == nil {
		return
	}
	g.replica.Close()
	delete(s.groups, segment)
	for i, o := range s.order {
		if o == g {
			s.order = append(s.order[:i], s.order[i+1:]...)
			break
		}
	}
}

// SetPeers replaces what the shard knows about where replicas are.
func (s *Shard) SetPeers(segment anchormesh.SegmentID, peers map[anchormesh.ReplicaID]anchormesh.NodeID) {
	if g := s.groups[segment]; g != nil {
		g.peers = peers
	}
}

// With calls f with a segment's replica, if it is here, and steps it afterwards.
func (s *Shard) With(segment anchormesh.SegmentID, f func(*replica.Replica)) bool {
	g := s.groups[segment]
	if g == nil {
		return false
	}
	f(g.replica)
	s.touch(g)
	return true
}

// NodeLost tells every group led from a node that the node is gone. Followers
// forget the leader, which lifts the guard against elections that CheckQuorum
// puts up, and campaign a few ticks apart, in the order of their replica IDs.
func (s *Shard) NodeLost(node anchormesh.NodeID) {
	for _, g := range s.order {
		leader := g.replica.Status().Leader
		if leader == 0 || g.peers[leader] != node || leader == g.replica.ID() {
			continue
		}
		g.leaderLost(leader)
		s.touch(g)
	}
}

// leaderLost prepares a follower's campaign for the place of a leader that is
// gone.
func (g *group) leaderLost(leader anchormesh.ReplicaID) {
	g.replica.ForgetLeader()
	g.wake, g.silence = 1+2*g.rank(leader), 0
}

// listen counts how long the leader has been silent. After an election timeout
// the followers campaign in order, as when its node is known to be gone; Raft's
// own random delay, up to another timeout, is only what remains if that fails.
func (g *group) listen() {
	leader := g.replica.Leader()
	if leader == 0 || leader == g.replica.ID() {
		g.silence = 0
		return
	}
	if g.silence++; g.silence >= g.replica.ElectionTicks() {
		g.leaderLost(leader)
	}
}

// rank is the replica's place among the group's replicas without the lost one.
func (g *group) rank(lost anchormesh.ReplicaID) int {
	rank := 0
	for id := range g.peers {
		if id != lost && id < g.replica.ID() {
			rank++
		}
	}
	return rank
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
			g.replica.Propose(p.Proposal)
			s.touch(g)
		} else {
			p.Done(replica.Result{Err: replica.ErrNotLeader})
		}
	}
	for _, r := range in.Reads {
		if g := s.groups[r.Segment]; g != nil {
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
	s.touch(g)
	return g
}

func (s *Shard) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		s.dirty = append(s.dirty, g)
	}
}

func (s *Shard) tick() {
	for _, g := range s.order {
		g.replica.Tick()
		g.listen()
		if g.wake > 0 {
			if g.wake--; g.wake == 0 && g.replica.Status().Leader == 0 {
				g.replica.Campaign()
			}
		}
		s.touch(g)
	}
}

func (s *Shard) receive(in Inbound) {
	g := s.groups[in.Segment]
	if g == nil {
		s.answerAbsent(in)
		return
	}
	if in.Message.GetTo() != uint64(g.replica.ID()) {
		s.stranger(in)
		return
	}
	// A replica speaks from its own node only. One that is not known here yet may
	// have been added by an entry that is still on its way.
	if node, known := g.peers[anchormesh.ReplicaID(in.Message.GetFrom())]; known && node != in.From {
		return
	}
	if in.Message.GetFrom() == uint64(g.replica.Leader()) {
		g.silence = 0
	}
	g.replica.Step(in.Message)
	s.touch(g)
}

func (s *Shard) stranger(in Inbound) {
	for _, known := range s.out.Strangers {
		if known.Segment == in.Segment && known.From == in.From {
			return
		}
	}
	s.out.Strangers = append(s.out.Strangers, Stranger{in.Segment, in.From})
}

// answerAbsent makes a leader send a snapshot to a replica without state: an
// append is rejected with the hint that the log is empty, a heartbeat is
// answered so that the leader counts the replica as active.
func (s *Shard) answerAbsent(in Inbound) {
	m := in.Message
	id, ok := s.absent[in.Segment]
	if !ok || m.GetTo() != uint64(id) {
		s.stranger(in)
		return
	}
	answer := &raftpb.Message{To: m.From, From: m.To, Term: m.Term}
	switch m.GetType() {
	case raftpb.MsgApp:
		answer.Type = raftpb.MsgAppResp.Enum()
		answer.Index, answer.Reject, answer.RejectHint = m.Index, new(true), new(uint64(0))
	case raftpb.MsgHeartbeat:
		answer.Type = raftpb.MsgHeartbeatResp.Enum()
	default:
		return
	}
	s.frames.addTo(in.From, in.Segment, answer)
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
		s.out.Snapshots = append(s.out.Snapshots, Snapshot{Segment: g.segment, Node: g.peers[r.To], SnapshotRequest: r})
	}
	if rd.Status != nil {
		s.out.Statuses = append(s.out.Statuses, Status{
			Segment: g.segment, Leader: g.peers[rd.Status.Leader], Status: *rd.Status,
		})
	}
}

// frames gathers messages by destination. There are few destinations, so a
// slice is searched.
type frames struct {
	list  []Frame
	spare [][]byte // buffers of frames that were sent
}

// frameKept bounds a buffer that is kept for the next frame, and spareKept their
// number.
const (
	frameKept = 256 << 10
	spareKept = 16
)

// reset forgets the frames and keeps their memory.
func (f *frames) reset() {
	for _, sent := range f.list {
		if cap(sent.Data) <= frameKept && len(f.spare) < spareKept {
			f.spare = append(f.spare, sent.Data[:0])
		}
	}
	clear(f.list)
	f.list = f.list[:0]
}

// buffer returns an empty buffer of at least n bytes.
func (f *frames) buffer(n int) []byte {
	last := len(f.spare) - 1
	if last < 0 {
		return make([]byte, 0, n)
	}
	b := f.spare[last]
	f.spare = f.spare[:last]
	return slices.Grow(b, n)
}

func (f *frames) add(g *group, m *raftpb.Message) {
	if node, ok := g.peers[anchormesh.ReplicaID(m.GetTo())]; ok {
		f.addTo(node, g.segment, m)
	} // else not known yet: Raft repeats
}

func (f *frames) addTo(node anchormesh.NodeID, segment anchormesh.SegmentID, m *raftpb.Message) {
	for i := range f.list {
		if f.list[i].To == node {
			f.list[i].Data = message.Append(f.list[i].Data, segment, m)
			return
		}
	}
	data := message.Append(f.buffer(message.Size(m)), segment, m)
	f.list = append(f.list, Frame{To: node, Data: data})
}
