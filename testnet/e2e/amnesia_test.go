package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
	machines "github.com/anchormesh/anchormesh/testnet/torture/target"
)

// powerCut kills a node's process, and has the next start find another run of the machine.
func powerCut(t *testing.T, n *cluster.Node) {
	t.Helper()
	n.Kill()
	if err := machines.Reboot(n.Dir); err != nil {
		t.Fatal(err)
	}
}

// lightSegment is what a node knows of the segment of the light scope.
func lightSegment(ctx context.Context, client *clientv3.Client) (*meshpb.Descriptor, error) {
	reply, err := meshpb.NewMeshClient(client.ActiveConnection()).Segments(ctx, &meshpb.SegmentsRequest{})
	if err != nil {
		return nil, err
	}
	for _, s := range reply.GetSegments() {
		if string(s.GetDescriptor_().GetStart()) == lightPrefix {
			return s.GetDescriptor_(), nil
		}
	}
	return nil, errors.New("no light segment")
}

// anew says what is missing until the light segment is of a later generation, with so many voters.
func anew(ctx context.Context, client *clientv3.Client, old *meshpb.Descriptor, voters int) error {
	d, err := lightSegment(ctx, client)
	if err != nil {
		return err
	}
	have := 0
	for _, a := range d.GetAnchors() {
		if a.GetRole() == meshpb.Role_ROLE_VOTER {
			have++
		}
	}
	if d.GetGeneration() < old.GetGeneration()+1<<16 || have != voters {
		return fmt.Errorf("generation %d of segment %x with %d voters, before %d", d.GetGeneration(), d.GetSegment(), have, old.GetGeneration())
	}
	return nil
}

// lose starts three nodes with a light scope that somebody watches and writes to, and
// returns the watch's channel behind its last event.
func lose(ctx context.Context, t *testing.T, c *cluster.Cluster, via *cluster.Node) (*clientv3.Client, *meshpb.Descriptor, int64, clientv3.WatchChan) {
	t.Helper()
	client := newClient(t, c, via)
	if err := errors.Join(createLight(ctx, client), putLight(ctx, client, 0, 100)); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, func() error { return created(ctx, client) }); err != nil {
		t.Fatal(err)
	}
	d, err := lightSegment(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	watch := client.Watch(clientv3.WithRequireLeader(ctx), lightPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	last, err := client.Put(ctx, lightPrefix+"last", "v")
	if err != nil {
		t.Fatal(err)
	}
	if got := <-watch; len(got.Events) != 1 {
		t.Fatalf("%+v", got)
	}
	return client, d, last.Header.Revision, watch
}

// created says what is missing until the scope around has noted that the light one is made:
// it does one thing at a time.
func created(ctx context.Context, client *clientv3.Client) error {
	history, err := meshpb.NewScopesClient(client.ActiveConnection()).History(ctx, &meshpb.ScopeHistoryRequest{})
	if err == nil && len(history.GetEndings()) == 0 {
		err = errors.New("the scope is still being created")
	}
	return err
}

// cancelled drains a watch whose history is gone, and returns the compact revision. A
// client takes up a stream that broke from where it was.
func cancelled(ctx context.Context, client *clientv3.Client, watch clientv3.WatchChan, from int64) (int64, error) {
	for {
		for resp := range watch {
			if resp.CompactRevision != 0 {
				return resp.CompactRevision, nil
			}
			for _, e := range resp.Events {
				if e.Kv.ModRevision > from+10 { // of before the loss there are some
					return 0, fmt.Errorf("an event behind the loss instead of the end by compaction: %+v", resp)
				}
				from = max(from, e.Kv.ModRevision+1)
			}
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		watch = client.Watch(ctx, lightPrefix, clientv3.WithPrefix(), clientv3.WithRev(from))
	}
}

// The machines of all three anchors lose power at once: the light segment begins anew by
// itself, with what is on the disks, in a new generation, above all old revisions. Who
// watched is told that history is compacted; a lease that ended does not leave keys
// behind; the lineage tells of the loss; and everybody holds the segment again.
func TestALightScopeBeginsAnewWhenAllLosePower(t *testing.T) {
	c := target.Start(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, old, last, watch := lose(ctx, t, c, c.Nodes[0])
	lease, err := client.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, lightPrefix+"leased", "v", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	gone, err := client.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, lightPrefix+"gone", "v", clientv3.WithLease(gone.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Revoke(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		powerCut(t, n)
	}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if err := errors.Join(c.Ready(ctx), until(ctx, func() error { return anew(ctx, client, old, 3) })); err != nil {
		t.Fatalf("%v\n%s", err, c.Nodes[0].LogTail())
	}
	t.Logf("begun anew with three voters %v after the start", time.Since(begun).Round(time.Millisecond))
	floor, err := cancelled(ctx, client, watch, last+1)
	if err != nil || floor <= last {
		t.Fatalf("compact revision %d behind event %d, %v", floor, last, err)
	}
	resp, err := client.Get(ctx, lightPrefix, clientv3.WithPrefix())
	if err != nil || resp.Count != 102 || resp.Header.Revision < floor {
		t.Errorf("%d of 102 keys at %d, %v", resp.Count, resp.Header.Revision, err)
	}
	if _, err := client.Get(ctx, lightPrefix, clientv3.WithPrefix(), clientv3.WithRev(last)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a read at revision %d: %v", last, err)
	}
	put, err := client.Put(ctx, lightPrefix+"after", "v")
	if err != nil || put.Header.Revision <= floor {
		t.Errorf("a put at %v, compacted up to %d, %v", put, floor, err)
	}
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		t.Error(err)
	}
	if got, err := client.Get(ctx, lightPrefix+"leased"); err != nil || got.Count != 0 {
		t.Errorf("a key outlived its lease: %v, %v", got, err)
	}
	reply, err := meshpb.NewMeshClient(client.ActiveConnection()).Lineage(ctx, &meshpb.LineageRequest{Segment: old.GetSegment()})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := lineage.DecodeChain(reply.GetReplica().GetChain())
	if err != nil || !slices.ContainsFunc(chain.Entries(), func(e *lineage.Entry) bool {
		return e.Kind == lineage.Recovered && e.Evidence.Reason == lineage.Recovery && e.Evidence.Operator == "keeper" && !e.Rule.Decision.IsZero()
	}) {
		t.Errorf("the lineage does not tell of the loss, %v", err)
	}
}

// Two of three lose power: the third has forgotten nothing, and the segment begins anew
// on it, or on one that has as much.
func TestALightScopeBeginsAnewWhenTwoLosePower(t *testing.T) {
	if !*everyStep {
		t.Skip("takes half a minute: -args -every-step, which make soak gives")
	}
	c := target.Start(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stays := c.Nodes[2]
	client, old, last, watch := lose(ctx, t, c, stays)
	for _, n := range c.Nodes[:2] {
		powerCut(t, n)
	}
	for _, n := range c.Nodes[:2] {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Ready(ctx), until(ctx, func() error { return anew(ctx, client, old, 3) })); err != nil {
		t.Fatalf("%v\n%s", err, stays.LogTail())
	}
	// The stream was on the node that stayed, and nothing of it broke.
	if floor, err := cancelled(ctx, client, watch, last+1); err != nil || floor <= last {
		t.Fatalf("compact revision %d behind event %d, %v", floor, last, err)
	}
	resp, err := client.Get(ctx, lightPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 101 {
		t.Errorf("%d of 101 keys, %v", resp.Count, err)
	}
}

// reported says what is missing until the log of a home holds a report.
func reported(c *cluster.Cluster) error {
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.LogPath)
		if err != nil {
			return err
		}
		if bytes.Contains(b, []byte("a replica is reported dead")) {
			return nil
		}
	}
	return errors.New("nobody has entered a report")
}

// Two of three lose power, and one of them never returns: no node decides, an operator
// does.
func TestALightScopeWaitsForTheOperatorIfOneNeverReturns(t *testing.T) {
	if !*everyStep {
		t.Skip("takes half a minute: -args -every-step, which make soak gives")
	}
	c := target.Start(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stays := c.Nodes[2]
	client, old, _, _ := lose(ctx, t, c, stays)
	powerCut(t, c.Nodes[0])
	powerCut(t, c.Nodes[1])
	if err := c.Nodes[0].Start(); err != nil {
		t.Fatal(err)
	}
	// Its report stands in the keeper's log, and nothing follows from it.
	if err := until(ctx, func() error { return reported(c) }); err != nil {
		t.Fatalf("%v\n%s", err, stays.LogTail())
	}
	if err := anew(ctx, client, old, 1); err == nil {
		t.Fatal("it began anew without a majority of reports")
	}
	scopes := meshpb.NewScopesClient(client.ActiveConnection())
	recovered := false
	if err := until(ctx, func() error {
		if !recovered {
			if _, err := scopes.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: old.GetSegment(), Survivor: stays.Name, Operator: "test"}); err != nil {
				return err
			}
			recovered = true
		}
		return anew(ctx, client, old, 1)
	}); err != nil {
		t.Fatalf("%v\n%s", err, stays.LogTail())
	}
	resp, err := client.Get(ctx, lightPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 101 {
		t.Errorf("%d of 101 keys, %v", resp.Count, err)
	}
}
