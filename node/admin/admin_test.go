package admin_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/admin"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

const (
	meshID  anchormesh.MeshID    = 7
	segment anchormesh.SegmentID = 9
)

// start runs a node with a segment of its own and the service on top.
func start(t *testing.T, net *meshtest.Network, check func(context.Context) error) (*hosttest.Node, *admin.Service) {
	t.Helper()
	n := hosttest.Start(t, hosttest.NewDisk(t), net, "a")
	if err := n.Host.Genesis(meshID, segment, "east", 3); err != nil {
		t.Fatal(err)
	}
	n.Put(segment, "k", "v")
	return n, admin.New(admin.Config{
		Mesh: n.Mesh, Host: n.Host, Engine: n.Engine, Table: n.Table, Addresses: &meshpb.Addresses{Client: "here:1"},
		Started: time.UnixMilli(5000), Check: check,
		Figures: func(out *meshpb.StatusReply) { out.Leases = 11 },
		Load: func(out *meshpb.SegmentInfo) {
			out.Rates, out.Pressure, out.Spread, out.SizeBytes = &meshpb.Rates{WritesPerSecond: 3}, 0.5, 0.25, 10
		},
		Nodes: func() []place.Node { return nil },
	})
}

func well(context.Context) error { return nil }

func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		_, s := start(t, net, well)
		for _, id := range []anchormesh.NodeID{"dead", "gone"} {
			net.Add(id, mesh.Member{Zone: "west", Version: "1.2", PeerAddrs: []string{"/memory/1"}, ClientURLs: []string{"http://c"}})
		}
		time.Sleep(time.Minute)
		net.Observe("a", "dead", mesh.Dead)
		net.Observe("a", "gone", mesh.Left)
		reply, err := s.Nodes(t.Context(), &meshpb.NodesRequest{})
		if err != nil || reply.Mesh != uint64(meshID) || len(reply.Nodes) != 3 {
			t.Fatalf("%v, %v", reply, err)
		}
		states := map[string]meshpb.NodeState{
			"a": meshpb.NodeState_NODE_STATE_ALIVE, "dead": meshpb.NodeState_NODE_STATE_DEAD, "gone": meshpb.NodeState_NODE_STATE_LEFT,
		}
		for _, n := range reply.Nodes {
			if n.State != states[n.Id] || n.Self != (n.Id == "a") || n.MemberId != anchormesh.NodeID(n.Id).MemberID() {
				t.Errorf("%v", n)
			}
			if n.Id == "dead" && (n.SinceUnixMs != time.Now().UnixMilli() || n.Zone != "west" || n.Version != "1.2" ||
				len(n.PeerAddrs) != 1 || len(n.ClientUrls) != 1) {
				t.Errorf("%v", n)
			}
		}
	})
}

// Of a segment that this node leads all is known.
func TestSegmentsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := start(t, meshtest.NewNetwork(1), well)
		silentLearner(t, n)
		for i := range 5 {
			n.Put(segment, "more", string(rune('a'+i)))
		}
		n.Commit(segment)
		time.Sleep(10 * time.Second) // long enough to hold the learner for silent
		reply, err := s.Segments(t.Context(), &meshpb.SegmentsRequest{})
		if err != nil || reply.Mesh != uint64(meshID) || len(reply.Segments) != 1 {
			t.Fatalf("%v, %v", reply, err)
		}
		own := reply.Segments[0]
		st, _ := n.Engine.Status(segment)
		if !own.Local || own.Leader != "a" || own.Term != st.Term || own.Applied != st.Applied || own.Revision != 7 ||
			own.CompactRevision != -1 || own.SizeBytes <= 0 || own.Rates.GetWritesPerSecond() != 3 || own.Pressure != 0.5 || own.Spread != 0.25 {
			t.Errorf("%v", own)
		}
		if len(own.Lags) != 2 || !own.Lags[0].Active || own.Lags[0].Entries != 0 || own.Lags[1].Active || own.Lags[1].Entries != st.Applied {
			t.Errorf("anchors %v, applied %d", own.Lags, st.Applied)
		}
	})
}

// Of segments elsewhere the table's word is shown, in the order of their keys.
func TestSegmentsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "b")
		s := admin.New(admin.Config{Mesh: n.Mesh, Host: n.Host, Engine: n.Engine, Table: n.Table})
		for id, keys := range map[anchormesh.SegmentID]anchormesh.KeyRange{
			3: {End: []byte("g")}, 1: {Start: []byte("g"), End: []byte("p")}, 2: {Start: []byte("p")},
		} {
			n.Table.Learn(&anchormesh.Descriptor{
				Mesh: meshID, Segment: id, Generation: 2, Range: keys,
				Anchors: []anchormesh.Anchor{{Node: "z", Replica: 1, Role: anchormesh.Voter}},
			})
		}
		n.Table.SetLeader(1, "z")
		reply, err := s.Segments(t.Context(), &meshpb.SegmentsRequest{})
		if err != nil || len(reply.Segments) != 3 {
			t.Fatalf("%v, %v", reply, err)
		}
		for i, want := range []uint64{3, 1, 2} {
			far := reply.Segments[i]
			if far.GetDescriptor_().GetSegment() != want || far.Local || far.Applied != 0 || far.Rates != nil || len(far.Lags) != 0 ||
				(far.Leader == "z") != (want == 1) {
				t.Errorf("place %d: %v", i, far)
			}
		}
	})
}

// pager answers as the service does, in memory.
type pager struct {
	meshpb.MeshClient
	service *admin.Service
	asked   int
}

func (p *pager) Segments(ctx context.Context, req *meshpb.SegmentsRequest, _ ...grpc.CallOption) (*meshpb.SegmentsReply, error) {
	p.asked++
	return p.service.Segments(ctx, req)
}

// Thousands of segments come in pages that are together what there is; who does not wait
// any more is not worked for.
func TestSegmentsInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "b")
		s := admin.New(admin.Config{Mesh: n.Mesh, Host: n.Host, Engine: n.Engine, Table: n.Table})
		const total = 2*meshpb.SegmentsPage + 1
		key := func(i int) []byte { return fmt.Appendf(nil, "%06d", i) }
		for i := range total {
			keys := anchormesh.KeyRange{Start: key(i), End: key(i + 1)}
			n.Table.Learn(&anchormesh.Descriptor{
				Mesh: meshID, Segment: anchormesh.SegmentID(i + 1), Generation: 2, Range: keys,
				Anchors: []anchormesh.Anchor{{Node: "z", Replica: 1, Role: anchormesh.Voter}},
			})
		}
		p, seen := &pager{service: s}, uint64(0)
		_, err := meshpb.EachSegment(t.Context(), p, func(info *meshpb.SegmentInfo) error {
			if seen++; info.GetDescriptor_().GetSegment() != seen {
				t.Fatalf("segment %d comes at place %d", info.GetDescriptor_().GetSegment(), seen)
			}
			return nil
		})
		if err != nil || seen != total || p.asked != 3 {
			t.Errorf("%d segments in %d pages, %v", seen, p.asked, err)
		}
		reply, err := s.Segments(t.Context(), &meshpb.SegmentsRequest{Start: []byte("0000055"), Limit: 1})
		if err != nil || len(reply.Segments) != 1 || string(reply.Segments[0].Descriptor_.Start) != "000006" || string(reply.Next) != "000007" {
			t.Errorf("%v, %v", reply, err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Segments(gone, &meshpb.SegmentsRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("for one that has gone: %v", err)
		}
	})
}

// silentLearner adds an anchor on a node that does not exist.
func silentLearner(t *testing.T, n *hosttest.Node) {
	t.Helper()
	r, _ := n.Host.Get(segment)
	d := r.Machine.Descriptor().Clone()
	d.NextReplica = 3
	d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: "nobody", Replica: 2, Role: anchormesh.Learner})
	cc := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(2))}}}
	done := make(chan error, 1)
	n.Engine.ChangeConf(segment, d.Generation, cc, meshpb.EncodeDescriptor(d), func(res consensus.Result) { done <- res.Err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := start(t, meshtest.NewNetwork(1), well)
		st, err := s.Status(t.Context(), &meshpb.StatusRequest{})
		if err != nil || !st.Ready || len(st.Problems) != 0 || st.Segments != 1 || st.Leading != 1 || st.Leases != 11 ||
			st.Mesh != uint64(meshID) || !st.Node.Self || st.StartedUnixMs != 5000 || st.Addresses.GetClient() != "here:1" {
			t.Errorf("%v, %v", st, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, s := start(t, meshtest.NewNetwork(1), func(context.Context) error { return errors.New("no majority") })
		if st, err := s.Status(t.Context(), &meshpb.StatusRequest{}); err != nil || st.Ready || len(st.Problems) != 1 ||
			st.Problems[0] != "a linearizable read fails: no majority" {
			t.Errorf("%v, %v", st, err)
		}
	})
	// A check that hangs does not hang the answer.
	synctest.Test(t, func(t *testing.T) {
		_, s := start(t, meshtest.NewNetwork(1), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		begin := time.Now()
		if st, err := s.Status(t.Context(), &meshpb.StatusRequest{}); err != nil || st.Ready || time.Since(begin) > 3*time.Second {
			t.Errorf("after %v: %v, %v", time.Since(begin), st, err)
		}
	})
}
