package node_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node"
)

// Segments at rest become one by themselves, also where their anchors are on different
// nodes and have to be aligned first; the lineage says why, and nothing is lost.
func TestDormantSegmentsMergeByThemselves(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	m := newTunedMesh(t, 4, (*node.Node).Rest)
	t.Cleanup(func() {
		if t.Failed() {
			m.tell()
		}
	})
	c := m.client()
	for _, key := range []string{"a", "m", "t"} {
		put(t.Context(), t, c, key, key)
	}
	// Three segments, of which one is moved to other nodes at once, before they rest.
	m.split("m")
	m.split("t")
	var free string
	m.eventually(30*time.Second, "a move", func() bool {
		all, _, _ := m.structure()
		for id, s := range all {
			d, err := meshpb.FromPB(s.GetDescriptor_())
			if err != nil || string(d.Range.Start) != "m" {
				continue
			}
			for i := range m.nodes {
				if _, has := d.AnchorOn(m.id(i)); has {
					continue
				}
				free = string(m.id(i))
				from := string(d.Voters()[0].Node)
				return m.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
					_, err := c.Move(ctx, &meshpb.MoveRequest{Segment: id, From: from, To: free})
					return err
				}) == nil
			}
		}
		return false
	})
	m.eventually(90*time.Second, "one segment", func() bool {
		all, _, whole := m.structure()
		return whole && len(all) == 1
	})
	var reply *meshpb.LineageReply
	if err := m.ask(0, func(ctx context.Context, c meshpb.MeshClient) (err error) {
		reply, err = c.Lineage(ctx, &meshpb.LineageRequest{Key: []byte("a")})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	chain, err := lineage.DecodeChain(reply.GetReplica().GetChain())
	if err != nil {
		t.Fatal(err)
	}
	merges := 0
	for _, e := range chain.Entries() {
		if e.Kind == lineage.Merge && e.Evidence.Reason == lineage.Load && len(e.Evidence.Numbers) > 0 {
			merges++
		}
	}
	if merges == 0 { // the other may be in the lineage of the right part, if that grew first
		t.Error("the lineage tells of no merge at rest")
	}
	got, err := c.Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil || len(got.Kvs) != 3 {
		t.Errorf("%v, %v: three keys were written", got, err)
	}
}
