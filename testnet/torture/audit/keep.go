package audit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

const (
	keepEvery   = 2 * time.Second
	keepTimeout = 2 * time.Second
	keepMax     = 100_000 // decisions
)

// Keeper asks for lineages while the mesh runs: those of segments that are absorbed, and
// what a long one forgets, are nowhere at the end.
type Keeper struct {
	conns   []*grpc.ClientConn
	running sync.WaitGroup
	stop    context.CancelFunc
	found   map[anchormesh.Hash]*lineage.Entry
}

// Keep begins to ask, one node after the other; Stop ends it.
func Keep(ctx context.Context, endpoints []string) (*Keeper, error) {
	k := &Keeper{found: make(map[anchormesh.Hash]*lineage.Entry)}
	for _, e := range endpoints {
		_, host, _ := strings.Cut(e, "://")
		conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, errors.Join(err, k.close())
		}
		k.conns = append(k.conns, conn)
	}
	ctx, k.stop = context.WithCancel(ctx)
	k.running.Go(func() { k.run(ctx) })
	return k, nil
}

// Lineage is decisions, in no order.
type Lineage []*lineage.Entry

// Stop ends it and returns what was found.
func (k *Keeper) Stop() (Lineage, error) {
	k.stop()
	k.running.Wait()
	var out Lineage
	for _, e := range k.found {
		out = append(out, e)
	}
	return out, k.close()
}

func (k *Keeper) close() error {
	var problems []error
	for _, c := range k.conns {
		problems = append(problems, c.Close())
	}
	k.conns = nil
	return errors.Join(problems...)
}

func (k *Keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.look(ctx, meshpb.NewMeshClient(k.conns[i%len(k.conns)]))
		}
	}
}

// look takes what one node and its neighbours say now; nothing, if they are away.
func (k *Keeper) look(ctx context.Context, c meshpb.MeshClient) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	reply, err := c.Segments(ctx, &meshpb.SegmentsRequest{})
	if err != nil {
		return
	}
	for _, s := range reply.GetSegments() {
		got, err := c.Lineage(ctx, &meshpb.LineageRequest{Segment: s.GetDescriptor_().GetSegment()})
		if err != nil {
			continue
		}
		chain, err := lineage.DecodeChain(got.GetReplica().GetChain())
		if err != nil {
			continue
		}
		for _, e := range chain.Entries() {
			if len(k.found) < keepMax {
				k.found[e.Hash()] = e
			}
		}
	}
}
