package steward

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
)

// Method is the mesh call that carries invitations.
const Method = 4

const (
	interval    = time.Second
	callTimeout = 5 * time.Second
	// settledEvery is how often a group that is whole is looked at while awake, and
	// one that waits for its dead to be dead for long enough: several times within
	// recruit's ContactWithin.
	settledEvery = 2 * time.Second
	// RepairsMax is how many groups led here invite at a time.
	RepairsMax = 4
	// turn is how long a group may try before others have their turn.
	turn = 30 * time.Second
)

// Mesh is what the steward needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	View() mesh.View
	Connected(id anchormesh.NodeID) bool
}

// Listener hears what was carried out; fields may be nil. Funcs must not block.
type Listener struct {
	Split       func(cause string)
	Moved       func(cause string)
	Transferred func(cause string)
	Invited     func(outcome string) // accepted, declined or silent
}

// Config of a steward. Its functions may be called from several goroutines.
type Config struct {
	Self anchormesh.NodeID
	// ReplaceAfter is how long an anchor's node must be dead to be replaced.
	ReplaceAfter time.Duration
	Recruit      recruit.Config
	Place        place.Config
	PlanEvery    time.Duration // between two looks at the mesh as a whole
	Logger       *slog.Logger
	Listener     Listener
	// Load tells how this node stands when it is invited; what it promised and its
	// even share are filled in.
	Load func() recruit.Load
	// Own says how this node stands, and Heard what others said of themselves
	// lately. Who and where they are is filled in.
	Own   func() place.Node
	Heard func(now time.Time) map[anchormesh.NodeID]place.Node
	// Measured returns a led segment's load, in thousandths of a threshold, and
	// about how many bytes it keeps.
	Measured func(anchormesh.SegmentID) (load uint64, bytes int64)
	// Agree has the voters of a led segment vote on a split, and returns the command with
	// their votes; nil: it is proposed as it is.
	Agree func(ctx context.Context, segment anchormesh.SegmentID, command []byte) ([]byte, error)
}

// Steward tends the anchor groups led here.
type Steward struct {
	cfg    Config
	host   *host.Host
	engine *consensus.Engine
	mesh   Mesh
	kick   chan struct{}
	answer chan answer

	rounds // owned by Run
	shared
}

// rounds is what Run remembers.
type rounds struct {
	tended  map[anchormesh.SegmentID]*tended
	turns   map[anchormesh.SegmentID]time.Time // until when a group may invite
	cursor  anchormesh.SegmentID               // had the last turn
	planner *place.Planner
	planned time.Time
	// planning is how long the last plan took.
	planning time.Duration
	wishes   map[anchormesh.SegmentID]place.Move
	notes    []string            // of the last plan
	alive    []anchormesh.NodeID // at the last look, sorted
	changes  uint64              // of alive
}

// shared is what others ask for.
type shared struct {
	mu        sync.Mutex
	standing  map[anchormesh.SegmentID]Standing
	orders    map[anchormesh.SegmentID]order
	splitting map[anchormesh.SegmentID]int
	held      map[anchormesh.SegmentID]time.Time // until then
	promises  recruit.Promises
	forgot    map[anchormesh.SegmentID]map[anchormesh.ReplicaID]time.Time // when their nodes said so last
}

// Standing is how a group led here stands.
type Standing struct {
	Status   string // one sentence
	Degraded string // why nothing optional may happen; empty: it may
	Changing bool   // a change of range or anchors is under way
}

// New returns a steward; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine, m Mesh) *Steward {
	return &Steward{
		cfg: cfg, host: h, engine: e, mesh: m, kick: make(chan struct{}, 1), answer: make(chan answer, 64),
		rounds: rounds{
			tended: make(map[anchormesh.SegmentID]*tended), turns: make(map[anchormesh.SegmentID]time.Time),
			planner: place.New(cfg.Place),
		},
		shared: shared{
			standing: make(map[anchormesh.SegmentID]Standing), orders: make(map[anchormesh.SegmentID]order),
			splitting: make(map[anchormesh.SegmentID]int),
			forgot:    make(map[anchormesh.SegmentID]map[anchormesh.ReplicaID]time.Time),
			held:      make(map[anchormesh.SegmentID]time.Time),
		},
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
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var end time.Time // of the last round
	var took time.Duration
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.kick:
			if wait := min(kickShare*took, kickMost) - time.Since(end); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case a := <-s.answer:
			s.answered(ctx, a)
			continue
		}
		begin := time.Now()
		s.round(ctx, begin)
		end, took = time.Now(), time.Since(begin)
		timer.Reset(max(interval, min(roundShare*took, s.most(roundMost))))
	}
}

// most is the longest rest behind a round or a plan: longer where every group sleeps.
// What is to be done about a group at once wakes it; the rest has minutes.
func (s *Steward) most(awake time.Duration) time.Duration {
	if s.engine.Resting() {
		return restMost
	}
	return awake
}

// round looks at everything once.
func (s *Steward) round(ctx context.Context, now time.Time) {
	l := s.look(now)
	ids := s.host.Segments()
	for id := range s.tended {
		if _, here := slices.BinarySearch(ids, id); !here {
			s.forget(id)
		}
	}
	if now.Sub(s.planned) >= max(s.cfg.PlanEvery, min(planShare*s.planning, s.most(planMost))) {
		begin := time.Now()
		s.plan(l)
		s.planned, s.planning = now, time.Since(begin)
	}
	// Whoever follows the last that had a turn comes first.
	first, _ := slices.BinarySearch(ids, s.cursor+1)
	for i := range ids {
		if id := ids[(first+i)%len(ids)]; s.due(l, id) {
			s.tend(ctx, l, id)
		}
	}
}

// forget drops what is remembered of a segment that this node does not lead.
func (s *Steward) forget(id anchormesh.SegmentID) {
	if s.tended[id] == nil && !s.ordered(id) {
		return
	}
	delete(s.tended, id)
	delete(s.turns, id)
	delete(s.wishes, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.standing, id)
	delete(s.orders, id)
	delete(s.held, id)
	delete(s.forgot, id)
}

// forgotKept is how long a node's word counts that its replica forgot something. It
// repeats it until the replica is gone.
const forgotKept = 30 * time.Second

// Forgot takes a node's word that its replica may have forgotten what it acknowledged. It
// reports whether that is news to a leader who can do something about it. A follower
// learns from it that the replica leads no more: of a machine that came back at once the
// connection need not have ended, and a group that sleeps would sleep on.
func (s *Steward) Forgot(from anchormesh.NodeID, segment anchormesh.SegmentID, replica anchormesh.ReplicaID) bool {
	r, here := s.host.Get(segment)
	st, ok := s.engine.Status(segment)
	if !here || !ok {
		return false
	}
	if a, named := r.Machine.Descriptor().Replica(replica); !named || a.Node != from || from == s.cfg.Self {
		return false
	}
	if !st.Leads() {
		s.engine.LeaderGone(segment, replica)
		return false
	}
	s.mu.Lock()
	if s.forgot[segment] == nil {
		s.forgot[segment] = make(map[anchormesh.ReplicaID]time.Time)
	}
	_, known := s.forgot[segment][replica]
	s.forgot[segment][replica] = time.Now()
	s.mu.Unlock()
	if !known {
		s.cfg.Logger.Warn("a replica may have forgotten what it acknowledged, as its node says", "segment", segment, "replica", replica, "node", from.Short())
	}
	s.Kick()
	return true
}

// forgotten returns the replicas of a segment whose nodes said lately that they forgot
// something.
func (s *Steward) forgotten(now time.Time, id anchormesh.SegmentID) (out []anchormesh.ReplicaID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for replica, at := range s.forgot[id] {
		if now.Sub(at) < forgotKept {
			out = append(out, replica)
		} else {
			delete(s.forgot[id], replica)
		}
	}
	slices.Sort(out)
	return out
}

// ordered reports whether somebody ordered something for a segment. An order may come
// before the first look at it.
func (s *Steward) ordered(id anchormesh.SegmentID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.orders[id]
	return is
}

// Standing returns how the group of a segment led here stands.
func (s *Steward) Standing(id anchormesh.SegmentID) (Standing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.standing[id]
	st.Changing = st.Changing || s.splitting[id] > 0
	return st, ok
}

// A node with thousands of segments spends at most a small part of a core on looking at
// them: after a round or a plan that took long it waits so many times as long, less
// if something happens.
const (
	roundShare = 300
	planShare  = 500
	kickShare  = 10
	// On a machine that others load everything takes long, and must not be put off for it.
	planMost  = 5 * time.Second
	roundMost = 3 * time.Second
	restMost  = 10 * time.Second
	kickMost  = 100 * time.Millisecond
)

// look is the mesh at one moment.
type look struct {
	now     time.Time
	nodes   []place.Node
	members []recruit.Member
	by      map[anchormesh.NodeID]recruit.Member
	changes uint64 // how often other nodes than before were alive
}

func (s *Steward) look(now time.Time) *look {
	l := &look{now: now, nodes: s.Nodes(now), by: make(map[anchormesh.NodeID]recruit.Member)}
	var alive []anchormesh.NodeID
	for _, n := range l.nodes {
		l.members = append(l.members, n.Member)
		l.by[n.Node] = n.Member
		if n.Alive {
			alive = append(alive, n.Node)
		}
	}
	slices.Sort(alive)
	if !slices.Equal(alive, s.alive) {
		s.alive, s.changes = alive, s.changes+1
	}
	l.changes = s.changes
	return l
}

// Nodes returns all members with what is known of how they stand, this one included.
func (s *Steward) Nodes(now time.Time) (out []place.Node) {
	heard := s.cfg.Heard(now)
	for _, m := range s.mesh.View().Members() {
		n, ok := heard[m.ID]
		switch {
		case m.ID == s.cfg.Self:
			n = s.cfg.Own()
			n.Heard = now
		case !ok:
			n.Room = 1 // it has said nothing yet, and may decline
		case n.Leaving:
			n.Room = 0
		}
		n.Member = recruit.Member{Node: m.ID, Alive: m.State == mesh.Alive, Since: m.Since, Zone: m.Zone, Room: n.Room}
		out = append(out, n)
	}
	return out
}

// alive reports whether gossip calls the nodes of all anchors alive.
func (l *look) alive(d *anchormesh.Descriptor) bool {
	return !slices.ContainsFunc(d.Anchors, func(a anchormesh.Anchor) bool { return !l.by[a.Node].Alive })
}
