package recruit

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata/*.
//
//	mesh                         a new world; node, voter and learner fill it
//	node NAME [zone] [room]      a node appears
//	voter NAME | learner NAME    it holds an anchor
//	lead NAME | leading off      who leads; the leader lost its role
//	want N                       the policy asks for N anchors
//	down NAME | up NAME          dead and silent; alive and heard
//	gossip NAME alive|dead       gossip alone changes its mind
//	cut NAME | heal NAME         the leader alone does not hear it
//	forgot REPLICA...            their nodes say that they forgot what they acknowledged
//	match NAME N                 its log reaches N (commit is 1000)
//	answer NAME yes|no           its answer to an invitation
//	pending on|off               a change is under way
//	move REPLICA NODE | move off a move is wanted, or not any more
//	step [DURATION]              passes time in seconds, stepping; prints what is new
//	apply                        the log applies the change printed last
//	auto DURATION                as step, with every node willing, every change
//	                             applied and every learner caught up at once
//	group                        prints the descriptor
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				s.do(t, strings.Fields(line))
			}
			return s.out.String()
		})
	})
}

type script struct {
	*world
	out    strings.Builder
	change Effect // last one printed
	status string // last one printed
	// last one printed
	degraded string
}

func (s *script) do(t *testing.T, f []string) {
	arg := append(f, "", "", "")
	switch f[0] {
	case "mesh":
		s.world, s.change, s.status, s.degraded = newWorld(DefaultConfig()), Effect{}, "", ""
	case "node":
		room := 10
		if arg[3] != "" {
			room, _ = strconv.Atoi(arg[3])
		}
		s.add(f[1], arg[2], uint32(room))
	case "voter":
		s.seat(f[1], anchormesh.Voter)
	case "learner":
		s.seat(f[1], anchormesh.Learner)
	case "lead":
		s.lead, s.situation.Leading, s.situation.LeaderSince = f[1], true, s.now
	case "leading":
		s.situation.Leading = f[1] == "on"
	case "want":
		s.situation.Policy.Anchors, _ = strconv.Atoi(f[1])
	case "down", "up":
		s.alive(f[1], f[0] == "up")
	case "gossip":
		s.node(f[1]).Alive, s.node(f[1]).Since = f[2] == "alive", s.now
	case "cut", "heal":
		s.node(f[1]).cut = f[0] == "cut"
	case "forgot":
		s.situation.Forgot = nil
		for _, id := range f[1:] {
			n, _ := strconv.ParseUint(id, 10, 64)
			s.situation.Forgot = append(s.situation.Forgot, anchormesh.ReplicaID(n))
		}
	case "match":
		s.node(f[1]).match, _ = strconv.ParseUint(f[2], 10, 64)
	case "answer":
		s.core.Answer(s.now, anchormesh.NodeID(f[1]), f[2] == "yes")
	case "pending":
		s.situation.Pending = f[1] == "on"
	case "move":
		id, err := strconv.ParseUint(f[1], 10, 64)
		if s.situation.Move = nil; err == nil {
			s.situation.Move = &Move{Replica: anchormesh.ReplicaID(id), To: anchormesh.NodeID(f[2]), Why: "it has room"}
		}
	case "apply":
		s.apply(s.change)
	case "group":
		fmt.Fprintln(&s.out, s.group())
	case "step", "auto":
		s.run(f[0] == "auto", arg[1])
	default:
		t.Fatalf("unknown line %q", f)
	}
}

func (s *script) run(auto bool, d string) {
	each := func() { s.print(s.step(), auto) }
	if d == "" {
		each()
		return
	}
	pass, err := time.ParseDuration(d)
	if err != nil {
		panic(err)
	}
	s.pass(pass, each)
}

func (s *script) print(p Plan, auto bool) {
	at := s.now.Sub(time.Unix(0, 0))
	if p.Status != s.status {
		fmt.Fprintf(&s.out, "%v: %s\n", at, p.Status)
		s.status = p.Status
	}
	if p.Degraded != s.degraded {
		fmt.Fprintf(&s.out, "%v: degraded: %q\n", at, p.Degraded)
		s.degraded = p.Degraded
	}
	for _, e := range p.Effects {
		if e.Kind == Invite {
			fmt.Fprintf(&s.out, "%v: %v\n", at, e)
			if auto {
				s.core.Answer(s.now, e.Node, true)
			}
			continue
		}
		if old := s.change; fmt.Sprint(old.Kind, old.Node, old.Promote, old.Remove) != fmt.Sprint(e.Kind, e.Node, e.Promote, e.Remove) {
			fmt.Fprintf(&s.out, "%v: %v\n", at, e)
		}
		s.change = e
		if auto {
			s.apply(e)
			s.change = Effect{}
			for _, n := range s.nodes {
				if !n.cut {
					n.match = s.situation.Commit
				}
			}
		}
	}
}

// TestAlways lets a mesh live at random and checks, at every change, what must
// always hold, and at the end that a calm mesh reaches its size.
func TestAlways(t *testing.T) {
	base := rand.Uint64()
	for i := range uint64(60) {
		if err := liveAtRandom(base + i); err != nil {
			t.Fatalf("seed %d: %v", base+i, err)
		}
	}
}

func liveAtRandom(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	w := newWorld(DefaultConfig())
	w.situation.Policy.ReplaceAfter = minReplaceAfter
	for i := range 1 + rng.IntN(9) {
		w.add(fmt.Sprint("n", i), fmt.Sprint("z", rng.IntN(3)), 1+rng.Uint32N(20))
	}
	w.seat("n0", anchormesh.Voter)
	w.lead = "n0"
	var err error
	each := func() {
		p := w.step()
		for _, e := range p.Effects {
			if err == nil {
				err = w.obey(rng, e)
			}
		}
	}
	for range 300 {
		w.upset(rng)
		w.pass(time.Duration(1+rng.IntN(5))*time.Second, each)
		if err != nil {
			return err
		}
	}
	w.calm()
	w.pass(15*time.Minute, each)
	if err != nil {
		return err
	}
	want := min(w.situation.Policy.Anchors, (len(w.nodes)-1)|1)
	if len(w.nodes)%2 == 0 {
		want = min(w.situation.Policy.Anchors, len(w.nodes)-1)
	}
	if got := len(w.situation.Descriptor.Voters()); got < want {
		return fmt.Errorf("a calm mesh of %d nodes has %d voters, want %d: %s (%s)", len(w.nodes), got, want, w.group(), w.step().Status)
	}
	return nil
}

// upset does something bad, or good, to a random node or to the policy.
func (w *world) upset(rng *rand.Rand) {
	n := w.nodes[rng.IntN(len(w.nodes))]
	leader := string(n.Node) == w.lead
	switch rng.IntN(10) {
	case 7:
		m := w.nodes[rng.IntN(len(w.nodes))]
		d := w.situation.Descriptor
		w.situation.Move = &Move{Replica: d.Anchors[rng.IntN(len(d.Anchors))].Replica, To: m.Node}
	case 8:
		w.situation.Move = nil
	case 0, 1:
		if !leader {
			w.alive(string(n.Node), rng.IntN(3) > 0)
		}
	case 2:
		n.cut = !leader && rng.IntN(2) == 0
	case 3:
		n.Alive, n.Since = rng.IntN(2) == 0, w.now
	case 4:
		n.match = rng.Uint64N(w.situation.Commit + 1)
	case 5:
		w.situation.Policy.Anchors = 1 + 2*rng.IntN(4)
	case 6:
		w.situation.Pending = rng.IntN(4) == 0
	}
}

func (w *world) calm() {
	w.situation.Pending, w.situation.Move = false, nil
	for _, n := range w.nodes {
		w.alive(string(n.Node), true)
		n.match = w.situation.Commit
	}
}

// obey checks an effect against the rules and does it.
func (w *world) obey(rng *rand.Rand, e Effect) error {
	d := w.situation.Descriptor
	if e.Kind == Invite {
		if _, ok := d.AnchorOn(e.Node); ok {
			return fmt.Errorf("anchor %s was invited", e.Node)
		}
		w.core.Answer(w.now, e.Node, rng.IntN(3) > 0)
		return nil
	}
	if w.situation.Pending {
		return fmt.Errorf("%v while a change is under way", e)
	}
	before, contact := 0, 0
	for _, a := range d.Voters() {
		before++
		if n := w.node(string(a.Node)); w.now.Sub(n.heard) < w.core.config.ContactWithin || string(a.Node) == w.lead {
			contact++
		}
	}
	if 2*contact <= before {
		return fmt.Errorf("%v with %d of %d voters in contact", e, contact, before)
	}
	isDead := func(n *node) bool { return !n.Alive && w.now.Sub(n.heard) >= w.situation.Policy.ReplaceAfter }
	well := contact // with the dead ones that go
	for _, id := range e.Remove {
		if a, _ := d.Replica(id); a.Role == anchormesh.Voter && isDead(w.node(string(a.Node))) {
			well++
		}
	}
	for _, id := range e.Remove {
		a, _ := d.Replica(id)
		n, mv := w.node(string(a.Node)), w.situation.Move
		dead := isDead(n)
		if a.Role != anchormesh.Voter || dead {
			continue
		}
		if before-len(e.Remove) >= w.situation.Policy.Anchors && well == before && string(a.Node) != w.lead {
			continue // the policy asks for fewer
		}
		if mv == nil || mv.Replica != id || contact < before || string(a.Node) == w.lead || len(e.Promote) != 1 {
			return fmt.Errorf("%v removes a voter that is not dead, with %d of %d in contact, move %v", e, contact, before, mv)
		}
	}
	for _, id := range e.Promote {
		if a, _ := d.Replica(id); w.node(string(a.Node)).match+w.core.config.CatchUpEntries < w.situation.Commit {
			return fmt.Errorf("%v promotes a learner that lags", e)
		}
	}
	w.apply(e)
	if e.Kind == AddLearner {
		w.node(string(e.Node)).match = w.situation.Commit
	}
	if after := len(d.Voters()); after%2 == 0 {
		return fmt.Errorf("%v leaves %d voters", e, after)
	}
	return nil
}

// TestRank: the share of segments that a node gets follows its room, and a node
// that leaves moves only its own.
func TestRank(t *testing.T) {
	nodes := []Member{{Node: "a", Room: 1}, {Node: "b", Room: 2}, {Node: "c", Room: 1}}
	first := map[anchormesh.NodeID]int{}
	for id := range anchormesh.SegmentID(4000) {
		best := pick(id, nodes, map[string]int{}, 1)[0]
		first[best.Node]++
		if best.Node != "c" && pick(id, nodes[:2], map[string]int{}, 1)[0].Node != best.Node {
			t.Fatalf("segment %v moved from %s when c left", id, best.Node)
		}
	}
	if first["b"] < 1850 || first["b"] > 2150 || first["a"] < 850 || first["c"] < 850 {
		t.Errorf("4000 segments over rooms 1:2:1 went %v", first)
	}
}

// TestAccept: each reason to decline, and none.
func TestAccept(t *testing.T) {
	fine := Load{Mesh: 1, Replicas: 3, ReplicasMax: 4, Installing: 1, InstallingMax: 2, FreeBytes: 100, ReserveBytes: 10}
	inv := Invitation{Mesh: 1, Segment: 7, Bytes: 90}
	for _, c := range []struct {
		name   string
		change func(*Load, *Invitation)
		reason string
	}{
		{"fine", func(*Load, *Invitation) {}, ""},
		{"mesh", func(_ *Load, i *Invitation) { i.Mesh = 2 }, "the invitation is for mesh 0000000000000002, this node is in 0000000000000001"},
		{"leaving", func(l *Load, _ *Invitation) { l.Leaving = true }, "the node is leaving"},
		{"replicas", func(l *Load, _ *Invitation) { l.Replicas = 4 }, "the node holds 4 replicas, its limit"},
		{"installing", func(l *Load, _ *Invitation) { l.Installing = 2 }, "the node is installing 2 replicas, its limit"},
		{"promised", func(l *Load, _ *Invitation) { l.Promised = 1 }, "the node holds 4 replicas, its limit"},
		{"installing soon", func(l *Load, _ *Invitation) { l.ReplicasMax, l.Promised = 0, 1 }, "the node is installing 2 replicas, its limit"},
		{"share", func(l *Load, i *Invitation) { l.Even, i.Optional = 3, true }, "the node holds 3 replicas, and an even share is 3"},
		{"share of a repair", func(l *Load, _ *Invitation) { l.Even = 3 }, ""},
		{"disk", func(_ *Load, i *Invitation) { i.Bytes = 91 }, "the node has 100 bytes free, the segment takes 91 and 10 are to stay free"},
	} {
		l, i := fine, inv
		c.change(&l, &i)
		if ok, reason := Accept(l, i); ok != (c.reason == "") || reason != c.reason {
			t.Errorf("%s: %v, %q", c.name, ok, reason)
		}
	}
}

// TestPromises: a promise counts until its replica has come or its time is over,
// and not against itself.
func TestPromises(t *testing.T) {
	now, here := time.Unix(0, 0), map[anchormesh.SegmentID]bool{}
	held := func(s anchormesh.SegmentID) bool { return here[s] }
	var p Promises
	for s := range anchormesh.SegmentID(3) {
		p.Give(s+1, now.Add(time.Duration(s+1)*time.Minute))
	}
	if all, others := p.Count(now, 9, held), p.Count(now, 2, held); all != 3 || others != 2 {
		t.Errorf("%d promises, %d besides one's own; want 3, 2", all, others)
	}
	here[3] = true
	if n := p.Count(now.Add(time.Minute), 9, held); n != 1 {
		t.Errorf("%d promises when one is over and one was kept, want 1", n)
	}
}

// TestValidate: defaults are valid, nonsense is named.
func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := DefaultPolicy().Validate(); err != nil {
		t.Error(err)
	}
	for _, p := range []Policy{{Anchors: 2, ReplaceAfter: time.Hour}, {Anchors: 9, ReplaceAfter: time.Hour}, {Anchors: 3, ReplaceAfter: time.Second}} {
		if p.Validate() == nil {
			t.Errorf("%+v is valid", p)
		}
	}
	if c := DefaultConfig(); true {
		c.RetryAfter = 0
		if c.Validate() == nil {
			t.Error("RetryAfter 0 is valid")
		}
	}
}
