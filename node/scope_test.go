package node_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
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
		return err == nil || ctx.Err() != nil || !errors.Is(err, governor.ErrUnavailable) && !strings.Contains(err.Error(), "changing")
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
