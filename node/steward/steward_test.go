package steward_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/steward"
)

const (
	meshID       anchormesh.MeshID    = 7
	segment      anchormesh.SegmentID = 9
	replaceAfter                      = 10 * time.Second
)

// member is a node with a steward.
type member struct {
	*hosttest.Node
	steward *steward.Steward
	free    atomic.Int64 // room on its disk
	invited atomic.Int64 // how often it was asked
	leaving atomic.Bool
	dead    atomic.Bool
	stop    func()
}

// world is a mesh of such nodes; the first one creates it.
type world struct {
	t     *testing.T
	net   *meshtest.Network
	mu    sync.Mutex
	nodes []*member
	heavy atomic.Uint64 // load of every segment
	did   counts
}

// counts are what the stewards told of.
type counts struct {
	mu    sync.Mutex
	words map[string]int
}

func (c *counts) of(what string) func(string) {
	return func(word string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.words == nil {
			c.words = make(map[string]int)
		}
		c.words[what+" "+word]++
	}
}

func (c *counts) get(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.words[what]
}

func newWorld(t *testing.T, size int, with func(i int, m *member)) *world {
	w := &world{t: t, net: meshtest.NewNetwork(1)}
	for i := range size {
		w.add(i, with)
	}
	return w
}

// add starts the next node.
func (w *world) add(i int, with func(i int, m *member)) *member {
	w.t.Helper()
	m := &member{Node: hosttest.Start(w.t, hosttest.NewDisk(w.t), w.net, anchormesh.NodeID(rune('a'+i)))}
	m.free.Store(1 << 40)
	if with != nil {
		with(i, m)
	}
	if i == 0 {
		if err := m.Host.Genesis(meshID, segment, "", 3); err != nil {
			w.t.Fatal(err)
		}
	} else if err := m.Host.JoinMesh(meshID); err != nil {
		w.t.Fatal(err)
	}
	w.tend(m)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, m)
	return m
}

// all are the nodes.
func (w *world) all() []*member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes)
}

// load is what a segment carries.
func (w *world) load(anchormesh.SegmentID) uint64 { return w.heavy.Load() }

// stands is how a node stands.
func (w *world) stands(m *member) place.Node {
	n := place.Node{Member: recruit.Member{Room: 100}, Leaving: m.leaving.Load()}
	for _, id := range m.Host.Segments() {
		n.Replicas++
		if st, ok := m.Engine.Status(id); ok && st.Leads() {
			n.Leaders++
			n.Load += w.load(id)
		}
	}
	return n
}

// tend starts the node's steward.
func (w *world) tend(m *member) {
	placing := place.DefaultConfig()
	placing.Settle, placing.Stay, placing.Epoch = 5*time.Second, 10*time.Second, 10*time.Second
	s := steward.New(steward.Config{
		Self: m.ID, ReplaceAfter: replaceAfter, Recruit: recruit.DefaultConfig(), Logger: slog.New(slog.DiscardHandler),
		Place: placing, PlanEvery: 2 * time.Second,
		Listener: steward.Listener{
			Split: w.did.of("split"), Moved: w.did.of("moved"), Transferred: w.did.of("transferred"), Invited: w.did.of("invited"),
		},
		Load: func() recruit.Load {
			return recruit.Load{
				Mesh: m.Host.Mesh(), FreeBytes: m.free.Load(), ReserveBytes: 1 << 20, Leaving: m.leaving.Load(),
				Replicas: len(m.Host.Segments()) + m.Host.Installing(), Installing: m.Host.Installing(), InstallingMax: 2,
			}
		},
		Own: func() place.Node { return w.stands(m) },
		Heard: func(now time.Time) map[anchormesh.NodeID]place.Node {
			out := make(map[anchormesh.NodeID]place.Node)
			for _, o := range w.all() {
				if o.dead.Load() {
					continue
				}
				n := w.stands(o)
				n.Heard = now
				out[o.ID] = n
			}
			return out
		},
		Measured: func(id anchormesh.SegmentID) (uint64, int64) { return w.load(id), 1000 },
	}, m.Host, m.Engine, m.Mesh)
	m.steward = s
	m.Mesh.HandleCalls(steward.Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
		m.invited.Add(1)
		s.Serve(from, p, to)
	})
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	w.t.Cleanup(stop)
	go s.Run(ctx)
}

// voters are the nodes that vote, by the first node's word or by the leader's.
func (w *world) voters() (out []anchormesh.NodeID) {
	for _, m := range w.nodes {
		if st, ok := m.Engine.Status(segment); ok && st.Leads() {
			r, _ := m.Host.Get(segment)
			out = nil
			for _, v := range r.Machine.Descriptor().Voters() {
				out = append(out, v.Node)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (w *world) leader() *member {
	for _, m := range w.nodes {
		if st, ok := m.Engine.Status(segment); ok && st.Leads() {
			return m
		}
	}
	w.t.Fatal("nobody leads")
	return nil
}

// die ends a node's process; all others are told.
func (w *world) die(m *member) {
	m.dead.Store(true)
	m.stop()
	w.net.Crash(m.ID)
	m.Stop()
	for _, o := range w.nodes {
		w.net.Observe(o.ID, m.ID, mesh.Dead)
	}
}

// A group recruits until it has the voters it wants, and no more; all of them hold
// what was written.
func TestAGroupGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		w.nodes[0].Put(segment, "k", "v")
		hosttest.Eventually(t, time.Minute, "three voters", func() bool { return len(w.voters()) == 3 })
		time.Sleep(time.Minute)
		held := 0
		for _, m := range w.nodes {
			if v, ok := m.Get(segment, "k"); ok && v == "v" {
				held++
			}
		}
		if v := w.voters(); len(v) != 3 || held != 3 {
			t.Errorf("voters %v, %d nodes hold the data", v, held)
		}
	})
}

// The machine of a sleeping group's leader is back before anybody noticed, and its replica
// has forgotten something: the word of that wakes the others, who elect, and remove it.
func TestALeaderThatForgotIsReplacedWhileItsGroupSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		asleep := func(m *member) bool {
			st, _ := m.Engine.Status(segment)
			return st.Asleep
		}
		hosttest.Eventually(t, 5*time.Minute, "three voters to sleep", func() bool {
			return len(w.voters()) == 3 && !slices.ContainsFunc(w.nodes, func(m *member) bool { return !asleep(m) })
		})
		gone := w.leader()
		r, _ := gone.Host.Get(segment)
		old, _ := r.Machine.Descriptor().AnchorOn(gone.ID)
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(m *member) bool { return m == gone })
		for _, m := range others {
			m.Mesh.SetEvents(mesh.Events{}) // no connection ends
		}
		gone.dead.Store(true)
		gone.stop()
		gone.Stop()
		time.Sleep(time.Minute)
		w.mu.Lock()
		w.nodes = others
		w.mu.Unlock()
		say := func() {
			for _, m := range others {
				m.steward.Forgot(gone.ID, segment, old.Replica)
			}
		}
		others[0].steward.Forgot(others[1].ID, segment, old.Replica)
		if synctest.Wait(); !asleep(others[0]) || !asleep(others[1]) {
			t.Fatal("the group woke without being told, or by another node's word")
		}
		hosttest.Eventually(t, 20*time.Second, "the replica to be removed", func() bool {
			say()
			return len(w.voters()) == 2 && !slices.Contains(w.voters(), gone.ID)
		})
	})
}

// A dead voter is replaced by a free node, not before the time is over; gossip's
// word alone removes nobody.
func TestTheDeadAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		hosttest.Eventually(t, time.Minute, "three voters", func() bool { return len(w.voters()) == 3 })
		before, leader := w.voters(), w.leader()
		var victim *member
		for _, m := range w.nodes {
			if m != leader && slices.Contains(before, m.ID) {
				victim = m
			}
		}
		w.net.Observe(leader.ID, victim.ID, mesh.Dead)
		time.Sleep(2 * time.Minute)
		if now := w.voters(); !slices.Equal(now, before) {
			t.Errorf("a living voter that gossip calls dead was replaced: %v, before %v", now, before)
		}
		w.net.Observe(leader.ID, victim.ID, mesh.Alive)
		begin := time.Now()
		w.die(victim)
		hosttest.Eventually(t, 2*time.Minute, "replacement", func() bool { return !slices.Contains(w.voters(), victim.ID) })
		if took := time.Since(begin); took < replaceAfter {
			t.Errorf("replaced after %v, before the limit", took)
		}
		if now := w.voters(); len(now) != 3 {
			t.Errorf("voters %v", now)
		}
		w.leader().Put(segment, "after", "v")
	})
}

// A node without room declines, is left alone for a while and asked again later.
func TestDeclining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, func(i int, m *member) {
			if i == 2 {
				m.free.Store(1000)
			}
		})
		full := w.nodes[2]
		hosttest.Eventually(t, time.Minute, "invitation", func() bool { return full.invited.Load() == 1 })
		time.Sleep(recruit.DefaultConfig().RetryAfter / 2)
		if n := full.invited.Load(); n != 1 || slices.Contains(w.voters(), full.ID) {
			t.Errorf("asked %d times, voters %v", n, w.voters())
		}
		full.free.Store(1 << 40)
		hosttest.Eventually(t, 3*time.Minute, "three voters", func() bool { return slices.Contains(w.voters(), full.ID) })
	})
}

// Nobody to recruit, or nobody who answers: the group goes on as it is.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		w.net.Add("mute1", mesh.Member{})
		w.net.Add("mute2", mesh.Member{})
		time.Sleep(5 * time.Minute)
		w.nodes[0].Put(segment, "k", "v")
		if v := w.voters(); len(v) != 1 {
			t.Errorf("voters %v", v)
		}
	})
}

// What a node answers to invitations it should not take.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		a := w.nodes[0].Mesh
		for name, junk := range map[string][]byte{"junk": {0xff}, "no descriptor": nil} {
			var remote *mesh.RemoteError
			if _, err := a.Call(t.Context(), "b", steward.Method, junk); !errors.As(err, &remote) || !strings.Contains(err.Error(), "malformed invitation") {
				t.Errorf("%s: %v", name, err)
			}
		}
		invite := func(id anchormesh.MeshID) *meshpb.InvitationReply {
			return inviteTo(t, w.nodes[0], id, 77)
		}
		if r := invite(meshID); !r.Accepted || r.Reason != "" {
			t.Errorf("an invitation: %v", r)
		}
		if r := invite(meshID + 1); r.Accepted || !strings.Contains(r.Reason, fmt.Sprint(meshID+1)) {
			t.Errorf("another mesh's invitation: %v", r)
		}
		w.nodes[1].free.Store(5)
		if r := invite(meshID); r.Accepted || !strings.Contains(r.Reason, "bytes free") {
			t.Errorf("an invitation without room: %v", r)
		}
	})
}

// invite asks node b for a replica of a segment.
func invite(t *testing.T, from *member, id anchormesh.SegmentID) *meshpb.InvitationReply {
	return inviteTo(t, from, meshID, id)
}

func inviteTo(t *testing.T, from *member, mesh anchormesh.MeshID, id anchormesh.SegmentID) *meshpb.InvitationReply {
	t.Helper()
	d := &anchormesh.Descriptor{Mesh: mesh, Segment: id, Generation: 1, Changed: 5, NextReplica: 2,
		Anchors: []anchormesh.Anchor{{Node: "a", Replica: 1, Role: anchormesh.Voter}}}
	body, err := proto.Marshal(&meshpb.Invitation{Descriptor_: meshpb.ToPB(d), Replica: 2, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := from.Mesh.Call(t.Context(), "b", steward.Method, body)
	if err != nil {
		t.Fatal(err)
	}
	var reply meshpb.InvitationReply
	if err := proto.Unmarshal(answer, &reply); err != nil {
		t.Fatal(err)
	}
	return &reply
}
