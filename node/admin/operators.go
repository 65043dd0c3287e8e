package admin

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
)

// node finds a member by its ID, or by its name if no other has it.
func (s *Service) node(word string) (anchormesh.NodeID, error) {
	var found []mesh.Member
	for _, m := range s.cfg.Mesh.View().Members() {
		if string(m.ID) == word {
			return m.ID, nil
		}
		if m.Name == word && m.State != mesh.Left {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return "", status.Errorf(codes.NotFound, "this node knows no node %q; `anchormesh nodes` lists them", word)
	case 1:
		return found[0].ID, nil
	}
	return "", status.Errorf(codes.FailedPrecondition, "%d nodes are called %q: name it by its ID", len(found), word)
}

// Drain implements meshpb.MeshServer.
func (s *Service) Drain(ctx context.Context, req *meshpb.DrainRequest) (*meshpb.DrainReply, error) {
	id, err := s.node(req.GetNode())
	if err != nil {
		return nil, err
	}
	if id != s.cfg.Mesh.Self().ID {
		return s.drainElsewhere(ctx, id, req)
	}
	nodes := s.cfg.Nodes()
	if !req.GetUndo() {
		if err := place.Drainable(nodes, id, s.anchors()); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	if !req.GetDryRun() {
		if err := s.cfg.SetLeaving(!req.GetUndo()); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	out := &meshpb.DrainReply{Node: string(id)}
	if i := slices.IndexFunc(nodes, func(n place.Node) bool { return n.Node == id }); i >= 0 {
		out.Replicas, out.Leaders = uint32(nodes[i].Replicas), uint32(nodes[i].Leaders)
	}
	return out, nil
}

func (s *Service) drainElsewhere(ctx context.Context, id anchormesh.NodeID, req *meshpb.DrainRequest) (*meshpb.DrainReply, error) {
	m, ok := s.cfg.Mesh.View().Get(id)
	if !ok || m.State != mesh.Alive || forwarded(ctx) {
		return nil, status.Errorf(codes.FailedPrecondition,
			"node %s does not run: what it held is replaced by itself after --replace-dead-after", id.Short())
	}
	conn, err := s.cfg.Peers.Conn(id)
	if err != nil {
		return nil, err
	}
	req.Node = string(id)
	return meshpb.NewMeshClient(conn).Drain(onward(ctx), req)
}

// anchors is how many the segment with the most has.
func (s *Service) anchors() (most int) {
	for _, d := range s.cfg.Table.All() {
		most = max(most, len(d.Voters()))
	}
	return most
}

// Move implements meshpb.MeshServer.
func (s *Service) Move(ctx context.Context, req *meshpb.MoveRequest) (*meshpb.MoveReply, error) {
	d, from, err := s.order(req.GetSegment(), req.GetFrom())
	if err != nil {
		return nil, err
	}
	to, err := s.node(req.GetTo())
	if err != nil {
		return nil, err
	}
	req.From, req.To = string(from), string(to)
	if !s.leads(ctx, d.Segment) {
		return s.moveElsewhere(ctx, d.Segment, req)
	}
	out := &meshpb.MoveReply{Before: meshpb.ToPB(d), From: string(from), To: string(to)}
	order := Order{Kind: "move", Segment: d.Segment, From: from, To: to, Operator: req.GetOperator()}
	if wanted, err := s.proposed(ctx, req.GetDryRun(), order, &out.Scope, &out.Proposal); wanted || err != nil {
		return out, err
	}
	yield := from == s.cfg.Mesh.Self().ID
	if err := s.cfg.Steward.Move(d.Segment, from, to, req.GetDryRun() || yield); err != nil {
		return nil, structural(err)
	}
	if yield && !req.GetDryRun() {
		next, err := s.cfg.Steward.Yield(ctx, d.Segment)
		if err != nil {
			return nil, structural(err)
		}
		s.cfg.Table.Guess(d.Segment, next)
		return s.moveElsewhere(ctx, d.Segment, req)
	}
	return out, nil
}

func (s *Service) moveElsewhere(ctx context.Context, id anchormesh.SegmentID, req *meshpb.MoveRequest) (*meshpb.MoveReply, error) {
	conn, err := s.leader(ctx, id)
	if err != nil {
		return nil, err
	}
	return meshpb.NewMeshClient(conn).Move(onward(ctx), req)
}

// Transfer implements meshpb.MeshServer.
func (s *Service) Transfer(ctx context.Context, req *meshpb.TransferRequest) (*meshpb.TransferReply, error) {
	d, to, err := s.order(req.GetSegment(), req.GetTo())
	if err != nil {
		return nil, err
	}
	req.To = string(to)
	if !s.leads(ctx, d.Segment) {
		conn, err := s.leader(ctx, d.Segment)
		if err != nil {
			return nil, err
		}
		return meshpb.NewMeshClient(conn).Transfer(onward(ctx), req)
	}
	if err := s.cfg.Steward.Transfer(ctx, d.Segment, to); err != nil {
		return nil, structural(err)
	}
	return &meshpb.TransferReply{From: string(s.cfg.Mesh.Self().ID), To: string(to)}, nil
}

// order finds the segment and a node of an order.
func (s *Service) order(segment uint64, node string) (*anchormesh.Descriptor, anchormesh.NodeID, error) {
	if segment == 0 {
		return nil, "", status.Error(codes.InvalidArgument, "the segment is not named")
	}
	d, err := s.named(anchormesh.SegmentID(segment), nil)
	if err != nil {
		return nil, "", err
	}
	id, err := s.node(node)
	return d, id, err
}
