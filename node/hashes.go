package node

import (
	"context"
	"errors"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/stamps"
)

const (
	// hashesAtOnce bounds how many segments one question asks at the same time.
	hashesAtOnce = 32
	// hashRetry is the pause before segments that moved are asked again.
	hashRetry = 20 * time.Millisecond
	// neverCompacted is below every revision.
	neverCompacted = -1
)

// errMoved says that a segment is not here, or not of that generation: what was asked
// may be asked again with fresher routes.
var errMoved = errors.New("the segment is not here, or of another generation")

// share is a segment's part of the hash of several.
type share struct {
	sum   uint64
	floor anchormesh.Revision // what lies at or below it counts only if it is alive
}

// share returns what the replica here adds to the hash at a revision. The floor is
// the given one or the replica's compacted revision, whichever is higher.
func (a *assembly) share(ctx context.Context, d *anchormesh.Descriptor, at, floor anchormesh.Revision) (share, error) {
	r, here := a.host.Get(d.Segment)
	if !here || r.Machine.Descriptor().Generation != d.Generation {
		return share{}, errMoved
	}
	if err := a.complete(ctx, r, at); err != nil {
		return share{}, err
	}
	return count(r, d, at, floor)
}

// count hashes what a replica has at a revision.
func count(r *host.Replica, d *anchormesh.Descriptor, at, floor anchormesh.Revision) (share, error) {
	for {
		_, compacted := r.Machine.Segment().Revision()
		floor = max(floor, compacted)
		sum, err := r.Machine.Space().HashPart(at, floor)
		if _, now := r.Machine.Segment().Revision(); errors.Is(err, keyspace.ErrCompacted) && now > floor {
			continue // compacted meanwhile, which happens only so often
		}
		if err == nil && r.Machine.Descriptor().Generation != d.Generation {
			err = errMoved
		}
		return share{sum, floor}, err
	}
}

// complete waits until the replica has everything at or below a revision that can
// come in its segment.
func (a *assembly) complete(ctx context.Context, r *host.Replica, at anchormesh.Revision) error {
	d := r.Machine.Descriptor()
	done := make(chan error, 1)
	dense := r.Machine.State().Counts() && len(d.Line) == 0 // the only segment there is
	if dense {
		a.engine.ReadIndex(d.Segment, func(_ uint64, err error) { done <- err })
	} else {
		index, err := a.lines.Barrier(ctx, d, at)
		if err != nil {
			return err
		}
		a.engine.WhenApplied(d.Segment, index, func(err error) { done <- err })
	}
	select {
	case err := <-done:
		if rev, _ := r.Machine.Segment().Revision(); err == nil && dense && at > rev {
			return etcdapi.ErrFutureRevision
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Hash implements admin.Hasher: of the replica here, for who compares replicas. A
// revision that was not given out yet is refused: a barrier there would hold up
// writers.
func (a *assembly) Hash(ctx context.Context, d *anchormesh.Descriptor, at, floor anchormesh.Revision) (uint64, anchormesh.Revision, error) {
	if r, here := a.host.Get(d.Segment); here && (r.Machine.State().Line != 0 || len(d.Line) > 0) {
		newest, err := a.lines.Now(ctx, r.Machine.Descriptor().Line)
		if err != nil {
			return 0, 0, err
		}
		if at > newest {
			return 0, 0, etcdapi.ErrFutureRevision
		}
	}
	s, err := a.share(ctx, d, at, floor)
	return s.sum, s.floor, err
}

// HashStanding implements admin.Hasher. Of a replica that applied something meanwhile it
// says nothing: where it stood is not known.
func (a *assembly) HashStanding(d *anchormesh.Descriptor, at, floor anchormesh.Revision) (sum uint64, from anchormesh.Revision, place lineage.Place, err error) {
	r, here := a.host.Get(d.Segment)
	if !here || r.Machine.Descriptor().Generation != d.Generation {
		return 0, 0, place, errMoved
	}
	place.Index, place.Term = r.Machine.Segment().Applied()
	s, err := count(r, d, at, floor)
	if index, _ := r.Machine.Segment().Applied(); err == nil && index != place.Index {
		err = errMoved
	}
	return s.sum, s.floor, place, err
}

// hashLine is HashKV of a keyspace that was split: equal on every node, wherever it is
// cut and on however many lines it is, and not what one segment with the same keys would answer.
func (b *backends) hashLine(ctx context.Context, revision anchormesh.Revision) (*pb.HashKVResponse, error) {
	for {
		out, err := b.tryHashLine(ctx, revision)
		if err == nil || !hashAgain(err) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, etcdapi.ErrTimeout
		case <-time.After(hashRetry):
		}
	}
}

// hashAgain reports whether an error says only that something moved meanwhile.
func hashAgain(err error) bool {
	switch {
	case errors.Is(err, keyspace.ErrCompacted), errors.Is(err, keyspace.ErrFutureRev), errors.Is(err, etcdapi.ErrNotAnchor):
		return false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	}
	return errors.Is(err, errMoved) || stamps.Retry(err)
}

func (b *backends) tryHashLine(ctx context.Context, revision anchormesh.Revision) (*pb.HashKVResponse, error) {
	parts, whole := b.table.Covering(anchormesh.KeyRange{})
	if !whole {
		return nil, errMoved
	}
	newest, err := b.lines.NowOver(ctx, stamps.LinesOf(parts))
	if err != nil {
		return nil, err
	}
	at := revision
	switch {
	case at == 0:
		at = newest
	case at > newest:
		return nil, etcdapi.ErrFutureRevision
	}
	shares := make([]share, len(parts))
	for i := range shares {
		shares[i].floor = neverCompacted
	}
	floor, err := b.shares(ctx, parts, shares, at)
	if err != nil {
		return nil, err
	}
	sum := uint64(0)
	for _, s := range shares {
		sum += s.sum
	}
	h := keyspace.FoldHash(sum, at, floor)
	return &pb.HashKVResponse{
		Header: &pb.ResponseHeader{Revision: newest}, Hash: h.Hash, CompactRevision: h.Compacted, HashRevision: h.Revision,
	}, nil
}

// floorTries bounds how often segments are asked again because others were compacted
// at a higher revision.
const floorTries = 3

// shares asks every segment, and again those that counted from a lower floor than the
// highest: a compaction reaches the segments one after the other.
func (b *backends) shares(ctx context.Context, parts []*anchormesh.Descriptor, shares []share, at anchormesh.Revision) (floor anchormesh.Revision, err error) {
	floor = neverCompacted - 1
	for range floorTries {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(hashesAtOnce)
		for i, d := range parts {
			if shares[i].floor == floor {
				continue
			}
			group.Go(func() (err error) {
				shares[i], err = b.shareOf(inner, d, at, max(floor, neverCompacted))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return 0, err
		}
		floor = slices.MaxFunc(shares, func(x, y share) int { return int(min(max(x.floor-y.floor, -1), 1)) }).floor
		if !slices.ContainsFunc(shares, func(s share) bool { return s.floor != floor }) {
			return floor, nil
		}
	}
	return 0, errMoved
}

// shareOf asks the replica here, else an anchor's.
func (b *backends) shareOf(ctx context.Context, d *anchormesh.Descriptor, at, floor anchormesh.Revision) (share, error) {
	if _, here := b.host.Get(d.Segment); here {
		return b.share(ctx, d, at, floor)
	}
	for _, node := range route.Askable(d, b.mesh.Connected) {
		conn, err := b.peers.Conn(node)
		if err != nil {
			return share{}, err
		}
		reply, err := meshpb.NewMeshClient(conn).Hash(ctx, &meshpb.HashRequest{
			Segment: uint64(d.Segment), Generation: uint64(d.Generation), Revision: at, Floor: floor,
		})
		switch status.Code(err) {
		case codes.OK:
			return share{reply.GetSum(), reply.GetFloor()}, nil
		case codes.OutOfRange:
			return share{}, keyspace.ErrCompacted
		}
	}
	return share{}, errMoved
}
