package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/target"
	machines "github.com/anchormesh/anchormesh/testnet/torture/target"
)

// lightPrefix is the light scope of these tests.
const lightPrefix = "light/"

// createLight makes the light scope and waits until it is in force.
func createLight(ctx context.Context, client *clientv3.Client) error {
	scopes := meshpb.NewScopesClient(client.ActiveConnection())
	created := false
	return until(ctx, func() error {
		if !created {
			_, err := scopes.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte(lightPrefix), Policy: "class: light\nanchors: {count: 3}\n", Operator: "test"})
			if err != nil {
				return err
			}
			created = true
		}
		got, err := scopes.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(lightPrefix)})
		if err == nil && got.GetScope().GetInForce() == 0 {
			err = errors.New("the scope is not in force")
		}
		return err
	})
}

// until repeats f until it has no error.
func until(ctx context.Context, f func() error) error {
	var last error // but for that of ctx's own end
	for {
		err := f()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func putLight(ctx context.Context, client *clientv3.Client, from, to int) error {
	for k := from; k < to; k++ {
		if err := until(ctx, func() error {
			_, err := client.Put(ctx, fmt.Sprintf("%s%03d", lightPrefix, k), "v")
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// All processes are killed at once: a light scope has everything. Then one node is
// started as on a machine that was switched off meanwhile: its replica of the light
// segment, alone, gives way to a new one, and nothing is lost.
func TestALightScopeThroughKillsAndAPowerCut(t *testing.T) {
	c := target.Start(t, 3)
	client := newClient(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := errors.Join(createLight(ctx, client), putLight(ctx, client, 0, 100)); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Ready(ctx), putLight(ctx, client, 100, 200)); err != nil {
		t.Fatal(err)
	}
	off := c.Nodes[1]
	off.Kill()
	if err := machines.Reboot(off.Dir); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(off.Start(), putLight(ctx, client, 200, 300)); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, func() error { return replaced(ctx, client) }); err != nil {
		t.Fatalf("%v\n%s", err, off.LogTail())
	}
	resp, err := newClient(t, c, off).Get(ctx, lightPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 300 {
		t.Errorf("%d of 300 keys, %v", resp.Count, err)
	}
}

// replaced says what is missing until the light segment has three voters, one of them
// with a replica ID that none had in the beginning, and the other segments have none such.
func replaced(ctx context.Context, client *clientv3.Client) error {
	reply, err := meshpb.NewMeshClient(client.ActiveConnection()).Segments(ctx, &meshpb.SegmentsRequest{})
	if err != nil {
		return err
	}
	var light *meshpb.Descriptor
	for _, s := range reply.GetSegments() {
		d := s.GetDescriptor_()
		if string(d.GetStart()) == lightPrefix {
			light = d
			continue
		}
		for _, a := range d.GetAnchors() {
			if a.GetReplica() > 3 {
				return fmt.Errorf("the segment at %q, which is not light, has replica %d", d.GetStart(), a.GetReplica())
			}
		}
	}
	voters, highest := 0, uint64(0)
	for _, a := range light.GetAnchors() {
		highest = max(highest, a.GetReplica())
		if a.GetRole() == meshpb.Role_ROLE_VOTER {
			voters++
		}
	}
	if voters != 3 || highest <= 3 {
		return fmt.Errorf("the light segment has %d voters, the newest is replica %d", voters, highest)
	}
	return nil
}
