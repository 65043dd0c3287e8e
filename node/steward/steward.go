package steward

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
)

// Method is the mesh call that carries invitations.
const Method = 4

const (
	interval    = time.Second
	callTimeout = 5 * time.Second
)

// Mesh is what the steward needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	View() mesh.View
	Connected(id anchormesh.NodeID) bool
}

// Config of a steward.
type Config struct {
	Self anchormesh.NodeID
	// ReplaceAfter is how long an anchor's node must be dead to be replaced.
	ReplaceAfter time.Duration
	Recruit      recruit.Config
	Logger       *slog.Logger
	// Load tells how this node stands when it is invited.
	Load func() recruit.Load
}

// Steward tends the anchor groups led here.
type Steward struct {
	cfg    Config
	host   *host.Host
	engine *consensus.Engine
	mesh   Mesh
	kick   chan struct{}
	answer chan answer

	tended map[anchormesh.SegmentID]*tended // owned by Run
}

// tended is what the steward remembers of a segment while this node leads it.
type tended struct {
	recruiter *recruit.Recruiter
	term      uint64
	since     time.Time
	contact   map[anchormesh.ReplicaID]time.Time
	pending   atomic.Bool // a change was proposed and has not ended
	status    string
}

type answer struct {
	segment anchormesh.SegmentID
	node    anchormesh.NodeID
	yes     bool
}

// New returns a steward; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine, m Mesh) *Steward {
	return &Steward{
		cfg: cfg, host: h, engine: e, mesh: m, kick: make(chan struct{}, 1), answer: make(chan answer, 64),
		tended: make(map[anchormesh.SegmentID]*tended),
	}
}

// Kick makes the steward look at once.
func (s *Steward) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run tends until ctx ends.
func (s *Steward) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-s.kick:
		case a := <-s.answer:
			if t := s.tended[a.segment]; t != nil {
				t.recruiter.Answer(time.Now(), a.node, a.yes)
			}
		}
		for _, segment := range s.host.Segments() {
			s.tend(ctx, segment)
		}
	}
}

func (s *Steward) tend(ctx context.Context, segment anchormesh.SegmentID) {
	st, ok := s.engine.Status(segment)
	r, here := s.host.Get(segment)
	if !ok || !here || !st.Leads() {
		delete(s.tended, segment)
		return
	}
	t := s.tended[segment]
	if t == nil || t.term != st.Term {
		t = &tended{
			recruiter: recruit.New(s.cfg.Recruit), term: st.Term, since: time.Now(),
			contact: make(map[anchormesh.ReplicaID]time.Time),
		}
		s.tended[segment] = t
	}
	situation, ok := s.situation(t, r, segment)
	if !ok {
		return
	}
	plan := t.recruiter.Step(time.Now(), situation)
	if plan.Status != t.status {
		s.cfg.Logger.Debug("anchor group", "segment", segment, "status", plan.Status)
		t.status = plan.Status
	}
	for _, e := range plan.Effects {
		s.carryOut(ctx, t, r, e)
	}
}

// situation gathers what the decision looks at.
func (s *Steward) situation(t *tended, r *host.Replica, segment anchormesh.SegmentID) (recruit.Situation, bool) {
	commit, peers, leading := s.engine.Progress(segment)
	if !leading {
		return recruit.Situation{}, false
	}
	now := time.Now()
	state := r.Machine.State()
	_, term := r.Machine.Segment().Applied()
	out := recruit.Situation{
		Descriptor: state.Descriptor, Self: s.cfg.Self, Commit: commit,
		Policy:  recruit.Policy{Anchors: state.Want, ReplaceAfter: s.cfg.ReplaceAfter},
		Leading: term == t.term, LeaderSince: t.since, Pending: t.pending.Load() || state.Joint(),
	}
	asleep := s.asleep(segment)
	for _, a := range state.Descriptor.Anchors {
		p := peers[a.Replica]
		heard := p.RecentActive
		if asleep { // what the group knows of the others is as old as its sleep
			heard = s.mesh.Connected(a.Node)
		}
		if heard || a.Node == s.cfg.Self {
			t.contact[a.Replica] = now
		}
		out.Progress = append(out.Progress, recruit.Progress{Replica: a.Replica, Match: p.Match, LastContact: t.contact[a.Replica]})
	}
	for _, m := range s.mesh.View().Members() {
		out.Members = append(out.Members, recruit.Member{
			Node: m.ID, Alive: m.State == mesh.Alive, Since: m.Since, Zone: m.Zone, Room: 1,
		})
	}
	return out, true
}

func (s *Steward) asleep(segment anchormesh.SegmentID) bool {
	st, ok := s.engine.Status(segment)
	return ok && st.Asleep
}

func (s *Steward) carryOut(ctx context.Context, t *tended, r *host.Replica, e recruit.Effect) {
	d := r.Machine.Descriptor()
	s.cfg.Logger.Info("anchor group decision", "segment", d.Segment, "why", e.Why)
	switch e.Kind {
	case recruit.Invite:
		go s.invite(ctx, d, e)
	case recruit.AddLearner:
		next, cc := addLearner(d, e)
		s.propose(t, d, next, cc)
	case recruit.Change:
		next, cc := change(d, e)
		s.propose(t, d, next, cc)
	}
}

// addLearner gives a node the next replica ID.
func addLearner(d *anchormesh.Descriptor, e recruit.Effect) (*anchormesh.Descriptor, *raftpb.ConfChangeV2) {
	next := d.Clone()
	id := next.NextReplica
	next.NextReplica++
	next.Anchors = append(next.Anchors, anchormesh.Anchor{Node: e.Node, Replica: id, Role: anchormesh.Learner, Zone: e.Zone})
	return next, &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{single(raftpb.ConfChangeAddLearnerNode, id)}}
}

// change promotes and removes in one step; Raft makes it joint where it needs to
// be and leaves the joint configuration by itself.
func change(d *anchormesh.Descriptor, e recruit.Effect) (*anchormesh.Descriptor, *raftpb.ConfChangeV2) {
	next, cc := d.Clone(), &raftpb.ConfChangeV2{}
	for i := range next.Anchors {
		if slices.Contains(e.Promote, next.Anchors[i].Replica) {
			next.Anchors[i].Role = anchormesh.Voter
		}
	}
	next.Anchors = slices.DeleteFunc(next.Anchors, func(a anchormesh.Anchor) bool { return slices.Contains(e.Remove, a.Replica) })
	for _, id := range e.Promote {
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeAddNode, id))
	}
	for _, id := range e.Remove {
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeRemoveNode, id))
	}
	return next, cc
}

func single(kind raftpb.ConfChangeType, id anchormesh.ReplicaID) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(uint64(id))}
}

func (s *Steward) propose(t *tended, d, next *anchormesh.Descriptor, cc *raftpb.ConfChangeV2) {
	t.pending.Store(true)
	s.engine.ChangeConf(d.Segment, d.Generation, cc, meshpb.EncodeDescriptor(next), func(res consensus.Result) {
		if res.Err != nil {
			s.cfg.Logger.Warn("change of the anchor group did not happen", "segment", d.Segment, "err", res.Err)
		}
		t.pending.Store(false)
		s.Kick()
	})
}

func (s *Steward) invite(ctx context.Context, d *anchormesh.Descriptor, e recruit.Effect) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := proto.Marshal(&meshpb.Invitation{Descriptor_: meshpb.ToPB(d), Replica: uint64(d.NextReplica), Reason: e.Why})
	if err != nil {
		panic("steward: invitation cannot be encoded: " + err.Error())
	}
	yes := false
	reply, err := s.mesh.Call(ctx, e.Node, Method, body)
	var msg meshpb.InvitationReply
	if err == nil {
		err = proto.Unmarshal(reply, &msg)
	}
	switch {
	case err != nil:
		s.cfg.Logger.Warn("invitation was not answered", "segment", d.Segment, "node", e.Node.Short(), "err", err)
	case !msg.GetAccepted():
		s.cfg.Logger.Info("invitation was declined", "segment", d.Segment, "node", e.Node.Short(), "why", msg.GetReason())
	default:
		yes = true
	}
	select {
	case s.answer <- answer{d.Segment, e.Node, yes}:
	case <-ctx.Done():
	}
}

// Serve answers an invitation; it is the mesh's call handler. To accept promises
// room, nothing more: the replica ID comes with the group's log.
func (s *Steward) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	var inv meshpb.Invitation
	if err := proto.Unmarshal(payload, &inv); err != nil {
		to.Fail(1, "malformed invitation: "+err.Error())
		return
	}
	d, err := meshpb.FromPB(inv.GetDescriptor_())
	if err != nil {
		to.Fail(1, "malformed invitation: "+err.Error())
		return
	}
	ok, reason := recruit.Accept(s.cfg.Load(), recruit.Invitation{
		Mesh: d.Mesh, Segment: d.Segment, Generation: d.Generation, From: from,
	})
	if ok {
		s.cfg.Logger.Info("invitation accepted", "segment", d.Segment, "from", from.Short(), "why", inv.GetReason())
	}
	body, err := proto.Marshal(&meshpb.InvitationReply{Accepted: ok, Reason: reason})
	if err != nil {
		panic("steward: reply cannot be encoded: " + err.Error())
	}
	to.Reply(body)
}
