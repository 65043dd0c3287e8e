package steward_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
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
	free    atomic.Int64 // room on its disk
	invited atomic.Int64 // how often it was asked
	stop    func()
}

// world is a mesh of such nodes; the first one creates it.
type world struct {
	t     *testing.T
	net   *meshtest.Network
	nodes []*member
}

func newWorld(t *testing.T, size int, with func(i int, m *member)) *world {
	w := &world{t: t, net: meshtest.NewNetwork(1)}
	for i := range size {
		m := &member{Node: hosttest.Start(t, hosttest.NewDisk(t), w.net, anchormesh.NodeID(rune('a'+i)))}
		m.free.Store(1 << 40)
		if with != nil {
			with(i, m)
		}
		if i == 0 {
			if err := m.Host.Genesis(meshID, segment, "", 3); err != nil {
				t.Fatal(err)
			}
		} else if err := m.Host.JoinMesh(meshID); err != nil {
			t.Fatal(err)
		}
		m.tend(t)
		w.nodes = append(w.nodes, m)
	}
	return w
}

// tend starts the node's steward.
func (m *member) tend(t *testing.T) {
	s := steward.New(steward.Config{
		Self: m.ID, ReplaceAfter: replaceAfter, Recruit: recruit.DefaultConfig(), Logger: slog.New(slog.DiscardHandler),
		Load: func() recruit.Load {
			return recruit.Load{Mesh: m.Host.Mesh(), FreeBytes: m.free.Load(), ReserveBytes: 1 << 20}
		},
	}, m.Host, m.Engine, m.Mesh)
	m.Mesh.HandleCalls(steward.Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
		m.invited.Add(1)
		s.Serve(from, p, to)
	})
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	t.Cleanup(stop)
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
			t.Helper()
			d := &anchormesh.Descriptor{Mesh: id, Segment: 77, Generation: 1, Changed: 5, NextReplica: 2,
				Anchors: []anchormesh.Anchor{{Node: "a", Replica: 1, Role: anchormesh.Voter}}}
			body, err := proto.Marshal(&meshpb.Invitation{Descriptor_: meshpb.ToPB(d), Replica: 2, Reason: "test"})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := a.Call(t.Context(), "b", steward.Method, body)
			if err != nil {
				t.Fatal(err)
			}
			var reply meshpb.InvitationReply
			if err := proto.Unmarshal(answer, &reply); err != nil {
				t.Fatal(err)
			}
			return &reply
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
