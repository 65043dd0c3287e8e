package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A mesh grows from one node to three anchors and on, over zones; whoever is no
// anchor serves everything all the same.
func TestGrowth(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	zones := []string{"east", "east", "west", "west", "north"}
	l.add("--zone", zones[0]).start()
	l.awaitVoters(1)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := l.dial().Put(ctx, "alone", "1"); err != nil {
		t.Fatalf("a genesis node alone: %v", err)
	}
	l.add("--zone", zones[1]).start()
	l.eventually(30*time.Second, "a learner on the second node", func() error {
		s, err := l.nodes[1].segment()
		if err == nil && len(s.Anchors) != 2 {
			err = fmt.Errorf("anchors %+v", s.Anchors)
		}
		return err
	})
	for _, zone := range zones[2:] {
		l.add("--zone", zone).start()
	}
	l.awaitVoters(3)
	s, err := l.nodes[0].segment()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("anchors: %+v", s.Anchors)
	checkForwarders(ctx, t, l, s)
}

// Where there is a choice the anchors spread over the zones: here all nodes are
// there before the mesh is.
func TestAnchorsSpreadOverZones(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, zone := range []string{"east", "east", "east", "west", "north"} {
		l.add("--zone", zone)
	}
	for _, n := range l.nodes[1:] {
		n.start()
	}
	for _, n := range l.nodes[1:] {
		l.eventually(30*time.Second, n.name+" to meet the others", func() error {
			if m := n.members(); len(m) != 4 {
				return fmt.Errorf("it knows %d nodes", len(m))
			}
			return nil
		})
	}
	l.nodes[0].start()
	l.awaitVoters(3)
	s, err := l.nodes[0].segment()
	if err != nil {
		t.Fatal(err)
	}
	zones := map[string]bool{}
	for _, a := range s.Anchors {
		zones[a.Zone] = true
	}
	if len(zones) != 3 {
		t.Errorf("anchors %+v, want three zones", s.Anchors)
	}
}

// checkForwarders drives every call through the nodes that hold no replica.
func checkForwarders(ctx context.Context, t *testing.T, l *lab, s segmentJSON) {
	t.Helper()
	forwarders := 0
	for _, n := range l.nodes {
		id := n.id()
		if slices.ContainsFunc(s.Anchors, func(a anchorJSON) bool { return a.Node == id }) {
			continue
		}
		forwarders++
		c := l.dial(n)
		forwardWrites(ctx, t, c, n.name)
		forwardWatch(ctx, t, c, n.name)
		forwardLease(ctx, t, c, n.name)
		forwardLarge(ctx, t, c, n.name)
		if _, err := c.Status(ctx, c.Endpoints()[0]); err != nil {
			t.Errorf("%s: status: %v", n.name, err)
		}
		if _, err := c.HashKV(ctx, c.Endpoints()[0], 0); err != nil {
			t.Errorf("%s: hash: %v", n.name, err)
		}
		for _, path := range []string{"healthz", "readyz"} {
			if code, body := n.get(path); code != http.StatusOK {
				t.Errorf("%s: /%s: %d %s", n.name, path, code, body)
			}
		}
	}
	if forwarders < 2 {
		t.Errorf("%d nodes are no anchors, want 2 of 5", forwarders)
	}
}

func forwardWrites(ctx context.Context, t *testing.T, c *clientv3.Client, name string) {
	t.Helper()
	key := "forward/" + name
	if _, err := c.Put(ctx, key, "1"); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	txn, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", "1")).
		Then(clientv3.OpPut(key, "2"), clientv3.OpGet(key)).Commit()
	if err != nil || !txn.Succeeded || len(txn.Responses) != 2 {
		t.Fatalf("%s: txn %v, %v", name, txn, err)
	}
	for _, opts := range [][]clientv3.OpOption{nil, {clientv3.WithSerializable()}} {
		if got, err := c.Get(ctx, key, opts...); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "2" {
			t.Errorf("%s: get %v, %v", name, got, err)
		}
	}
	if gone, err := c.Delete(ctx, key, clientv3.WithPrevKV()); err != nil || gone.Deleted != 1 || string(gone.PrevKvs[0].Value) != "2" {
		t.Errorf("%s: delete %v, %v", name, gone, err)
	}
}

func forwardWatch(ctx context.Context, t *testing.T, c *clientv3.Client, name string) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := "watched/" + name
	watch := c.Watch(ctx, key, clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
	if r := <-watch; !r.Created {
		t.Fatalf("%s: watch: %+v", name, r)
	}
	for i := range 20 {
		if _, err := c.Put(ctx, key, fmt.Sprint(i)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for i := 0; i < 20; {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("%s: watch ended: %v", name, r.Err())
		}
		for _, e := range r.Events {
			if string(e.Kv.Value) != fmt.Sprint(i) {
				t.Fatalf("%s: event %d is %v", name, i, e)
			}
			i++
		}
	}
}

func forwardLease(ctx context.Context, t *testing.T, c *clientv3.Client, name string) {
	t.Helper()
	lease, err := c.Grant(ctx, 30)
	if err != nil {
		t.Fatalf("%s: grant: %v", name, err)
	}
	if _, err := c.Put(ctx, "leased/"+name, "x", clientv3.WithLease(lease.ID)); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if r, err := c.KeepAliveOnce(ctx, lease.ID); err != nil || r.TTL != 30 {
		t.Errorf("%s: keep-alive %v, %v", name, r, err)
	}
	if r, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys()); err != nil || len(r.Keys) != 1 {
		t.Errorf("%s: time to live %v, %v", name, r, err)
	}
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		t.Errorf("%s: revoke: %v", name, err)
	}
}

// forwardLarge reads an answer that is larger than a call between nodes may be.
func forwardLarge(ctx context.Context, t *testing.T, c *clientv3.Client, name string) {
	t.Helper()
	const keys, size = 12, 400 << 10
	for i := range keys {
		if _, err := c.Put(ctx, fmt.Sprintf("large/%s/%02d", name, i), strings.Repeat("v", size)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	got, err := c.Get(ctx, "large/"+name+"/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != keys || len(got.Kvs[keys-1].Value) != size {
		t.Errorf("%s: %d bytes through a node that is no anchor: %v", name, keys*size, err)
	}
}

// get asks the node's HTTP port.
func (n *labNode) get(path string) (status int, body string) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + n.http + "/" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// An anchor's node that stays away is replaced by a free one. When it returns it
// learns that, lets its replica go and serves clients as any other.
func TestReplacement(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 4, "--replace-dead-after", "10s")
	s, err := l.nodes[0].segment()
	if err != nil {
		t.Fatal(err)
	}
	leader := l.leader()
	var gone, free *labNode
	for _, n := range l.nodes {
		switch {
		case !slices.Contains(s.voters(), n.id()):
			free = n
		case n != leader:
			gone = n
		}
	}
	goneID, freeID := gone.id(), free.id()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := l.dial(leader)
	if _, err := c.Put(ctx, "before", "1"); err != nil {
		t.Fatal(err)
	}
	gone.kill()
	begin := time.Now()
	l.eventually(90*time.Second, "the replacement", func() error {
		s, err := leader.segment()
		if err == nil && (slices.Contains(s.voters(), goneID) || !slices.Contains(s.voters(), freeID)) {
			err = fmt.Errorf("voters %v", s.voters())
		}
		return err
	})
	t.Logf("replaced after %v", time.Since(begin).Round(time.Millisecond))
	if took := time.Since(begin); took < 10*time.Second {
		t.Errorf("replaced after %v, before the limit", took)
	}
	if _, err := c.Put(ctx, "while away", "2"); err != nil {
		t.Fatal(err)
	}
	gone.start()
	l.eventually(60*time.Second, "the retirement", func() error {
		if !strings.Contains(gone.run.output.String(), "replica retires") {
			return errors.New("no word of it")
		}
		s, err := gone.segment()
		if err == nil && s.Local {
			err = errors.New("it still holds a replica")
		}
		return err
	})
	got, err := l.dial(gone).Get(ctx, "while away")
	if err != nil || len(got.Kvs) != 1 {
		t.Errorf("a read through the node that returned: %v, %v", got, err)
	}
	gone.kill()
	gone.start() // nothing is left to retire
	l.awaitVoters(3)
	if strings.Contains(gone.run.output.String(), "retires") {
		t.Errorf("it retired twice:\n%s", gone.run.output.String())
	}
}

// A node that returns with other ports is found again.
func TestReturnUnderANewAddress(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, n := range l.nodes[1:] {
		id := n.id()
		n.kill()
		n.move()
		n.start()
		l.awaitVoters(3)
		put, err := l.dial(l.nodes[0]).Put(ctx, "moved", n.name)
		if err != nil {
			t.Fatal(err)
		}
		own := l.dial(n)
		l.eventually(30*time.Second, n.name+" to catch up", func() error {
			got, err := own.Get(ctx, "moved", clientv3.WithSerializable())
			if err == nil && (len(got.Kvs) == 0 || got.Kvs[0].ModRevision != put.Header.Revision) {
				err = fmt.Errorf("it has %v", got.Kvs)
			}
			return err
		})
		for _, m := range l.nodes[0].members() {
			if m.ID == id && !strings.HasSuffix(m.PeerAddrs[0], n.peer[strings.LastIndex(n.peer, ":")+1:]) {
				t.Errorf("the others know %s at %v, it is at %s", n.name, m.PeerAddrs, n.peer)
			}
		}
	}
}
