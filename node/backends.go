package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/compactor"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// backends answers what etcd's API asks about the node and the mesh.
type backends struct {
	*assembly
	self  anchormesh.NodeID
	quota int64
	log   *slog.Logger
}

// Members implements etcdapi.Cluster: the nodes of the mesh. Those that left
// are gone; dead ones stay until gossip forgets them.
func (b *backends) Members(ctx context.Context, linearizable bool) ([]*pb.Member, error) {
	if linearizable {
		if err := b.check(ctx); err != nil {
			return nil, err
		}
	}
	var out []*pb.Member
	for _, m := range b.mesh.View().Members() {
		if m.State == mesh.Left {
			continue
		}
		out = append(out, &pb.Member{ID: m.ID.MemberID(), Name: m.Name, PeerURLs: m.PeerAddrs, ClientURLs: m.ClientURLs})
	}
	slices.SortFunc(out, func(a, b *pb.Member) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// root is the segment that holds the lowest key: what Status speaks of.
func (b *backends) root() (*anchormesh.Descriptor, consensus.Status, bool) {
	d, ok := b.table.Lookup(nil)
	if !ok {
		return nil, consensus.Status{}, false
	}
	st, ok := b.engine.Status(d.Segment)
	return d, st, ok
}

// Status implements etcdapi.Maintenance.
func (b *backends) Status(context.Context) (*pb.StatusResponse, error) {
	out := &pb.StatusResponse{DbSizeQuota: b.quota}
	if b.quota == math.MaxInt64 {
		out.DbSizeQuota = -1 // as etcd shows that there is none
	}
	b.stores.Each(func(s *mvcc.Store) {
		total, inUse := s.SizeBytes()
		out.DbSize += total
		out.DbSizeInUse += inUse
	})
	out.Errors, out.Header = b.alarms(), &pb.ResponseHeader{Revision: b.newest()}
	d, st, here := b.root()
	if d == nil {
		return out, nil
	}
	if leader, ok := b.table.Leader(d.Segment); ok {
		out.Leader = leader.MemberID()
	}
	if mine, ok := d.AnchorOn(b.self); ok {
		out.IsLearner = mine.Role == anchormesh.Learner
	}
	if here {
		out.RaftTerm, out.RaftIndex, out.RaftAppliedIndex = st.Term, max(st.Commit, st.Applied), st.Applied
	}
	return out, nil
}

// newest is the newest revision that any replica here has applied.
func (b *backends) newest() (newest anchormesh.Revision) {
	for _, id := range b.host.Segments() {
		if r, here := b.host.Get(id); here {
			rev, _ := r.Machine.Segment().Revision()
			newest = max(newest, rev)
		}
	}
	return newest
}

// alarms names what is raised in any replica here, each once.
func (b *backends) alarms() (out []string) {
	for _, id := range b.host.Segments() {
		r, ok := b.host.Get(id)
		if !ok {
			continue
		}
		for _, alarm := range r.Machine.Space().Alarms(codec.AlarmNone) {
			text := (&pb.AlarmMember{MemberID: alarm.MemberID, Alarm: pb.AlarmType(alarm.Alarm)}).String()
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}

// HashKV implements etcdapi.Maintenance: of the replica here, as in etcd, else
// of an anchor's; over several segments of all of them.
func (b *backends) HashKV(ctx context.Context, revision int64) (*pb.HashKVResponse, error) {
	d, ok := b.table.Lookup(nil)
	if !ok {
		return nil, etcdapi.ErrNoLeader
	}
	if d.Stamped {
		return b.hashLine(ctx, revision)
	}
	r, here := b.host.Get(d.Segment)
	if !here {
		return b.hashElsewhere(ctx, d, revision)
	}
	b.host.CatchUp(ctx, r)
	h, err := r.Machine.Space().HashKV(revision)
	if err != nil {
		return nil, err
	}
	out := &pb.HashKVResponse{Header: &pb.ResponseHeader{}, Hash: h.Hash, CompactRevision: h.Compacted, HashRevision: h.Revision}
	if revision == 0 {
		out.Header.Revision = h.Revision // the newest when the hash was taken
	}
	return out, nil
}

func (b *backends) hashElsewhere(ctx context.Context, d *anchormesh.Descriptor, revision int64) (*pb.HashKVResponse, error) {
	ctx, ok := etcdapi.Relay(ctx)
	if !ok {
		return nil, etcdapi.ErrNotAnchor
	}
	for _, v := range d.Voters() {
		if !b.mesh.Connected(v.Node) {
			continue
		}
		conn, err := b.peers.Conn(v.Node)
		if err != nil {
			return nil, err
		}
		return pb.NewMaintenanceClient(conn).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
	}
	return nil, etcdapi.ErrUnhealthy
}

// Defragment implements etcdapi.Maintenance.
func (b *backends) Defragment(context.Context) error {
	var err error
	b.stores.Each(func(s *mvcc.Store) {
		if err == nil {
			err = s.Defrag()
		}
	})
	return err
}

// MoveLeader implements etcdapi.Maintenance: every segment that this node leads
// and in which the member may lead goes to it.
func (b *backends) MoveLeader(ctx context.Context, member uint64) error {
	led, may := false, false
	for _, id := range b.host.Segments() {
		st, ok := b.engine.Status(id)
		r, here := b.host.Get(id)
		if !ok || !here || !st.Leads() {
			continue
		}
		led = true
		to, ok := voterOf(r.Machine.Descriptor(), member)
		if !ok {
			continue
		}
		may = true
		if err := b.handTo(ctx, id, to); err != nil {
			return err
		}
	}
	switch {
	case !led:
		return etcdapi.ErrNotLeader
	case !may:
		return etcdapi.ErrBadTransferee
	}
	return nil
}

// handTo moves a leadership and waits until this node has heard that the new
// leader leads.
func (b *backends) handTo(ctx context.Context, id anchormesh.SegmentID, to anchormesh.ReplicaID) error {
	b.engine.TransferLeader(id, to)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if st, ok := b.engine.Status(id); !ok || st.Status.Leader == to {
			return nil
		}
		select {
		case <-ctx.Done():
			return etcdapi.ErrTimeoutTransfer
		case <-ticker.C:
		}
	}
}

func voterOf(d *anchormesh.Descriptor, member uint64) (anchormesh.ReplicaID, bool) {
	for _, v := range d.Voters() {
		if v.Node.MemberID() == member {
			return v.Replica, true
		}
	}
	return 0, false
}

// Header implements etcdapi.Node.
func (b *backends) Header() codec.Header {
	h := codec.Header{ClusterID: uint64(b.host.Mesh()), MemberID: b.self.MemberID()}
	d, st, ok := b.root()
	if !ok {
		return h
	}
	h.RaftTerm = st.Term
	if r, here := b.host.Get(d.Segment); here {
		h.Revision, _ = r.Machine.Segment().Revision()
	}
	return h
}

// KeysLed implements etcdapi.Node.
func (b *backends) KeysLed(keys anchormesh.KeyRange) bool {
	covering, whole := b.table.Covering(keys)
	for _, d := range covering {
		if !b.led(d) {
			return false
		}
	}
	return whole
}

// led reports whether a segment has a leader, as far as this node can tell. Of one that
// is anchored elsewhere it hears only when it forwards, and asks then; but while too many
// of the voters' nodes are gone nobody leads it.
func (b *backends) led(d *anchormesh.Descriptor) bool {
	if _, here := b.host.Get(d.Segment); here {
		_, ok := b.table.Leader(d.Segment)
		return ok
	}
	voters, there := d.Voters(), 0
	view := b.mesh.View()
	for _, v := range voters {
		if m, ok := view.Get(v.Node); ok && m.State == mesh.Alive {
			there++
		}
	}
	return there > len(voters)/2
}

// LeasesLed implements etcdapi.Node.
func (b *backends) LeasesLed() bool {
	return b.KeysLed(anchormesh.KeyRange{Start: nil, End: []byte{0}})
}

// figures fills sizes and counts for `anchormesh status`.
func (b *backends) figures(out *meshpb.StatusReply) {
	out.LogBytes, out.QuotaBytes = b.wal.Stats().DiskBytes, b.quota
	b.stores.Each(func(s *mvcc.Store) {
		total, inUse := s.SizeBytes()
		out.StoreBytes += total
		out.StoreInUseBytes += inUse
	})
	for _, id := range b.host.Segments() {
		if r, ok := b.host.Get(id); ok {
			out.Watches += uint64(r.Hub.Stats().Watches)
			out.Leases += uint64(len(r.Machine.Space().Leases()))
		}
	}
}

// compactions lets the compactor act on the segments led here. A scope that was split
// is compacted as a whole, by the leader of its home, at revisions of its line.
type compactions struct{ *assembly }

// lineWait bounds the question for a line's newest revision.
const lineWait = 5 * time.Second

// Led implements compactor.Segments.
func (c compactions) Led(ctx context.Context) map[anchormesh.SegmentID]int64 {
	ctx, cancel := context.WithTimeout(ctx, lineWait)
	defer cancel()
	out := make(map[anchormesh.SegmentID]int64)
	for _, id := range c.host.Segments() {
		st, ok := c.engine.Status(id)
		r, here := c.host.Get(id)
		if !ok || !here || !st.Leads() {
			continue
		}
		switch d := r.Machine.Descriptor(); {
		case !d.Stamped:
			out[id], _ = r.Machine.Segment().Revision()
		case d.LineHome():
			if newest, err := c.lines.Now(ctx, d.Line); err == nil {
				out[id] = newest
			}
		}
	}
	return out
}

// Compact implements compactor.Segments.
func (c compactions) Compact(ctx context.Context, id anchormesh.SegmentID, revision int64) error {
	return c.requests.Compact(ctx, id, revision)
}

// Kept implements compactor.Segments.
func (c compactions) Kept() (out []compactor.Kept) {
	for _, id := range c.host.Segments() {
		r, here := c.host.Get(id)
		if !here {
			continue
		}
		p := r.Machine.State().Policy
		if p == nil || p.Retention.Seconds == 0 && p.Retention.Writes == 0 {
			continue // thousands have none
		}
		if st, ok := c.engine.Status(id); !ok || !st.Leads() {
			continue
		}
		u := r.Machine.Space().Usage()
		out = append(out, compactor.Kept{
			Segment:   id,
			Retention: compactor.Retention{Period: time.Duration(p.Retention.Seconds) * time.Second, Writes: p.Retention.Writes},
			At:        compactor.Position{Revision: u.Revision, Compacted: u.Compacted, Writes: u.Writes},
		})
	}
	return out
}

// CompactOwn implements compactor.Segments.
func (c compactions) CompactOwn(ctx context.Context, id anchormesh.SegmentID, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, lineWait)
	defer cancel()
	return c.requests.CompactOwn(ctx, id, revision)
}

var (
	errNoMesh    = errors.New("this node belongs to no mesh yet")
	errNoSegment = errors.New("this node knows no segment yet")
	errNoLeader  = errors.New("no leader answers: the segment has no majority of its anchors, or it is out of reach")
)

// ready does one linearizable read; its error says what is missing.
func (a *assembly) ready(ctx context.Context) error {
	switch {
	case a.host.Mesh() == 0:
		return errNoMesh
	case len(a.table.All()) == 0:
		return errNoSegment
	}
	err := a.check(ctx)
	if errors.Is(err, etcdapi.ErrTimeoutLeaderFail) {
		return errNoLeader
	}
	return err
}

// check does one linearizable read of the lowest key.
func (a *assembly) check(ctx context.Context) error {
	raw, err := proto.Marshal(&pb.RangeRequest{Key: []byte{0}, CountOnly: true})
	if err != nil {
		return err
	}
	call, err := etcdapi.ForwardedCall(etcdapi.MethodRange, append([]byte{0}, raw...))
	if err != nil {
		return err
	}
	_, err = a.requests.Do(ctx, call)
	return err
}
