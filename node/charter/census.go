package charter

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
)

// censusWait bounds how long a node may take to count.
const censusWait = 3 * time.Second

// Census implements meshpb.ScopesServer.
func (s *Service) Census(_ context.Context, req *meshpb.CensusRequest) (*meshpb.CensusReply, error) {
	keys := anchormesh.KeyRange{Start: req.GetStart(), End: req.GetEnd()}
	out := &meshpb.CensusReply{}
	for _, id := range s.cfg.Host.Segments() {
		r, here := s.cfg.Host.Get(id)
		if !here {
			continue
		}
		part := r.Machine.Descriptor().Range.Intersect(keys)
		if part.Empty() {
			continue
		}
		out.Watchers += uint64(r.Hub.Watching(part))
		if st, ok := s.cfg.Engine.Status(id); !ok || !st.Leads() {
			continue
		}
		if err := s.count(out, id, r, part); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// weighed is how many keys a census looks at to know how large they are; of more the
// first ones stand for the rest.
const weighed = 1000

// count adds what a replica holds in a part of its range.
func (s *Service) count(out *meshpb.CensusReply, id anchormesh.SegmentID, r *host.Replica, part anchormesh.KeyRange) error {
	view := r.Machine.Segment().Read()
	defer view.Close()
	start, end := part.Start, part.End
	if len(start) == 0 {
		start = []byte{0}
	}
	if len(end) == 0 {
		end = []byte{0} // etcd's way to say: to the end
	}
	res, err := view.Range(start, end, 0, weighed, false)
	if err != nil {
		return status.Errorf(codes.Unavailable, "segment %s: %v", id, err)
	}
	out.Counted++
	out.Keys += uint64(res.Count)
	out.Leases += uint64(r.Machine.Space().LeasesIn(part))
	var bytes int64
	for i := range res.KVs {
		bytes += int64(len(res.KVs[i].Key) + len(res.KVs[i].Value()))
	}
	if n := int64(len(res.KVs)); n > 0 {
		out.Bytes += bytes * res.Count / n
	}
	return nil
}

// everywhere counts on all nodes, and names those that did not answer.
func (s *Service) everywhere(ctx context.Context, keys anchormesh.KeyRange) (sum *meshpb.CensusReply, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, censusWait)
	defer cancel()
	var nodes []mesh.Member
	for _, m := range s.cfg.Mesh.View().Members() {
		if m.State == mesh.Alive {
			nodes = append(nodes, m)
		}
	}
	replies := make([]*meshpb.CensusReply, len(nodes))
	var asked errgroup.Group
	asked.SetLimit(asksMax)
	req := &meshpb.CensusRequest{Start: keys.Start, End: keys.End}
	for i, m := range nodes {
		asked.Go(func() error {
			if m.ID == s.cfg.Mesh.Self().ID {
				replies[i], _ = s.Census(ctx, req)
			} else if conn, err := s.cfg.Peers.Conn(m.ID); err == nil {
				replies[i], _ = meshpb.NewScopesClient(conn).Census(ctx, req) // who fails is named below
			}
			return nil
		})
	}
	_ = asked.Wait()
	sum = &meshpb.CensusReply{}
	for i, r := range replies {
		if r == nil {
			silent = append(silent, nodes[i].Name)
			continue
		}
		sum.Keys += r.GetKeys()
		sum.Bytes += r.GetBytes()
		sum.Leases += r.GetLeases()
		sum.Watchers += r.GetWatchers()
		sum.Counted += r.GetCounted()
	}
	return sum, silent
}
