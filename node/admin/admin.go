package admin

import (
	"bytes"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

// Mesh is what the answers need of the mesh.
type Mesh interface {
	Self() mesh.Member
	View() mesh.View
	Connected(node anchormesh.NodeID) bool
}

// Config says where the answers come from.
type Config struct {
	Mesh      Mesh
	Host      *host.Host
	Engine    *consensus.Engine
	Table     *route.Table
	Addresses *meshpb.Addresses
	Started   time.Time
	Steward   Steward
	Peers     Peers
	Merger    Merger
	Proofs    Prover
	Hasher    Hasher
	// Check does one linearizable read.
	Check func(context.Context) error
	// Figures fills sizes and counts of the node.
	Figures func(*meshpb.StatusReply)
	// Load fills in a segment's rates, what it keeps, and what was decided about it.
	Load func(*meshpb.SegmentInfo)
	// Nodes returns all members with what is known of how they stand.
	Nodes func() []place.Node
	// Order puts an order to the vote where the operators of a scope vote, and returns
	// that scope and the proposal's number there; false: nobody has to be asked. nil: never.
	Order func(ctx context.Context, o Order) (scope []byte, proposal uint64, wanted bool, err error)
	// SetLeaving says that this node is being drained, or is not.
	SetLeaving func(bool) error
}

// Order is a split, merge or move of a segment led here that an operator wants.
type Order struct {
	Kind     string // split, merge or move
	Segment  anchormesh.SegmentID
	Key      []byte // see governor.Change
	From, To anchormesh.NodeID
	Operator string
}

// Service implements meshpb.MeshServer.
type Service struct {
	meshpb.UnimplementedMeshServer
	cfg Config
}

// New returns the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// Nodes implements meshpb.MeshServer.
func (s *Service) Nodes(context.Context, *meshpb.NodesRequest) (*meshpb.NodesReply, error) {
	out := &meshpb.NodesReply{Mesh: uint64(s.cfg.Host.Mesh())}
	self, stands := s.cfg.Mesh.Self(), s.cfg.Nodes()
	for _, m := range s.cfg.Mesh.View().Members() {
		info := nodeInfo(m, m.ID == self.ID)
		info.Standing = standing(stands, m.ID)
		out.Nodes = append(out.Nodes, info)
	}
	return out, nil
}

// standing is what a node said of itself lately; nil if nothing.
func standing(nodes []place.Node, id anchormesh.NodeID) *meshpb.Standing {
	i := slices.IndexFunc(nodes, func(n place.Node) bool { return n.Node == id })
	if i < 0 || nodes[i].Heard.IsZero() {
		return nil
	}
	n := &nodes[i]
	return &meshpb.Standing{
		Leaving: n.Leaving, Replicas: uint64(n.Replicas), Leaders: uint64(n.Leaders), Room: uint64(n.Room), Load: float64(n.Load) / 1000,
	}
}

func nodeInfo(m mesh.Member, self bool) *meshpb.NodeInfo {
	states := map[mesh.State]meshpb.NodeState{
		mesh.Alive: meshpb.NodeState_NODE_STATE_ALIVE, mesh.Left: meshpb.NodeState_NODE_STATE_LEFT, mesh.Dead: meshpb.NodeState_NODE_STATE_DEAD,
	}
	info := &meshpb.NodeInfo{
		Id: string(m.ID), MemberId: m.ID.MemberID(), Name: m.Name, Zone: m.Zone, Version: m.Version,
		PeerAddrs: m.PeerAddrs, ClientUrls: m.ClientURLs, State: states[m.State], Epoch: m.Epoch, Self: self,
	}
	if !m.Since.IsZero() {
		info.SinceUnixMs = m.Since.UnixMilli()
	}
	return info
}

// Segments implements meshpb.MeshServer. It ends when nobody waits for it any more.
func (s *Service) Segments(ctx context.Context, req *meshpb.SegmentsRequest) (*meshpb.SegmentsReply, error) {
	out := &meshpb.SegmentsReply{Mesh: uint64(s.cfg.Host.Mesh())}
	list, next := page(s.cfg.Table.All(), req.GetStart(), int(req.GetLimit()))
	out.Next = next
	for part := range slices.Chunk(list, progressAtOnce) {
		if err := ctx.Err(); err != nil {
			return nil, status.FromContextError(err).Err()
		}
		var ids []anchormesh.SegmentID
		for _, d := range part {
			ids = append(ids, d.Segment)
		}
		led := s.cfg.Engine.ProgressAll(ids)
		for _, d := range part {
			p, leads := led[d.Segment]
			out.Segments = append(out.Segments, s.segment(d, p, leads))
		}
	}
	return out, nil
}

// progressAtOnce is of how many segments the engine is asked at a time: its workers do
// nothing else meanwhile.
const progressAtOnce = 256

// page returns the descriptors whose range begins at a key or behind it, at most limit of
// them, or a few more that begin at the same key as the last, and the key at which the
// next ones begin; nil if there are none. The list is sorted. limit 0 is none.
func page(all []*anchormesh.Descriptor, start []byte, limit int) (list []*anchormesh.Descriptor, next []byte) {
	from, _ := slices.BinarySearchFunc(all, start, func(d *anchormesh.Descriptor, key []byte) int {
		return bytes.Compare(d.Range.Start, key)
	})
	list = all[from:]
	if limit <= 0 || limit >= len(list) {
		return list, nil
	}
	for limit < len(list) && bytes.Equal(list[limit].Range.Start, list[limit-1].Range.Start) {
		limit++
	}
	if limit == len(list) {
		return list, nil
	}
	return list[:limit], list[limit].Range.Start
}

// segment shows one segment; p is what its leader sees, if this node leads it.
func (s *Service) segment(d *anchormesh.Descriptor, p consensus.Progress, leads bool) *meshpb.SegmentInfo {
	leader := s.leading(d.Segment)
	info := &meshpb.SegmentInfo{Descriptor_: meshpb.ToPB(d), Leader: string(leader)}
	r, here := s.cfg.Host.Get(d.Segment)
	st, ok := s.cfg.Engine.Status(d.Segment)
	if !here || !ok {
		return info
	}
	info.Local, info.Term, info.Applied = true, st.Term, st.Applied
	info.Revision, info.CompactRevision = r.Machine.Segment().Revision()
	info.Asleep, info.Quota = st.Asleep, quotaUse(r)
	s.cfg.Load(info)
	if !leads {
		return info
	}
	for _, a := range d.Anchors {
		peer := p.Peers[a.Replica]
		lag := &meshpb.AnchorLag{Replica: uint64(a.Replica), Active: peer.RecentActive || a.Replica == st.Replica}
		if peer.Match < p.Commit {
			lag.Entries = p.Commit - peer.Match
		}
		info.Lags = append(info.Lags, lag)
	}
	return info
}

// quotaUse is what a replica's segment holds of what it may; nil where no policy says.
func quotaUse(r *host.Replica) *meshpb.QuotaUse {
	if r.Machine.State().Policy == nil {
		return nil
	}
	u := r.Machine.Space().Usage()
	return &meshpb.QuotaUse{
		Keys: u.Keys, Bytes: u.Bytes, KeysLimit: u.KeysLimit, BytesLimit: u.BytesLimit,
		RequestsPerSecond: r.Pace.PerSecond(), Shed: r.Pace.Shed(), Refused: u.Refused, Full: u.Full,
	}
}

// Status implements meshpb.MeshServer.
func (s *Service) Status(ctx context.Context, _ *meshpb.StatusRequest) (*meshpb.StatusReply, error) {
	out := &meshpb.StatusReply{
		Node: nodeInfo(s.cfg.Mesh.Self(), true), Mesh: uint64(s.cfg.Host.Mesh()),
		StartedUnixMs: s.cfg.Started.UnixMilli(), Addresses: s.cfg.Addresses,
	}
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.cfg.Check(bounded); err != nil {
		out.Problems = append(out.Problems, "a linearizable read fails: "+err.Error())
	}
	out.Ready = len(out.Problems) == 0
	for _, id := range s.cfg.Host.Segments() {
		out.Segments++
		if st, ok := s.cfg.Engine.Status(id); ok && st.Leads() {
			out.Leading++
		}
	}
	s.cfg.Figures(out)
	return out, nil
}
