package admin

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// Prover keeps what proves the lineages of the replicas here; see package proofs.
type Prover interface {
	// Of returns the encoded proofs of a segment's lineage, oldest first.
	Of(segment anchormesh.SegmentID) [][]byte
}

// Hasher hashes the replicas here.
type Hasher interface {
	// Hash returns a replica's share of the hash of the keyspace at a revision, and
	// the floor that it counted from: the given one, or a higher one that the replica
	// was compacted at.
	Hash(ctx context.Context, d *anchormesh.Descriptor, at, floor anchormesh.Revision) (sum uint64, from anchormesh.Revision, err error)
	// HashStanding returns the same of what the replica has applied, and where in the log
	// that is. It asks nobody and wakes nobody.
	HashStanding(d *anchormesh.Descriptor, at, floor anchormesh.Revision) (sum uint64, from anchormesh.Revision, place lineage.Place, err error)
}

// Lineage implements meshpb.MeshServer. It answers from the replica here, else it
// asks an anchor.
func (s *Service) Lineage(ctx context.Context, req *meshpb.LineageRequest) (*meshpb.LineageReply, error) {
	d, err := s.named(anchormesh.SegmentID(req.GetSegment()), req.GetKey())
	if err != nil {
		return nil, err
	}
	if r, here := s.cfg.Host.Get(d.Segment); here {
		return &meshpb.LineageReply{Node: string(s.cfg.Mesh.Self().ID), Replica: s.replica(r)}, nil
	}
	if forwarded(ctx) {
		return nil, status.Error(codes.Unavailable, "the segment is not here any more; ask again")
	}
	ask := &meshpb.LineageRequest{Segment: uint64(d.Segment)}
	last := status.Error(codes.Unavailable, "no anchor of the segment can be reached")
	for _, node := range route.Askable(d, s.cfg.Mesh.Connected) {
		conn, err := s.cfg.Peers.Conn(node)
		if err != nil {
			return nil, err
		}
		reply, err := meshpb.NewMeshClient(conn).Lineage(onward(ctx), ask)
		if err == nil {
			return reply, nil
		}
		last = err
	}
	return nil, last
}

// replica shows what was applied here of a segment.
func (s *Service) replica(r *host.Replica) *meshpb.Replica {
	segment := r.Machine.Segment()
	applied, _ := segment.Applied() // first: the state read behind it is at least as new
	state := r.Machine.State()
	out := &meshpb.Replica{
		Descriptor_: meshpb.ToPB(state.Descriptor), Chain: state.Chain.Encode(), Applied: applied,
		Proofs: s.cfg.Proofs.Of(state.Descriptor.Segment),
	}
	out.Revision, out.CompactRevision = segment.Revision()
	if st, ok := s.cfg.Engine.Status(state.Descriptor.Segment); ok {
		out.Leads, out.Term = st.Leads(), st.Term
	}
	return out
}

// Structure implements meshpb.MeshServer.
func (s *Service) Structure(_ *meshpb.StructureRequest, to grpc.ServerStreamingServer[meshpb.StructureItem]) error {
	self := &meshpb.StructureNode{Info: nodeInfo(s.cfg.Mesh.Self(), true), Mesh: uint64(s.cfg.Host.Mesh())}
	if err := to.Send(&meshpb.StructureItem{Item: &meshpb.StructureItem_Node{Node: self}}); err != nil {
		return err
	}
	for _, d := range s.cfg.Table.All() {
		if err := to.Send(&meshpb.StructureItem{Item: &meshpb.StructureItem_Route{Route: meshpb.ToPB(d)}}); err != nil {
			return err
		}
	}
	for _, id := range s.cfg.Host.Segments() {
		r, here := s.cfg.Host.Get(id)
		if !here {
			continue
		}
		if err := to.Send(&meshpb.StructureItem{Item: &meshpb.StructureItem_Replica{Replica: s.replica(r)}}); err != nil {
			return err
		}
	}
	return nil
}

// Hash implements meshpb.MeshServer.
func (s *Service) Hash(ctx context.Context, req *meshpb.HashRequest) (*meshpb.HashReply, error) {
	sum, floor, err := s.cfg.Hasher.Hash(ctx, hashed(req), req.GetRevision(), req.GetFloor())
	switch {
	case errors.Is(err, keyspace.ErrCompacted), errors.Is(err, keyspace.ErrFutureRev):
		return nil, status.Error(codes.OutOfRange, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &meshpb.HashReply{Sum: sum, Floor: floor}, nil
}

// hashed names what a question is about.
func hashed(req *meshpb.HashRequest) *anchormesh.Descriptor {
	return &anchormesh.Descriptor{Segment: anchormesh.SegmentID(req.GetSegment()), Generation: anchormesh.Generation(req.GetGeneration())}
}

// Hashes implements meshpb.MeshServer.
func (s *Service) Hashes(req *meshpb.HashesRequest, to grpc.ServerStreamingServer[meshpb.HashReply]) error {
	for _, q := range req.GetReplicas() {
		reply := &meshpb.HashReply{}
		sum, floor, place, err := s.cfg.Hasher.HashStanding(hashed(q), q.GetRevision(), q.GetFloor())
		if err != nil {
			reply.Problem = err.Error()
		} else {
			reply.Sum, reply.Floor, reply.Applied, reply.Term = sum, floor, place.Index, place.Term
		}
		if err := to.Send(reply); err != nil {
			return err
		}
	}
	return nil
}
