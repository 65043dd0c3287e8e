package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/governor"
)

// scopes returns node i's view of the scopes.
func (m *testMesh) scopes(i int) governor.Scopes {
	m.t.Helper()
	var out governor.Scopes
	m.eventually(10*time.Second, "a node that serves", func() (ok bool) {
		var err error
		out, err = m.nodes[i].node.Scopes()
		return err == nil
	})
	return out
}

// govern has a change proposed through node i and carried out.
func (m *testMesh) govern(ctx context.Context, i int, c governor.Change) (scope.Closed, error) {
	m.t.Helper()
	c.Operator = "test"
	var r governor.Receipt
	var err error
	m.eventually(30*time.Second, "proposal", func() bool {
		r, err = m.scopes(i).Propose(ctx, c)
		return err == nil || ctx.Err() != nil || !passingChange(err)
	})
	if err != nil {
		return scope.Closed{}, err
	}
	return m.scopes(i).Await(ctx, r)
}

// mustGovern fails unless the change is decided.
func (m *testMesh) mustGovern(ctx context.Context, i int, c governor.Change) {
	m.t.Helper()
	end, err := m.govern(ctx, i, c)
	if err != nil || end.Outcome != scope.Decided {
		m.t.Fatalf("%s of %q: %v, %v", c.Kind, c.Prefix, end, err)
	}
}

func anchorsOf(n int) *policy.Policy { return &policy.Policy{Anchors: policy.Anchors{Count: n}} }

// A scope is created, amended and deleted through any node; the one inside it stays,
// and every key keeps its one owner with a proven lineage.
func TestScopesComeAndGo(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	for k := range 30 {
		put(ctx, t, c, fmt.Sprintf("/%c/%02d", 'a'+k%3, k), "v")
	}
	m.split("/b/10")
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/b/"), Policy: anchorsOf(3)})
	m.mustGovern(ctx, 1, governor.Change{Kind: scope.Create, Prefix: []byte("/b/1"), Policy: anchorsOf(3)})
	m.mustGovern(ctx, 2, governor.Change{Kind: scope.Amend, Prefix: []byte("/b/"), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Priority: 7}, Expect: 1})
	m.mustGovern(ctx, 1, governor.Change{Kind: scope.Amend, Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Priority: 3}, AnyVersion: true})
	for _, prefix := range []string{"", "/b/", "/b/1"} {
		v, err := m.scopes(1).Show(ctx, []byte(prefix))
		if err != nil || v.Partial() {
			t.Fatalf("scope %q: %+v, %v", prefix, v, err)
		}
		want := map[string]uint64{"": 1, "/b/": 2, "/b/1": 1}[prefix]
		if n := v.Record.Newest(); n.Number != want || v.Record.InForce != want || n.Approved == 0 {
			t.Errorf("scope %q: %+v", prefix, n)
		}
		for _, s := range v.Segments {
			if !s.Entered || s.Version != want {
				t.Errorf("scope %q: segment %+v", prefix, s)
			}
		}
	}
	if _, err := m.govern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/b/"), Policy: anchorsOf(3)}); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("created twice: %v", err)
	}
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Delete, Prefix: []byte("/b/")})
	if v, err := m.scopes(2).Show(ctx, []byte("/b/1")); err != nil || v.Record.Newest().Number != 1 {
		t.Errorf("the scope inside: %+v, %v", v, err)
	}
	for k := range 30 {
		put(ctx, t, c, fmt.Sprintf("/%c/%02d", 'a'+k%3, k), "w")
	}
	m.sound(ctx)
}

// sound waits until the verifier has nothing to say.
func (m *testMesh) sound(ctx context.Context) {
	m.t.Helper()
	var last any
	defer func() {
		if m.t.Failed() {
			m.t.Logf("the verifier: %+v", last)
		}
	}()
	m.eventually(30*time.Second, "clean verification", func() bool {
		report := m.look(ctx)
		last = report.Findings
		return len(report.Findings) == 0
	})
}

// A scope is made out of keys that clients read and write, amended and given back, while
// the nodes stop one after the other in the middle of it: every range is a snapshot in
// real time's order, nothing acknowledged is lost, nobody is stuck, and each change ends
// by itself.
func TestScopesUnderClientsWhileNodesStop(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := startPairs(ctx, m, 3)
	p.more(m, 10)
	priority := func(n int) *policy.Policy { q := anchorsOf(3); q.Priority = n; return q }
	for i, c := range []governor.Change{
		{Kind: scope.Create, Prefix: []byte("c/1"), Policy: priority(1)},
		{Kind: scope.Amend, Prefix: []byte("c/1"), Policy: priority(2), Expect: 1},
		{Kind: scope.Delete, Prefix: []byte("c/1")},
		{Kind: scope.Create, Prefix: []byte("c/"), Policy: priority(3)},
	} {
		victim := m.leader()
		other := (victim + 1 + i%2) % len(m.nodes)
		var r governor.Receipt
		c.Operator = "test"
		m.eventually(30*time.Second, "proposal", func() (ok bool) {
			var err error
			r, err = m.scopes(other).Propose(ctx, c)
			if err != nil && !passingChange(err) {
				t.Fatalf("%s of %q: %v", c.Kind, c.Prefix, err)
			}
			return err == nil
		})
		p.more(m, int64(i)) // a little later in each round
		m.stop(victim)
		end, err := m.scopes(other).Await(ctx, r)
		if err != nil || end.Outcome != scope.Decided {
			t.Fatalf("%s of %q: %+v, %v", c.Kind, c.Prefix, end, err)
		}
		p.more(m, 10)
		m.start(victim)
		p.more(m, 10)
	}
	cancel()
	p.wait.Wait()
	t.Logf("%d rounds of writes, %d ranges, longest write %v", p.total(), p.reads.Load(), time.Duration(p.pause.Load()))
	if p.reads.Load() < 10 {
		t.Errorf("only %d ranges were answered", p.reads.Load())
	}
	atLeast := make([]int64, len(p.acked))
	for i := range p.acked {
		atLeast[i] = p.acked[i].Load()
	}
	long, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	resp, err := m.client().Get(long, "c/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	p.check(resp, atLeast)
	m.sound(long)
}

// passingChange reports whether a change may be accepted a moment later.
func passingChange(err error) bool {
	return errors.Is(err, governor.ErrUnavailable) || errors.Is(err, governor.ErrUnknown) ||
		strings.Contains(err.Error(), "changing") || strings.Contains(err.Error(), "busy")
}

// Operators who create one scope with different rules, and one inside the other, at
// once, through different nodes (counterexample 9): one policy wins everywhere, the
// others are told so, and nothing is half made.
func TestTwoOperatorsAtOnce(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m.split("/s/5")
	var asked sync.WaitGroup
	won := make([]bool, 4)
	for i, c := range []governor.Change{
		{Kind: scope.Create, Prefix: []byte("/s/"), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Priority: 1}},
		{Kind: scope.Create, Prefix: []byte("/s/"), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Priority: 2}},
		{Kind: scope.Create, Prefix: []byte("/s/5/"), Policy: anchorsOf(3)},
		{Kind: scope.Create, Prefix: []byte("/s"), Policy: anchorsOf(3)},
	} {
		asked.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				c.Operator = fmt.Sprint(i)
				r, err := m.scopes(i%3).Propose(ctx, c)
				if err == nil {
					var end scope.Closed
					if end, err = m.scopes(i%3).Await(ctx, r); err == nil && end.Outcome == scope.Decided {
						won[i] = true
						return
					}
					if err == nil && end.Outcome == scope.Outdated {
						continue // behind another that was open beside it
					}
				}
				if err == nil || !passingChange(err) {
					t.Logf("operator %d: %v", i, err)
					return
				}
			}
		})
	}
	asked.Wait()
	if won[0] == won[1] || !won[2] || !won[3] {
		t.Fatalf("won: %v", won)
	}
	want := map[string]int{"/s/": 1, "/s/5/": 0, "/s": 0, "": 0}
	if won[1] {
		want["/s/"] = 2
	}
	for i := range m.nodes {
		m.eventually(20*time.Second, "all scopes known", func() bool { return len(m.scopes(i).List()) == len(want) })
		for prefix, priority := range want {
			v, err := m.scopes(i).Show(ctx, []byte(prefix))
			if err != nil || v.Partial() || v.Record.Doing != nil || v.Policy() != nil && v.Policy().Priority != priority {
				t.Errorf("node %d, scope %q: %+v, %v", i+1, prefix, v, err)
			}
		}
	}
	m.sound(ctx)
}

// The root's policy asks for five anchors and then for three, of a mesh of five under
// writes: the groups follow, and no write is lost.
func TestAnchorsFollowThePolicy(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("moves replicas; the whole run has it")
	}
	m := newMesh(t, 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := startPairs(ctx, m, 2)
	p.more(m, 10)
	for _, n := range []int{5, 3} {
		m.mustGovern(ctx, n%3, governor.Change{Kind: scope.Amend, Policy: anchorsOf(n), AnyVersion: true})
		m.eventually(60*time.Second, fmt.Sprintf("%d voters", n), func() bool {
			for _, s := range m.segments(m.leader()) {
				if d, err := meshpb.FromPB(s.GetDescriptor_()); err != nil || len(d.Anchors) != n || len(d.Voters()) != n || d.Joint {
					return false
				}
			}
			return true
		})
		p.more(m, 20)
	}
	cancel()
	p.wait.Wait()
	t.Logf("%d rounds of writes, longest write %v", p.total(), time.Duration(p.pause.Load()))
	atLeast := make([]int64, len(p.acked))
	for i := range p.acked {
		atLeast[i] = p.acked[i].Load()
	}
	long, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	resp, err := m.client().Get(long, "c/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	p.check(resp, atLeast)
	m.sound(long)
}

// Two of three nodes are gone for good. An operator lets the root scope's home begin anew
// on the third, and then that home decides so for the other segment. What was
// acknowledged is there, revisions go on above, and the old replicas, once they are back,
// give way and are recruited anew.
func TestRecovery(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m.split("m")
	c := m.client()
	var last int64
	for k := range 20 {
		last = put(ctx, t, c, fmt.Sprintf("%c/%d", 'a'+k, k), "v")
	}
	ids := map[string]anchormesh.SegmentID{}
	for _, s := range m.segments(0) {
		d, err := meshpb.FromPB(s.GetDescriptor_())
		if err != nil {
			t.Fatal(err)
		}
		ids[string(d.Range.Start)] = d.Segment
	}
	if _, err := m.scopes(0).RecoverHere(ctx, ids[""], "test"); !errors.Is(err, governor.ErrRefused) {
		t.Errorf("recovery of a segment that is well: %v", err)
	}
	m.stop(1)
	m.stop(2)
	if _, err := m.scopes(0).RecoverHere(ctx, ids[""], "test"); err != nil {
		t.Fatal(err)
	}
	self := m.scopes(0)
	nodes, err := m.admin(0).Nodes(ctx, &meshpb.NodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var survivor string
	var gone anchormesh.NodeID
	for _, n := range nodes.GetNodes() {
		if n.GetSelf() {
			survivor = n.GetId()
		} else {
			gone = anchormesh.NodeID(n.GetId())
		}
	}
	// A scope out of what is lost: decided, and it cannot be made before the recovery.
	var made, r governor.Receipt
	m.eventually(30*time.Second, "proposal", func() bool {
		made, err = self.Propose(ctx, governor.Change{Kind: scope.Create, Prefix: []byte("n/"), Policy: anchorsOf(3), Operator: "test"})
		return err == nil
	})
	m.eventually(30*time.Second, "creation that waits", func() bool {
		v, err := self.Show(ctx, nil)
		return err == nil && v.Record.Doing != nil && v.Record.Doing.ID == made.ID
	})
	recoverOn := func(node anchormesh.NodeID) (r governor.Receipt) {
		m.eventually(30*time.Second, "proposal", func() bool {
			r, err = self.Propose(ctx, governor.Change{Kind: scope.Recover, Segment: ids["m"], Survivor: node, Operator: "test"})
			return err == nil
		})
		return r
	}
	// On one that is gone, too: it is given up.
	r = recoverOn(gone)
	m.eventually(30*time.Second, "recovery that waits", func() bool {
		v, err := self.Show(ctx, nil)
		return err == nil && v.Record.Recovering != nil
	})
	if err := self.Withdraw(ctx, r, "test"); err != nil {
		t.Fatal(err)
	}
	if end, err := self.Await(ctx, r); err != nil || end.Outcome != scope.Abandoned || end.Note != "withdrawn by test" {
		t.Errorf("given up: %+v, %v", end, err)
	}
	r = recoverOn(anchormesh.NodeID(survivor))
	for _, receipt := range []governor.Receipt{r, made} {
		if end, err := self.Await(ctx, receipt); err != nil || end.Outcome != scope.Decided {
			t.Fatalf("%s: %+v, %v", receipt.Kind, end, err)
		}
	}
	only := m.client(0)
	m.eventually(30*time.Second, "writes on the survivor", func() bool {
		short, done := context.WithTimeout(ctx, 2*time.Second)
		defer done()
		_, err := only.Put(short, "z/after", "v")
		return err == nil
	})
	if rev := put(ctx, t, only, "a/after", "v"); rev <= last+1<<31 {
		t.Errorf("revision %d after the recovery, %d before", rev, last)
	}
	m.start(1)
	m.start(2)
	m.eventually(60*time.Second, "three voters of the new generation", func() bool {
		list := m.segments(2)
		for _, s := range list {
			d, err := meshpb.FromPB(s.GetDescriptor_())
			if err != nil || len(d.Voters()) != 3 || d.Generation < 1<<16 {
				return false
			}
		}
		return len(list) == 4
	})
	got, err := m.client(1).Get(ctx, "", clientv3.WithPrefix())
	if err != nil || got.Count != 22 {
		t.Errorf("%v keys, %v", got, err)
	}
	put(ctx, t, m.client(2), "b/again", "v")
	m.sound(ctx)
}
