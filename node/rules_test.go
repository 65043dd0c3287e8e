package node_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/client"
	"github.com/anchormesh/anchormesh/node/governor"
)

// ruled makes a scope with a policy of three anchors.
func (m *testMesh) ruled(ctx context.Context, prefix string, change func(*policy.Policy)) {
	m.t.Helper()
	p := anchorsOf(3)
	change(p)
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte(prefix), Policy: p})
}

// refused wants a refusal with a code, whose text names what is given.
func refused(t *testing.T, what string, err error, code codes.Code, names ...string) {
	t.Helper()
	var is interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &is) || is.GRPCStatus().Code() != code {
		t.Errorf("%s: %v, want %v", what, err, code)
		return
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %q does not name %s", what, err, name)
		}
	}
}

// What scopes refuse reaches an etcd client through any node, and other scopes do not
// notice.
func TestScopesKeepTheirRules(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "/free/a", "v")
	m.ruled(ctx, "/log/", func(p *policy.Policy) {
		p.Writes.AppendOnly = true
		p.Writes.Rules = []policy.Rule{{Name: "digits", Expr: `deleted || string(new).matches('^[0-9]*$')`}}
	})
	m.ruled(ctx, "/small/", func(p *policy.Policy) { p.Quota = policy.Quota{Bytes: 200, Keys: 5} })
	for i := range 3 {
		one := m.client(i)
		key := fmt.Sprintf("/log/%d", i)
		put(ctx, t, one, key, "1")
		put(ctx, t, one, key, "12")
		_, err := one.Put(ctx, key, "2")
		refused(t, "another value", err, codes.FailedPrecondition, "append_only", `"/log/"`, key)
		_, err = one.Put(ctx, key, "12x")
		refused(t, "no digits", err, codes.FailedPrecondition, "digits", `"/log/"`, key)
		_, err = one.Delete(ctx, "/", clientv3.WithPrefix()) // over all scopes: nothing goes
		refused(t, "a deletion of everything", err, codes.FailedPrecondition, "append_only", `"/log/"`)
		_, err = one.Txn(ctx).Then(clientv3.OpPut("/free/a", "w"), clientv3.OpPut(key, "3")).Commit()
		refused(t, "a transaction over scopes", err, codes.FailedPrecondition, "append_only", key)
		if _, err := one.Txn(ctx).Then(clientv3.OpPut("/free/a", "v"), clientv3.OpPut(key, "123")).Commit(); err != nil {
			t.Error(err)
		}
	}
	if r, err := c.Get(ctx, "/free/a"); err != nil || string(r.Kvs[0].Value) != "v" {
		t.Errorf("the key of another scope: %v, %v", r, err)
	}
	// A full scope: deletes and compaction go on, others too, and it recovers by itself.
	full := false
	for i := range 10 {
		if _, err := c.Put(ctx, fmt.Sprintf("/small/%d", i), "v"); err != nil {
			if full = true; !errors.Is(err, rpctypes.ErrNoSpace) || i != 5 {
				t.Fatalf("key %d: %v", i, err)
			}
			break
		}
	}
	if _, err := c.Put(ctx, "/small/0", strings.Repeat("v", 200)); !full || !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("200 bytes more: %v", err)
	}
	put(ctx, t, c, "/free/b", strings.Repeat("v", 1000))
	for _, s := range m.segments(0) {
		if q := s.GetQuota(); string(s.GetDescriptor_().GetStart()) == "/small/" && (q.GetKeys() != 5 || q.GetKeysLimit() != 5 || q.GetBytesLimit() != 200 || q.GetFull() == 0) {
			t.Errorf("the scope shows %v", q)
		}
	}
	if a, err := c.AlarmList(ctx); err != nil || len(a.Alarms) > 0 {
		t.Errorf("alarms %v, %v", a, err)
	}
	r, err := c.Delete(ctx, "/small/", clientv3.WithPrefix())
	if err != nil || r.Deleted != 5 {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision); err != nil {
		t.Error(err)
	}
	put(ctx, t, c, "/small/again", strings.Repeat("v", 100))
	m.sound(ctx)
}

// A scope that wants signatures takes writes that one of its writers signed, once, over
// whatever connection.
func TestSignedWritesOverAMesh(t *testing.T) {
	m := newMesh(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "/free", "v")
	r, err := c.Get(ctx, "/free")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := client.NewSigner(r.Header.ClusterId, "/s/", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	p := anchorsOf(1)
	p.Writes.Writers = []string{signer.Peer()}
	p.Writes.Signed, p.Class, p.Acks.Count = true, 2, 1
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: p})
	cfg := clientv3.Config{Endpoints: c.Endpoints()}
	cfg.DialOptions = append(cfg.DialOptions, signer.DialOption())
	signs, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer signs.Close()
	for i := range 10 {
		put(ctx, t, signs, fmt.Sprintf("/s/%d", i), "v")
	}
	if _, err := signs.Txn(ctx).Then(clientv3.OpPut("/s/a", "v"), clientv3.OpDelete("/s/", clientv3.WithPrefix())).Commit(); err == nil {
		t.Error("a transaction that puts and deletes one key") // as etcd
	}
	if _, err := signs.Txn(ctx).Then(clientv3.OpPut("/s/b", "v"), clientv3.OpDelete("/s/1", clientv3.WithPrefix())).Commit(); err != nil {
		t.Error(err)
	}
	_, err = signs.Delete(ctx, "/", clientv3.WithPrefix())
	refused(t, "over several segments", err, codes.PermissionDenied, "signed", "spans several")
	_, err = c.Put(ctx, "/s/9", "v")
	refused(t, "without a signature", err, codes.PermissionDenied, "signed", `"/s/"`)
}

// Requests per second, history by writes, and who answers reads, are those of the scope.
func TestScopesHaveTheirPaceAndHistory(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "/free", "v")
	m.ruled(ctx, "/h/", func(p *policy.Policy) {
		p.Retention = policy.Retention{Writes: 10, OwnCompaction: true}
		p.Reads.LeaderOnly = true
	})
	m.ruled(ctx, "/slow/", func(p *policy.Policy) { p.Quota.RequestsPerSecond = 5 })
	first := put(ctx, t, c, "/h/k", "0")
	if _, err := c.Compact(ctx, first); err != nil { // of everything, but for /h/
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "/free", clientv3.WithRev(first-1)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("below the compaction: %v", err)
	}
	for i := range 3 { // serializable reads, by the leader alone: nothing is behind
		put(ctx, t, c, "/h/k", fmt.Sprint(i))
		r, err := m.client(i).Get(ctx, "/h/k", clientv3.WithSerializable())
		if err != nil || string(r.Kvs[0].Value) != fmt.Sprint(i) {
			t.Errorf("node %d: %v, %v", i, r, err)
		}
	}
	m.eventually(30*time.Second, "a compaction by writes", func() bool {
		put(ctx, t, c, "/h/k", "v")
		_, err := c.Get(ctx, "/h/k", clientv3.WithRev(first))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
	m.eventually(30*time.Second, "a request too many", func() bool {
		for range 20 {
			if _, err := c.Put(ctx, "/slow/k", "v"); err != nil {
				if !errors.Is(err, rpctypes.ErrTooManyRequests) {
					t.Errorf("in a hurry: %v", err)
				}
				return true
			}
		}
		return false
	})
	for range 50 {
		put(ctx, t, c, "/free", "v")
	}
	m.eventually(10*time.Second, "a request in time", func() bool {
		_, err := c.Put(ctx, "/slow/k", "v")
		return err == nil
	})
}

// A scope of two segments has one quota: what one half cannot hold, the other's room is
// given to, and both together never hold more.
func TestAQuotaFollowsItsUse(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.client()
	put(ctx, t, c, "/free", "v")
	m.ruled(ctx, "/q/", func(p *policy.Policy) { p.Quota.Keys = 40 })
	for i := range 10 {
		put(ctx, t, c, fmt.Sprintf("/q/a%02d", i), "v")
	}
	m.split("/q/m")
	n, last := 10, error(nil)
	m.eventually(60*time.Second, "a half that has all of the quota", func() bool {
		for n < 45 {
			if _, last = c.Put(ctx, fmt.Sprintf("/q/a%02d", n), "v"); last != nil {
				break
			}
			n++
		}
		return n >= 38 // a key or two stay behind where numbers are rounded
	})
	if !errors.Is(last, rpctypes.ErrNoSpace) || n > 40 {
		t.Errorf("%d keys of 40, then %v", n, last)
	}
	for i := range 20 {
		if _, err := c.Put(ctx, fmt.Sprintf("/q/z%02d", i), "v"); err == nil {
			n++
		} else if !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Fatal(err)
		}
	}
	if n > 40 {
		t.Errorf("%d keys in a scope of 40", n)
	}
	if _, err := c.Delete(ctx, "/q/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	put(ctx, t, c, "/q/z", "v")
	m.sound(ctx)
}
