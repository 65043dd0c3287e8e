package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
)

// strong is a policy whose writes need half of the trust.
func strong(change func(*policy.Policy)) *policy.Policy {
	p := &policy.Policy{
		Class: anchormesh.Strong, Anchors: policy.Anchors{Count: 3},
		Approvals: policy.Approvals{Threshold: policy.Fraction{Num: 1, Den: 2}},
	}
	if change != nil {
		change(p)
	}
	return p
}

// A strong scope takes every kind of write, refuses what its rules refuse with the rule
// and the approver, and its neighbours feel nothing of it.
func TestWritesOfAStrongScope(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: strong(func(p *policy.Policy) {
		p.Writes.CreateOnly = true
		p.Writes.Rules = []policy.Rule{{Name: "short", Expr: "size < 100"}}
	})})
	for i := range m.nodes {
		c := m.client(i)
		key := fmt.Sprintf("/s/k%d", i)
		put(ctx, t, c, key, "v")
		wantRefusal(t, second(c.Put(ctx, key, "again")), codes.FailedPrecondition, `rule create_only of scope "/s/"`, "refused by anchor")
		wantRefusal(t, second(c.Put(ctx, key+"-long", strings.Repeat("x", 100))), codes.FailedPrecondition, "rule short", "refused by anchor")
		put(ctx, t, c, fmt.Sprintf("/t/k%d", i), "v")
		put(ctx, t, c, fmt.Sprintf("/t/k%d", i), "again")
	}
	c := m.client(0)
	if r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("/s/k0"), "=", 1)).Then(clientv3.OpDelete("/s/k0"), clientv3.OpPut("/s/z", "1")).Commit(); err != nil || !r.Succeeded {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := c.Delete(ctx, "/s/k1", clientv3.WithRange("/s/z")); err != nil || r.Deleted != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "/s/leased", "1", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	// Over two segments, one of them strong: the prepare is approved.
	if r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("/t/k0"), "=", 2)).Then(clientv3.OpPut("/t/x", "1"), clientv3.OpPut("/s/x", "1")).Commit(); err != nil || !r.Succeeded {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = c.Txn(ctx).Then(clientv3.OpPut("/t/x", "2"), clientv3.OpPut("/s/x", "2")).Commit()
	wantRefusal(t, err, codes.FailedPrecondition, "rule create_only")
	if r, err := c.Get(ctx, "/", clientv3.WithPrefix()); err != nil || len(r.Kvs) != 3+1+2 {
		t.Fatalf("%v, %v", r, err)
	}
}

func second[T any](_ T, err error) error { return err }

func wantRefusal(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%v (%s), want %s", err, status.Code(err), code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not say %q", err, p)
		}
	}
}

// Leaders, policies and weights change under writers: nothing that was acknowledged is
// lost, nothing is applied twice, and everybody goes on.
func TestApprovalsSurviveChanges(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: strong(nil)})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	counts := make([]int, 6)
	for w := range counts {
		c := m.client()
		writers.Go(func() { counts[w] = count(ctx, t, c, fmt.Sprintf("/s/%d", w), stop) })
	}
	for round := range 4 {
		m.handOver(ctx)
		m.mustGovern(ctx, round%3, governor.Change{Kind: scope.Amend, Prefix: []byte("/s/"), AnyVersion: true, Policy: strong(func(p *policy.Policy) {
			p.Priority = 1 + round
			if round == 1 {
				p.Class, p.Approvals = anchormesh.Normal, policy.Approvals{}
			}
		})})
	}
	close(stop)
	writers.Wait()
	total := 0
	for w, n := range counts {
		r, err := m.client(0).Get(ctx, fmt.Sprintf("/s/%d", w))
		if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != fmt.Sprint(n) || r.Kvs[0].Version != int64(n) {
			t.Errorf("writer %d counted to %d: %v, %v", w, n, r, err)
		}
		total += n
	}
	if total < 100 {
		t.Errorf("only %d writes in four changes", total)
	}
}

// A segment that is cut goes on with approved writes at once: its leader is the same, in the same
// term, and voters answer no question below one they have answered.
func TestApprovalsGoOnBehindASplit(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: strong(nil)})
	c := m.client()
	for k := range 600 { // as many tries, 20 ms apart, would have to fail before one is answered
		put(ctx, t, c, "/s/a", fmt.Sprint(k))
	}
	m.split("/s/m")
	for _, key := range []string{"/s/a", "/s/z"} {
		m.eventually(5*time.Second, "write of "+key, func() bool { _, err := c.Put(ctx, key, "behind"); return err == nil })
	}
}

// count puts 1, 2, 3 and so on, each on the condition that the one before is there, until
// it is stopped, and returns how far it came: what was lost or doubled shows in the
// key's version.
func count(ctx context.Context, t *testing.T, c *clientv3.Client, key string, stop chan struct{}) int {
	n := 0
	for {
		select {
		case <-stop:
			return n
		default:
		}
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", n)).Then(clientv3.OpPut(key, fmt.Sprint(n+1))).Commit()
		switch {
		case err == nil && !r.Succeeded:
			t.Errorf("%s: somebody else wrote behind version %d", key, n)
			return n
		case err == nil:
			n++
			continue
		case ctx.Err() != nil:
			t.Error(ctx.Err())
			return n
		case status.Code(err) != codes.Unavailable:
			t.Errorf("%s: %v", key, err)
		}
		g, err := c.Get(ctx, key) // the outcome was unknown
		if err != nil {
			continue
		}
		if len(g.Kvs) > 0 {
			if n = int(g.Kvs[0].Version); string(g.Kvs[0].Value) != fmt.Sprint(n) {
				t.Errorf("%s: version %d holds %s", key, n, g.Kvs[0].Value)
			}
		}
	}
}

// handOver moves the leaderships of one node to another.
func (m *testMesh) handOver(ctx context.Context) {
	m.t.Helper()
	from := m.leader()
	to := (from + 1) % len(m.nodes)
	c := m.client(from)
	members, err := c.MemberList(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, member := range members.Members {
		if member.Name == m.nodes[to].cfg.Identity.Name {
			_, err = c.MoveLeader(ctx, member.ID)
		}
	}
	if err != nil {
		m.t.Logf("leaderships stay: %v", err)
	}
}
