package steward_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/steward"
)

// operator is why a test cuts.
var operator = lineage.Evidence{Reason: lineage.Operator, Operator: "test"}

// ledBy is the living node that leads a segment, nil if nobody does.
func (w *world) ledBy(id anchormesh.SegmentID) *member {
	for _, m := range w.all() {
		if st, ok := m.Engine.Status(id); ok && st.Leads() && m.Mesh.Connected(w.other(m)) {
			return m
		}
	}
	return nil
}

// other is some other node, to tell a dead member by.
func (w *world) other(m *member) anchormesh.NodeID {
	for _, o := range w.all() {
		if o != m && !o.dead.Load() {
			return o.ID
		}
	}
	return ""
}

// cutInto cuts the first segment at k01, k02, ... into n, and waits until all lead.
func (w *world) cutInto(n int) (ids []anchormesh.SegmentID) {
	w.t.Helper()
	ids = []anchormesh.SegmentID{segment}
	for i := n - 1; i > 0; i-- {
		var right anchormesh.SegmentID
		hosttest.Eventually(w.t, time.Minute, "split", func() bool {
			var err error
			right, err = w.leader().steward.Split(w.t.Context(), segment, fmt.Appendf(nil, "k%02d", i), operator, false)
			return err == nil
		})
		ids = append(ids, right)
	}
	hosttest.Eventually(w.t, time.Minute, "leaders of all", func() bool {
		return !slices.ContainsFunc(ids, func(id anchormesh.SegmentID) bool { return w.ledBy(id) == nil })
	})
	return ids
}

// anchors are the nodes of a segment's voters, by its leader's word; nil if nobody
// leads or an anchor has no vote.
func (w *world) anchors(id anchormesh.SegmentID) (out []anchormesh.NodeID) {
	m := w.ledBy(id)
	if m == nil {
		return nil
	}
	r, here := m.Host.Get(id)
	if !here {
		return nil
	}
	d := r.Machine.Descriptor()
	if len(d.Voters()) != len(d.Anchors) {
		return nil
	}
	for _, v := range d.Voters() {
		out = append(out, v.Node)
	}
	slices.Sort(out)
	return out
}

// leads counts the segments that each node leads.
func (w *world) leads(ids []anchormesh.SegmentID) map[anchormesh.NodeID]int {
	out := make(map[anchormesh.NodeID]int)
	for _, id := range ids {
		if m := w.ledBy(id); m != nil {
			out[m.ID]++
		}
	}
	return out
}

func (w *world) grown() {
	w.t.Helper()
	hosttest.Eventually(w.t, time.Minute, "three voters", func() bool { return len(w.voters()) == 3 })
}

// Leadership of equally busy segments spreads over the nodes that hold them; a
// node that joins is given replicas; and then nothing moves any more.
func TestLeadershipAndReplicasSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.heavy.Store(500)
		w.grown()
		ids := w.cutInto(9)
		hosttest.Eventually(t, 10*time.Minute, "leaders on all three", func() bool {
			l := w.leads(ids)
			return len(l) == 3 && l["a"] <= 4 && l["b"] <= 4 && l["c"] <= 4
		})
		newcomer := w.add(3, nil)
		hosttest.Eventually(t, 20*time.Minute, "replicas on the fourth", func() bool { return len(newcomer.Host.Segments()) >= 5 })
		time.Sleep(10 * time.Minute)
		moves := func() int { return w.did.get("moved room") + w.did.get("moved load") + w.did.get("moved split") }
		before := moves()
		for _, id := range ids {
			if n := len(w.anchors(id)); n != 3 {
				t.Errorf("segment %s has %d anchors", id, n)
			}
		}
		time.Sleep(20 * time.Minute)
		if after := moves(); after != before || before < 5 {
			t.Errorf("%d moves, then %d more at rest", before, after-before)
		}
		for _, m := range w.all() {
			if n := len(m.Host.Segments()); n < 5 || n > 9 {
				t.Errorf("%s holds %d replicas of 27", m.ID, n)
			}
		}
		if w.did.get("split order") != 8 || w.did.get("invited accepted") == 0 || w.did.get("transferred load") == 0 {
			t.Errorf("told: %v", w.did.words)
		}
	})
}

// A node that is drained gives up its leaderships, then its replicas, and takes none;
// the last copy is where it should be.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		w.grown()
		ids := w.cutInto(4)
		w.leader().Put(segment, "a", "v")
		leaver := w.leader()
		leaver.leaving.Store(true)
		hosttest.Eventually(t, 20*time.Minute, "empty node", func() bool { return len(leaver.Host.Segments()) == 0 })
		for _, id := range ids {
			if a := w.anchors(id); len(a) != 3 || slices.Contains(a, leaver.ID) {
				t.Errorf("segment %s is on %v", id, a)
			}
		}
		if v, _ := w.leader().Get(segment, "a"); v != "v" {
			t.Errorf("the data is %q", v)
		}
		if w.did.get("moved drain") < 4 {
			t.Errorf("told: %v", w.did.words)
		}
	})
}

// The anchors of a dead node are replaced in all segments, a few at a time; the
// newcomer is never asked by more groups at once than have a turn.
func TestAllSegmentsOfADeadNodeAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		w.grown()
		ids := w.cutInto(12)
		var victim *member
		for _, m := range w.all() {
			if _, holds := m.Host.Get(segment); holds && m != w.leader() {
				victim = m
			}
		}
		w.die(victim)
		hosttest.Eventually(t, 15*time.Minute, "repair of all", func() bool {
			return !slices.ContainsFunc(ids, func(id anchormesh.SegmentID) bool {
				a := w.anchors(id)
				return len(a) != 3 || slices.Contains(a, victim.ID)
			})
		})
	})
}

// What operators order is done or refused with the reason.
func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		w.grown()
		time.Sleep(20 * time.Second)
		leader := w.leader()
		voters := w.voters()
		var free []anchormesh.NodeID
		for _, m := range w.all() {
			if !slices.Contains(voters, m.ID) {
				free = append(free, m.ID)
			}
		}
		other := voters[slices.IndexFunc(voters, func(id anchormesh.NodeID) bool { return id != leader.ID })]
		for _, c := range []struct {
			from, to anchormesh.NodeID
			why      string
		}{
			{free[0], free[1], "is no voter"}, {other, leader.ID, "an anchor of segment 0000000000000009 already"},
			{other, "nobody", "is not alive"}, {leader.ID, free[0], "leads the segment"},
		} {
			err := leader.steward.Move(segment, c.from, c.to, false)
			if !errors.Is(err, machine.ErrRefused) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("move from %s to %s: %v", c.from, c.to, err)
			}
		}
		if err := leader.steward.Move(segment, other, free[0], true); err != nil {
			t.Errorf("dry: %v", err)
		}
		time.Sleep(time.Minute)
		if now := w.voters(); !slices.Equal(now, voters) {
			t.Fatalf("voters are %v, were %v: nothing was ordered", now, voters)
		}
		if err := leader.steward.Move(segment, other, free[0], false); err != nil {
			t.Fatal(err)
		}
		hosttest.Eventually(t, 2*time.Minute, "the move", func() bool {
			now := w.voters()
			return len(now) == 3 && slices.Contains(now, free[0]) && !slices.Contains(now, other)
		})
		if w.did.get("moved order") != 1 {
			t.Errorf("told: %v", w.did.words)
		}
		if err := leader.steward.Transfer(t.Context(), segment, other); !errors.Is(err, machine.ErrRefused) {
			t.Errorf("leadership for one that does not vote: %v", err)
		}
		if err := leader.steward.Transfer(t.Context(), segment, free[0]); err != nil {
			t.Fatal(err)
		}
		hosttest.Eventually(t, time.Minute, "new leader", func() bool { m := w.ledBy(segment); return m != nil && m.ID == free[0] })
		if err := leader.steward.Transfer(t.Context(), segment, leader.ID); !errors.Is(err, steward.ErrNotLeader) {
			t.Errorf("asked of one that does not lead: %v", err)
		}
		if to, err := w.leader().steward.Yield(t.Context(), segment); err != nil || to == free[0] {
			t.Errorf("leadership went to %q, %v", to, err)
		}
	})
}

// An ordered transfer whose word to the next leader is lost is ordered again: Raft gives
// it up after an election timeout and says so to nobody. One that never succeeds ends.
func TestTransferIsOrderedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.grown()
		time.Sleep(20 * time.Second)
		leader := w.leader()
		to := w.other(leader)
		deaf := func(loss float64) { w.net.SetLink(leader.ID, to, meshtest.Link{Loss: loss}) }
		transfer := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			return leader.steward.Transfer(ctx, segment, to)
		}
		deaf(1)
		begin := time.Now()
		if err := transfer(); err == nil || time.Since(begin) > time.Minute {
			t.Errorf("leadership for one that hears nothing: %v after %v", err, time.Since(begin))
		}
		deaf(0)
		time.Sleep(20 * time.Second)
		leader = w.leader() // the outcome was not known: the last order may still have been heard
		to = w.other(leader)
		deaf(1)
		time.AfterFunc(1500*time.Millisecond, func() { deaf(0) })
		if err := transfer(); err != nil || w.leader().ID != to {
			t.Errorf("leadership for one that heard nothing at first: %v, %s leads", err, w.leader().ID)
		}
	})
}

// Nothing optional begins while an anchor is silent: no move, no transfer.
func TestNothingOptionalWhileDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		w.grown()
		ids := w.cutInto(6)
		silent := w.all()[2]
		if silent == w.leader() {
			silent = w.all()[1]
		}
		w.die(silent)
		w.heavy.Store(500)
		time.Sleep(10 * time.Second)
		before := w.did.get("transferred load")
		time.Sleep(5 * time.Minute)
		if n := w.did.get("transferred load"); n != before {
			t.Errorf("%d leaderships were handed over while an anchor was dead", n-before)
		}
		for _, id := range ids {
			m := w.ledBy(id)
			if m == nil {
				t.Errorf("nobody leads %s", id)
				continue
			}
			if s, ok := m.steward.Standing(id); !ok || s.Degraded == "" {
				t.Errorf("segment %s: %+v", id, s)
			}
		}
	})
}

// Who accepts two replicas at a time declines the third, until one has come.
func TestPromisesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		a, b := w.all()[0], w.all()[1]
		a.stop()
		for i, want := range []bool{true, true, false} {
			if r := invite(t, a, anchormesh.SegmentID(100+i)); r.GetAccepted() != want {
				t.Errorf("invitation %d: %v", i+1, r)
			}
		}
		if r := invite(t, a, 100); !r.GetAccepted() {
			t.Errorf("asked again for what was promised: %v", r)
		}
		time.Sleep(30 * time.Second)
		if r := invite(t, a, 102); !r.GetAccepted() {
			t.Errorf("after the promises ended: %v", r)
		}
		b.leaving.Store(true)
		if r := invite(t, a, 103); r.GetAccepted() || !strings.Contains(r.GetReason(), "leaving") {
			t.Errorf("a node that is drained: %v", r)
		}
	})
}
