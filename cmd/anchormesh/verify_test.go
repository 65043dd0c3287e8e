package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/internal/meshpb"
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
