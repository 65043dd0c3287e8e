package admin

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/merger"
)

// Merger joins segments that this node leads with their right neighbours; see package
// merger.
type Merger interface {
	Merge(ctx context.Context, left anchormesh.SegmentID, why lineage.Evidence, dry bool) (*anchormesh.Descriptor, error)
}

// Merge implements meshpb.MeshServer.
func (s *Service) Merge(ctx context.Context, req *meshpb.MergeRequest) (*meshpb.MergeReply, error) {
	if len(req.GetOperator()) > lineage.OperatorBytesMax {
		return nil, status.Errorf(codes.InvalidArgument, "the operator's name is longer than %d bytes", lineage.OperatorBytesMax)
	}
	left, ok := s.cfg.Table.Segment(anchormesh.SegmentID(req.GetSegment()))
	if !ok {
		return nil, status.Error(codes.NotFound, "this node knows no such segment")
	}
	if err := s.neighbours(left, req); err != nil {
		return nil, err
	}
	if !s.leads(ctx, left.Segment) {
		conn, err := s.leader(ctx, left.Segment)
		if err != nil {
			return nil, err
		}
		return meshpb.NewMeshClient(conn).Merge(onward(ctx), req)
	}
	out := &meshpb.MergeReply{Left: meshpb.ToPB(left)}
	order := Order{Kind: "merge", Segment: left.Segment, Key: left.Range.End, Operator: req.GetOperator()}
	if wanted, err := s.proposed(ctx, req.GetDryRun(), order, &out.Scope, &out.Proposal); wanted || err != nil {
		right, _ := s.cfg.Table.Lookup(left.Range.End)
		out.Right = meshpb.ToPB(right)
		return out, err
	}
	why := lineage.Evidence{Reason: lineage.Operator, Operator: req.GetOperator()}
	right, err := s.cfg.Merger.Merge(ctx, left.Segment, why, req.GetDryRun())
	switch {
	case errors.Is(err, merger.ErrAborted):
		return nil, status.Error(codes.Aborted, err.Error())
	case err != nil:
		return nil, structural(err)
	}
	out.Right = meshpb.ToPB(right)
	return out, nil
}

// neighbours refuses two segments of which the second does not follow the first.
func (s *Service) neighbours(left *anchormesh.Descriptor, req *meshpb.MergeRequest) error {
	right, ok := s.cfg.Table.Segment(anchormesh.SegmentID(req.GetRight()))
	if !ok && len(req.GetKey()) > 0 {
		right, ok = s.cfg.Table.Lookup(req.GetKey())
	}
	if !ok {
		return status.Error(codes.NotFound, "this node knows no such right segment")
	}
	switch {
	case right.Segment == left.Segment && req.GetRight() == req.GetSegment():
		return status.Errorf(codes.FailedPrecondition, "segment %s is not its own neighbour", left.Segment)
	case right.Segment == left.Segment:
		return status.Errorf(codes.FailedPrecondition, "%q is no segment that this node knows, and as a key it lies in segment %s %s itself",
			req.GetKey(), left.Segment, left.Range)
	}
	next, ok := s.cfg.Table.Lookup(left.Range.End)
	if len(left.Range.End) == 0 || !ok || next.Segment != right.Segment {
		return status.Errorf(codes.FailedPrecondition, "segment %s %s is not the right neighbour of segment %s %s",
			right.Segment, right.Range, left.Segment, left.Range)
	}
	return nil
}
