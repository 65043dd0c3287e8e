package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// placed is a segment and the nodes that vote in it.
type placed struct {
	ID     string
	Start  []byte
	End    []byte
	Joint  bool
	Voters []string
}

// placement returns the segments as a node sees them.
func (l *lab) placement(by *labNode) ([]placed, error) {
	out, errs, code := l.cli("segments", "-o", "json", "--endpoint", by.client, "--timeout", "2s")
	if code != 0 {
		return nil, errors.New(errs)
	}
	var answer struct {
		Segments []struct {
			placed
			Anchors []anchorJSON
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return nil, err
	}
	var list []placed
	for _, s := range answer.Segments {
		s.placed.Voters = segmentJSON{Anchors: s.Anchors}.voters()
		list = append(list, s.placed)
	}
	return list, nil
}

// at returns the segment that begins at a key, once it has so many voters.
func (l *lab) at(by *labNode, start string, voters int) placed {
	l.t.Helper()
	var found placed
	l.eventually(60*time.Second, fmt.Sprintf("%d voters of the segment at %q", voters, start), func() error {
		all, err := l.placement(by)
		for _, s := range all {
			if string(s.Start) == start && len(s.Voters) == voters && !s.Joint {
				found = s
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%+v", all))
	})
	return found
}

// The root scope's home, which keeps the leases, loses its majority (counterexamples 16c
// and 19). A scope with a line of its own that is elsewhere goes on, with its watches,
// and with the leases that it knows; what needs the home is refused, within the caller's time. Watches that
// require a leader end where none is, and no others; what waited goes on when the home is back.
func TestTheLeasesHomeIsGone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	l := labMesh(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	l.mustScope(l.nodes[0], "create", "own/", "-f", l.document("own.yaml", "line: own\nanchors: {count: 1}\n"))
	home, own := l.at(l.nodes[0], "", 3), l.at(l.nodes[0], "own/", 1)
	var lost, left []*labNode // left: whoever has the scope, and who has nothing
	for _, n := range l.nodes {
		if slices.Contains(home.Voters, n.id()) && !slices.Contains(own.Voters, n.id()) && len(lost) < 2 {
			lost = append(lost, n)
		} else {
			left = append(left, n)
		}
	}
	c := l.dial(left...)
	known, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := c.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "own/leased", "v", clientv3.WithLease(known.ID)); err != nil {
		t.Fatal(err)
	}
	watch := func(ctx context.Context, prefix string) clientv3.WatchChan {
		w := c.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-w
		return w
	}
	ended := make(chan error, len(left))
	for _, n := range left { // with a replica of the home, and without one
		requires := l.dial(n).Watch(clientv3.WithRequireLeader(ctx), "a/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-requires
		go func() {
			r := <-requires
			ended <- fmt.Errorf("%s: %w", n.name, cmp.Or(r.Err(), errors.New("it is shown something")))
		}()
	}
	patient, lives := watch(ctx, "a/"), watch(clientv3.WithRequireLeader(ctx), "own/")
	for _, n := range lost {
		n.kill()
	}
	try := func(what func(ctx context.Context) error) error {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		return what(short)
	}
	put := func(key string, opts ...clientv3.OpOption) error {
		return try(func(ctx context.Context) error { _, err := c.Put(ctx, key, "w", opts...); return err })
	}
	l.eventually(20*time.Second, "writes of the scope that is elsewhere", func() error { return put("own/k") })
	if r := <-lives; r.Err() != nil || len(r.Events) == 0 || string(r.Events[0].Kv.Key) != "own/k" {
		t.Errorf("its watch shows %+v, %v", r, r.Err())
	}
	l.eventually(10*time.Second, "a put on a lease that the scope knows", func() error { return put("own/leased", clientv3.WithLease(known.ID)) })
	if err := put("own/first", clientv3.WithLease(strange.ID)); err == nil {
		t.Error("a lease's first key in a segment was taken without the leases' home")
	}
	err = try(func(ctx context.Context) error { _, err := c.Grant(ctx, 60); return err })
	if err == nil {
		t.Error("a lease was granted without the leases' home")
	}
	t.Logf("a grant: %v", err)
	for range left {
		select {
		case err := <-ended:
			if !errors.Is(err, rpctypes.ErrNoLeader) {
				t.Errorf("a watch that requires a leader: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("a watch that requires a leader where there is none lives on")
		}
	}
	select {
	case r := <-patient:
		t.Errorf("a watch that requires no leader got %+v, %v", r, r.Err())
	default:
	}
	for _, n := range lost {
		n.start()
	}
	l.eventually(30*time.Second, "writes of the home", func() error { return put("a/k") })
	if r := <-patient; r.Err() != nil || len(r.Events) == 0 || !strings.HasPrefix(string(r.Events[0].Kv.Key), "a/") {
		t.Errorf("the watch that waited shows %+v, %v", r, r.Err())
	}
	l.eventually(30*time.Second, "a grant", func() error {
		return try(func(ctx context.Context) error { _, err := c.Grant(ctx, 60); return err })
	})
}

// Counterexample 12: numbers that clients name move no line of revisions, whether it has
// one segment, several, or its scope a line of its own; what lies above it is the future,
// as in etcd.
func TestNumbersOfClientsMoveNoLine(t *testing.T) {
	l := newLab(t)
	l.add().start()
	l.awaitVoters(1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := l.dial()
	rude := func(when string, prefixes ...string) {
		t.Helper()
		const far = int64(1) << 62
		for _, prefix := range prefixes {
			before, err := c.Put(ctx, prefix+"k", "v")
			if err != nil {
				t.Fatal(err)
			}
			ranged := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(far)}
			if _, err := c.Get(ctx, prefix, ranged...); !errors.Is(err, rpctypes.ErrFutureRev) {
				t.Errorf("%s: a range of %q at 2^62: %v", when, prefix, err)
			}
			if _, err := c.Get(ctx, prefix, append(ranged, clientv3.WithSerializable())...); !errors.Is(err, rpctypes.ErrFutureRev) {
				t.Errorf("%s: a serializable range of %q at 2^62: %v", when, prefix, err)
			}
			if _, err := c.Txn(ctx).Then(clientv3.OpGet(prefix+"k", clientv3.WithRev(far)), clientv3.OpPut(prefix+"k", "no")).Commit(); !errors.Is(err, rpctypes.ErrFutureRev) {
				t.Errorf("%s: a transaction in %q that reads at 2^62: %v", when, prefix, err)
			}
			if _, err := c.Compact(ctx, far); !errors.Is(err, rpctypes.ErrFutureRev) {
				t.Errorf("%s: a compaction at 2^62: %v", when, err)
			}
			watched, stop := context.WithCancel(ctx)
			if r := <-c.Watch(watched, prefix, clientv3.WithPrefix(), clientv3.WithRev(far), clientv3.WithCreatedNotify()); !r.Created || r.Err() != nil {
				t.Errorf("%s: a watch of %q from 2^62: %+v, %v", when, prefix, r, r.Err())
			}
			stop()
			after, err := c.Put(ctx, prefix+"k", "w")
			if err != nil || after.Header.Revision <= before.Header.Revision || after.Header.Revision > before.Header.Revision+1000 {
				t.Errorf("%s: %q goes from revision %d to %+v, %v", when, prefix, before.Header.Revision, after, err)
			}
		}
	}
	rude("one segment", "a/")
	l.split("m")
	rude("two segments", "a/", "z/", "")
	l.mustScope(l.nodes[0], "create", "own/", "-f", l.document("own.yaml", "line: own\nanchors: {count: 1}\n"))
	rude("two lines", "a/", "own/", "z/", "")
}
