package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/verify"
)

// slowNode tells its structure a part at a time.
type slowNode struct {
	meshpb.MeshClient
	grpc.ServerStreamingClient[meshpb.StructureItem]
	ctx   context.Context
	every time.Duration
	parts int
}

func (n *slowNode) Structure(ctx context.Context, _ *meshpb.StructureRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[meshpb.StructureItem], error) {
	n.ctx = ctx
	return n, nil
}

func (n *slowNode) Recv() (*meshpb.StructureItem, error) {
	if n.parts == 0 {
		return nil, io.EOF
	}
	n.parts--
	select {
	case <-time.After(n.every):
		return &meshpb.StructureItem{}, nil
	case <-n.ctx.Done():
		return nil, n.ctx.Err()
	}
}

// A node that holds thousands of segments may take longer than --timeout to tell of all,
// but not for a part.
func TestStructureTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &seat{client: &slowNode{every: 3 * time.Second, parts: 4}}
		if _, err := n.structure(t.Context(), 5*time.Second); err != nil {
			t.Errorf("a part each three seconds: %v", err)
		}
		n.client = &slowNode{every: 6 * time.Second, parts: 4}
		if _, err := n.structure(t.Context(), 5*time.Second); !errors.Is(err, errSilent) {
			t.Errorf("a part each six seconds: %v, want %v", err, errSilent)
		}
	})
}

// standingNode tells hashes of replicas as they stand, all at place 7 but one segment's.
type standingNode struct {
	meshpb.MeshClient
	grpc.ServerStreamingClient[meshpb.HashReply]
	old     bool // does not know the question
	behind  uint64
	asked   []*meshpb.HashRequest
	barrier atomic.Int32
}

func (n *standingNode) Hashes(_ context.Context, req *meshpb.HashesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[meshpb.HashReply], error) {
	n.asked = req.GetReplicas()
	return n, nil
}

func (n *standingNode) Recv() (*meshpb.HashReply, error) {
	if n.old {
		return nil, status.Error(codes.Unimplemented, "unknown method Hashes")
	}
	q := n.asked[0]
	n.asked = n.asked[1:]
	if q.GetSegment() == n.behind {
		return &meshpb.HashReply{Applied: 6, Term: 1}, nil
	}
	return &meshpb.HashReply{Sum: q.GetSegment(), Applied: 7, Term: 1}, nil
}

func (n *standingNode) Hash(_ context.Context, q *meshpb.HashRequest, _ ...grpc.CallOption) (*meshpb.HashReply, error) {
	n.barrier.Add(1)
	return &meshpb.HashReply{Sum: q.GetSegment()}, nil
}

// Only segments whose anchors do not stand at one place are asked behind a barrier: those
// with one behind, and all where a node does not know the question.
func TestWhoStandsTogetherIsAskedOnce(t *testing.T) {
	for what, c := range map[string]struct {
		odd  *standingNode
		want int // questions behind a barrier, to each node
	}{
		"all together": {&standingNode{}, 0},
		"one behind":   {&standingNode{behind: 3}, 1},
		"an old node":  {&standingNode{old: true}, 4},
	} {
		nodes := map[anchormesh.NodeID]*standingNode{"a": {}, "b": {}, "c": c.odd}
		s := &seats{}
		var anchors []anchormesh.Anchor
		for _, id := range []anchormesh.NodeID{"a", "b", "c"} {
			s.nodes = append(s.nodes, &seat{id: id, client: nodes[id]})
			anchors = append(anchors, anchormesh.Anchor{Node: id, Replica: anchormesh.ReplicaID(len(anchors) + 1), Role: anchormesh.Voter})
		}
		var owners []verify.Owner
		for id := anchormesh.SegmentID(1); id <= 4; id++ {
			o := verify.Owner{Descriptor: &anchormesh.Descriptor{Segment: id, Generation: 1, Anchors: anchors}}
			for _, a := range anchors {
				o.Replicas = append(o.Replicas, verify.Held{Node: a.Node, Replica: verify.Replica{Descriptor: o.Descriptor, Revision: 5}})
			}
			owners = append(owners, o)
		}
		answers := s.hashes(t.Context(), owners, verify.Questions(owners, 0))
		if found := verify.Differing(answers); len(found) > 0 {
			t.Errorf("%s: %+v", what, found)
		}
		for id, n := range nodes {
			if got := int(n.barrier.Load()); got != c.want {
				t.Errorf("%s: node %s was asked %d times behind a barrier, want %d", what, id, got, c.want)
			}
		}
	}
}
