package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/verify"
)

// line makes a scope, or amends it, so that its revisions are on the line asked for, and
// waits until they are.
func (m *testMesh) line(ctx context.Context, prefix string, line policy.Line) {
	m.t.Helper()
	c := governor.Change{Kind: scope.Create, Prefix: []byte(prefix), Policy: &policy.Policy{Anchors: policy.Anchors{Count: 3}, Line: line}}
	if _, err := m.scopes(0).Show(ctx, c.Prefix); err == nil {
		c.Kind, c.AnyVersion = scope.Amend, true
	}
	m.mustGovern(ctx, 0, c)
	m.onLine(ctx, prefix, map[policy.Line]string{policy.Own: prefix}[line])
}

// cut is split, when nothing else changes there.
func (m *testMesh) cut(at string) {
	m.t.Helper()
	m.eventually(20*time.Second, "split at "+at, func() bool {
		err := m.trySplit(0, at, false)
		if err != nil && status.Code(err) == codes.FailedPrecondition && !strings.Contains(err.Error(), "changing") {
			m.t.Fatal(err)
		}
		return err == nil
	})
}

// onLine waits until all segments of a scope are on a line.
func (m *testMesh) onLine(ctx context.Context, prefix, line string) {
	m.t.Helper()
	keys := anchormesh.PrefixRange([]byte(prefix))
	m.eventually(20*time.Second, fmt.Sprintf("line %q of %q", line, prefix), func() bool {
		all := m.look(ctx).Owners
		return len(all) > 0 && !slices.ContainsFunc(all, func(o verify.Owner) bool {
			return keys.Covers(o.Descriptor.Range) && string(o.Descriptor.Line) != line
		})
	})
}

// A scope of one segment takes a line of its own, counts by one there without asking
// anybody, is cut, takes stamps from its own home, and goes back; revisions never go
// back in it, and reads over all see everything.
func TestScopeTakesItsOwnLineAndGoesBack(t *testing.T) {
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	m.line(ctx, "/b/", policy.Shared)
	put(ctx, t, c, "/a/x", "1")
	last := put(ctx, t, c, "/b/x", "1")
	grown := func(what string, rev int64) {
		t.Helper()
		if rev <= last {
			t.Errorf("%s: revision %d behind %d", what, rev, last)
		}
		last = rev
	}
	m.line(ctx, "/b/", policy.Own)
	grown("first on the own line", put(ctx, t, c, "/b/x", "2"))
	for k := range 50 {
		put(ctx, t, c, "/a/x", fmt.Sprint(k))
	}
	if rev := put(ctx, t, c, "/b/y", "1"); rev != last+1 {
		t.Errorf("on its own line the scope counts from %d to %d", last, rev)
	} else {
		last = rev
	}
	all, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil || all.Count != 3 {
		t.Fatalf("a read over both lines: %v, %v", all, err)
	}
	grown("behind a read over both", put(ctx, t, c, "/b/y", "2"))
	if last <= all.Header.Revision {
		t.Errorf("a write got %d behind a snapshot at %d", last, all.Header.Revision)
	}
	m.cut("/b/m")
	grown("cut", put(ctx, t, c, "/b/z", "1"))
	m.line(ctx, "/b/", policy.Shared)
	grown("back", put(ctx, t, c, "/b/z", "2"))
	grown("back", put(ctx, t, c, "/b/a", "2"))
	m.line(ctx, "/b/", policy.Own)
	grown("again", put(ctx, t, c, "/b/z", "3"))
	grown("again", put(ctx, t, c, "/b/a", "3"))
	all, err = c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || all.Count != 5 {
		t.Fatalf("a read over both lines: %v, %v", all, err)
	}
	m.mustGovern(ctx, 1, governor.Change{Kind: scope.Delete, Prefix: []byte("/b/")})
	grown("deleted", put(ctx, t, c, "/b/z", "4"))
	m.onLine(ctx, "/b/", "")
	m.sound(ctx)
}

// Transactions over a line that counts, one with stamps and the root's: all of it or
// nothing, at one revision above everything on each line.
func TestTransactionsOverLines(t *testing.T) {
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := m.client()
	m.cut("/c/m")
	m.line(ctx, "/b/", policy.Own)
	m.line(ctx, "/c/", policy.Own)
	keys := []string{"/a", "/b/x", "/c/a", "/c/z"}
	last := map[string]int64{}
	for k := range 20 {
		for range k % 3 {
			for _, key := range keys[k%4:] {
				last[key] = put(ctx, t, c, key, "between")
			}
		}
		value := fmt.Sprint(k)
		var ops []clientv3.Op
		for _, key := range keys {
			ops = append(ops, clientv3.OpPut(key, value))
		}
		resp, err := c.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		for key, rev := range last {
			if resp.Header.Revision <= rev {
				t.Fatalf("a transaction was committed at %d, %s had been written at %d", resp.Header.Revision, key, rev)
			}
		}
		for _, key := range keys { // one line alone, and all
			got, err := c.Get(ctx, key)
			if err != nil || string(got.Kvs[0].Value) != value || got.Kvs[0].ModRevision != resp.Header.Revision {
				t.Fatalf("%s behind transaction %d at %d: %v, %v", key, k, resp.Header.Revision, got, err)
			}
			last[key] = resp.Header.Revision
		}
		all, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil || all.Count != 4 {
			t.Fatal(all, err)
		}
	}
	del, err := c.Delete(ctx, "/", clientv3.WithPrefix())
	if err != nil || del.Deleted != 4 {
		t.Fatalf("deleted over all lines: %v, %v", del, err)
	}
	if _, err := c.Compact(ctx, del.Header.Revision); err != nil {
		t.Fatal(err)
	}
	hash := int64(-1)
	for i := range m.nodes {
		h, err := c.HashKV(ctx, m.nodes[i].cfg.Listen.Client, 0)
		if err != nil || hash >= 0 && hash != int64(h.Hash) {
			t.Errorf("node %d: hash %v, before %d, %v", i, h, hash, err)
			continue
		}
		hash = int64(h.Hash)
	}
	m.sound(ctx)
}
