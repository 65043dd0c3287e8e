package admin

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Steward changes the structure of the segments that this node leads; see package
// steward.
type Steward interface {
	Split(ctx context.Context, segment anchormesh.SegmentID, at []byte, why lineage.Evidence, dry bool) (anchormesh.SegmentID, error)
	Move(segment anchormesh.SegmentID, from, to anchormesh.NodeID, dry bool) error
	Transfer(ctx context.Context, segment anchormesh.SegmentID, to anchormesh.NodeID) error
	Yield(ctx context.Context, segment anchormesh.SegmentID) (anchormesh.NodeID, error)
}

// Peers gives connections to other nodes.
type Peers interface {
	Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error)
}

// Split implements meshpb.MeshServer.
func (s *Service) Split(ctx context.Context, req *meshpb.SplitRequest) (*meshpb.SplitReply, error) {
	if len(req.GetBoundary()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a split needs a boundary: the first key of the right part")
	}
	if len(req.GetOperator()) > lineage.OperatorBytesMax {
		return nil, status.Errorf(codes.InvalidArgument, "the operator's name is longer than %d bytes", lineage.OperatorBytesMax)
	}
	d, err := s.named(anchormesh.SegmentID(req.GetSegment()), req.GetBoundary())
	if err != nil {
		return nil, err
	}
	if !s.leads(ctx, d.Segment) {
		conn, err := s.leader(ctx, d.Segment)
		if err != nil {
			return nil, err
		}
		return meshpb.NewMeshClient(conn).Split(onward(ctx), req)
	}
	out := &meshpb.SplitReply{Before: meshpb.ToPB(d), Boundary: req.GetBoundary()}
	order := Order{Kind: "split", Segment: d.Segment, Key: req.GetBoundary(), Operator: req.GetOperator()}
	if wanted, err := s.proposed(ctx, req.GetDryRun(), order, &out.Scope, &out.Proposal); wanted || err != nil {
		return out, err
	}
	why := lineage.Evidence{Reason: lineage.Operator, Operator: req.GetOperator()}
	right, err := s.cfg.Steward.Split(ctx, d.Segment, req.GetBoundary(), why, req.GetDryRun())
	if err != nil {
		return nil, structural(err)
	}
	out.Right = uint64(right)
	return out, nil
}

// proposed puts an order to the vote if operators vote on it, and reports whether.
func (s *Service) proposed(ctx context.Context, dry bool, o Order, scope *[]byte, id *uint64) (wanted bool, err error) {
	if dry || s.cfg.Order == nil {
		return false, nil
	}
	*scope, *id, wanted, err = s.cfg.Order(ctx, o)
	return wanted, err
}

// named finds a segment by its ID, or by a key of it.
func (s *Service) named(id anchormesh.SegmentID, key []byte) (*anchormesh.Descriptor, error) {
	d, ok := s.cfg.Table.Lookup(key)
	if id != 0 {
		d, ok = s.cfg.Table.Segment(id)
	}
	if !ok {
		return nil, status.Error(codes.NotFound, "this node knows no such segment")
	}
	return d, nil
}

// leaderWait is how long a request waits for a segment without a leader to get one: a
// part that has just been cut off has none for a moment.
const leaderWait = 2 * time.Second

// leads reports whether this node leads a segment, as soon as anybody does.
func (s *Service) leads(ctx context.Context, id anchormesh.SegmentID) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		st, here := s.cfg.Engine.Status(id)
		if !here || st.Leader != "" {
			return st.Leads()
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// hops is the header that keeps a request from going round in circles: it counts.
const hops = "anchormesh-hop"

// hopsMax lets a request find a leader that has just changed.
const hopsMax = 3

// leader returns a connection to the segment's leader, or, where that is not known, to
// an anchor, which will know.
func (s *Service) leader(ctx context.Context, id anchormesh.SegmentID) (grpc.ClientConnInterface, error) {
	node := s.leading(id)
	if node == "" {
		node = s.anchor(id)
	}
	if node == "" || node == s.cfg.Mesh.Self().ID || forwarded(ctx) {
		return nil, status.Error(codes.Unavailable, "the segment has no known leader at the moment")
	}
	return s.cfg.Peers.Conn(node)
}

// leading returns the node that leads a segment, "" if none is known: as the replica
// here knows it, or else as the routes tell.
func (s *Service) leading(id anchormesh.SegmentID) anchormesh.NodeID {
	if st, ok := s.cfg.Engine.Status(id); ok && st.Leader != "" {
		return st.Leader
	}
	node, _ := s.cfg.Table.Leader(id)
	return node
}

// anchor is some other node with a vote in a segment that can be reached, "" if none is
// known.
func (s *Service) anchor(id anchormesh.SegmentID) anchormesh.NodeID {
	if _, here := s.cfg.Engine.Status(id); here {
		return "" // the replica here would know
	}
	if d, ok := s.cfg.Table.Segment(id); ok {
		for _, v := range d.Voters() {
			if v.Node != s.cfg.Mesh.Self().ID && s.cfg.Mesh.Connected(v.Node) {
				return v.Node
			}
		}
	}
	return ""
}

// structural gives the errors of structural changes their codes: Unavailable where trying
// again may help.
func structural(err error) error {
	if errors.Is(err, machine.ErrRefused) && !errors.Is(err, machine.ErrForNow) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// onward marks a request as forwarded once more.
func onward(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	for range len(md.Get(hops)) + 1 {
		ctx = metadata.AppendToOutgoingContext(ctx, hops, "1")
	}
	return ctx
}

// forwarded reports whether a request was forwarded so often that something is
// wrong.
func forwarded(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get(hops)) >= hopsMax
}
