package charter

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/machine"
)

// errNoReplica: the node has no replica of the segment.
var errNoReplica = status.Error(codes.NotFound, "this node has no replica of the segment")

// Trust implements meshpb.ScopesServer.
func (s *Service) Trust(ctx context.Context, req *meshpb.TrustRequest) (*meshpb.TrustReply, error) {
	if req.GetSegment() != 0 {
		r, here := s.cfg.Host.Get(anchormesh.SegmentID(req.GetSegment()))
		if !here {
			return nil, errNoReplica
		}
		return &meshpb.TrustReply{Segments: []*meshpb.SegmentTrust{ledger(r.Machine.State(), req.GetLedger())}}, nil
	}
	segments := s.within(req.GetPrefix())
	if len(segments) == 0 {
		return nil, noScope(req.GetPrefix())
	}
	out := &meshpb.TrustReply{Segments: make([]*meshpb.SegmentTrust, len(segments))}
	asked, ctx := errgroup.WithContext(ctx)
	asked.SetLimit(asksMax)
	for i, d := range segments {
		asked.Go(func() (err error) {
			out.Segments[i], err = s.segmentTrust(ctx, d, req.GetLedger())
			return err
		})
	}
	if err := asked.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// segmentTrust is the ledger of a segment, from the replica here or an anchor's.
func (s *Service) segmentTrust(ctx context.Context, d *anchormesh.Descriptor, whole bool) (*meshpb.SegmentTrust, error) {
	if r, here := s.cfg.Host.Get(d.Segment); here {
		return ledger(r.Machine.State(), whole), nil
	}
	var problems []error
	for _, v := range d.Voters() {
		conn, err := s.cfg.Peers.Conn(v.Node)
		if err == nil {
			var reply *meshpb.TrustReply
			req := &meshpb.TrustRequest{Segment: uint64(d.Segment), Ledger: whole}
			if reply, err = meshpb.NewScopesClient(conn).Trust(ctx, req); err == nil && len(reply.GetSegments()) == 1 {
				return reply.GetSegments()[0], nil
			}
		}
		problems = append(problems, err)
	}
	return nil, status.Errorf(codes.Unavailable, "no anchor of segment %s answers: %v", d.Segment, errors.Join(problems...))
}

// ledger shows a segment's ledger with the weights behind each step; whole: as it is
// stored, too.
func ledger(state *machine.State, whole bool) *meshpb.SegmentTrust {
	d, l := state.Descriptor, state.Trust
	out := &meshpb.SegmentTrust{Segment: uint64(d.Segment), Start: d.Range.Start, End: d.Range.End, Version: l.Version()}
	if whole {
		out.Ledger = l.Encode()
	}
	voters := state.Electorate()
	for _, w := range l.Of(state.VoterNodes()) {
		out.Weights = append(out.Weights, &meshpb.TrustWeight{Node: string(w.Node), Weight: w.Weight, Effective: voters.Weight(w.Node)})
	}
	for _, w := range l.Weights() {
		if voters.Weight(w.Node) == 0 {
			out.Weights = append(out.Weights, &meshpb.TrustWeight{Node: string(w.Node), Weight: w.Weight})
		}
	}
	for _, step := range l.History() {
		shown := &meshpb.TrustStep{Version: step.Version, Index: step.Index, Term: step.Term}
		weights, _ := l.At(step.Version)
		for _, o := range step.Opinions {
			shown.Opinions = append(shown.Opinions, &meshpb.TrustOpinion{Node: string(o.Node), Points: int32(o.Points), Of: uint32(o.Of), Weight: weightOf(weights, o.Node)})
		}
		out.History = append(out.History, shown)
	}
	return out
}

func weightOf(weights []trust.Weight, node anchormesh.NodeID) uint32 {
	for _, w := range weights {
		if w.Node == node {
			return w.Weight
		}
	}
	return trust.Newcomer
}
