package main

import (
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// fakeMesh answers as a node of a mesh of two would.
type fakeMesh struct {
	meshpb.UnimplementedMeshServer
	problems []string
}

func (f *fakeMesh) Nodes(context.Context, *meshpb.NodesRequest) (*meshpb.NodesReply, error) {
	return &meshpb.NodesReply{Mesh: 0xabc, Nodes: []*meshpb.NodeInfo{f.node(), {
		Id: "12D3KooWother", MemberId: 2, Name: "b", Zone: "west", Version: "0.1.0",
		State: meshpb.NodeState_NODE_STATE_DEAD, SinceUnixMs: 1_700_000_100_000,
	}}}, nil
}

func (f *fakeMesh) node() *meshpb.NodeInfo {
	return &meshpb.NodeInfo{
		Id: "12D3KooWself", MemberId: 0xff, Name: "a", Version: "0.1.0", Self: true,
		State: meshpb.NodeState_NODE_STATE_ALIVE, SinceUnixMs: 1_700_000_000_000,
		ClientUrls: []string{"http://10.0.0.1:2379"}, PeerAddrs: []string{"/ip4/10.0.0.1/tcp/2380"},
		Standing: &meshpb.Standing{Leaving: true, Replicas: 12, Leaders: 4, Room: 100, Load: 1.25},
	}
}

func (f *fakeMesh) Segments(context.Context, *meshpb.SegmentsRequest) (*meshpb.SegmentsReply, error) {
	d := &anchormesh.Descriptor{
		Mesh: 0xabc, Segment: 7, Generation: 1, Changed: 9, NextReplica: 3,
		Range: anchormesh.KeyRange{End: []byte("m\x00")},
		Anchors: []anchormesh.Anchor{
			{Node: "12D3KooWself", Replica: 1, Role: anchormesh.Voter},
			{Node: "12D3KooWother", Replica: 2, Role: anchormesh.Learner, Zone: "west"},
		},
	}
	far := d.Clone()
	far.Segment, far.Range = 8, anchormesh.KeyRange{Start: []byte("m\x00")}
	return &meshpb.SegmentsReply{Mesh: 0xabc, Segments: []*meshpb.SegmentInfo{
		{
			Descriptor_: meshpb.ToPB(d), Leader: "12D3KooWself", Term: 4, Applied: 100, Revision: 42, SizeBytes: 5 << 20,
			Rates: &meshpb.Rates{WritesPerSecond: 12.4}, Pressure: 0.25, Spread: 0.9, Local: true,
			Keys: 17, Decision: "none", Reason: "pressure is 250 ‰", Group: "1 of 3 voters, 1 learner",
			Lags: []*meshpb.AnchorLag{{Replica: 1, Active: true}, {Replica: 2, Entries: 12, Active: true}},
		},
		{Descriptor_: meshpb.ToPB(far)},
	}}, nil
}

func (f *fakeMesh) Status(context.Context, *meshpb.StatusRequest) (*meshpb.StatusReply, error) {
	return &meshpb.StatusReply{
		Node: f.node(), Mesh: 0xabc, StartedUnixMs: 1_700_000_000_000, Ready: len(f.problems) == 0, Problems: f.problems,
		Segments: 2, Leading: 1, LogBytes: 64 << 20, StoreBytes: 1536, QuotaBytes: 2 << 30, Watches: 3, Leases: 1,
	}, nil
}

// Drain, Move and Transfer refuse what is called gone.
func (f *fakeMesh) Drain(_ context.Context, req *meshpb.DrainRequest) (*meshpb.DrainReply, error) {
	if req.GetNode() == "gone" {
		return nil, status.Error(codes.NotFound, "this node knows no node \"gone\"")
	}
	return &meshpb.DrainReply{Node: "12D3KooWself", Replicas: 12, Leaders: 4}, nil
}

func (f *fakeMesh) Move(_ context.Context, req *meshpb.MoveRequest) (*meshpb.MoveReply, error) {
	if req.GetTo() == "gone" {
		return nil, status.Error(codes.FailedPrecondition, "node gone is not alive")
	}
	return &meshpb.MoveReply{From: "id of " + req.GetFrom(), To: "id of " + req.GetTo()}, nil
}

func (f *fakeMesh) Transfer(_ context.Context, req *meshpb.TransferRequest) (*meshpb.TransferReply, error) {
	return &meshpb.TransferReply{From: "old", To: req.GetTo()}, nil
}

func serveFake(t *testing.T, f *fakeMesh) string {
	return listen(t, func(s *grpc.Server) {
		if f != nil {
			meshpb.RegisterMeshServer(s, f)
		}
	})
}

func listen(t *testing.T, register func(*grpc.Server)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestAnswersLookAsTheyShould(t *testing.T) {
	addr := serveFake(t, &fakeMesh{})
	for _, command := range []string{"nodes", "segments", "status"} {
		for _, form := range []string{"table", "json"} {
			status, out, errs := call(t, command, "-o", form, "--endpoint", addr)
			if status != exitDone || errs != "" {
				t.Errorf("%s: status %d, stderr %q", command, status, errs)
			}
			if form == "json" && !json.Valid([]byte(out)) {
				t.Errorf("%s: not JSON:\n%s", command, out)
			}
			// The port is drawn by the system; its width moves the table.
			out = strings.ReplaceAll(out, addr+strings.Repeat(" ", len("127.0.0.1:65535")-len(addr)), "127.0.0.1:ANYPT")
			out = strings.ReplaceAll(out, addr, "127.0.0.1:ANYPT")
			golden(t, command+"."+form, out)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s (%v): got\n%s\nwant\n%s", path, err, got, want)
	}
}

func TestTheFirstEndpointThatAnswersIsEnough(t *testing.T) {
	addr := serveFake(t, &fakeMesh{})
	t.Setenv("ANCHORMESH_ENDPOINTS", "127.0.0.1:1,http://"+addr)
	if status, out, errs := call(t, "nodes"); status != exitDone || !strings.Contains(out, "12D3KooWself") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestStatusFailsForANodeThatIsNotReady(t *testing.T) {
	good, bad := serveFake(t, &fakeMesh{}), serveFake(t, &fakeMesh{problems: []string{"no leader", "disk full"}})
	status, out, errs := call(t, "status", "--endpoints", good+","+bad+",127.0.0.1:1")
	if status != exitFailed || strings.Count(out, "\n") != 3 ||
		!strings.Contains(errs, bad+" is not ready: no leader; disk full") || !strings.Contains(errs, "127.0.0.1:1: ") {
		t.Errorf("status %d, stdout:\n%s\nstderr:\n%s", status, out, errs)
	}
}

func TestAnotherGRPCServerIsNamedForWhatItIs(t *testing.T) {
	if status, _, errs := call(t, "nodes", "--endpoint", serveFake(t, nil)); status != exitFailed || !strings.Contains(errs, "this is no AnchorMesh node") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestOrdersAreTakenOrRefused(t *testing.T) {
	addr := serveFake(t, &fakeMesh{})
	for _, c := range []struct {
		args   string
		status int
		text   string // of the answer, or of the complaint
	}{
		{"drain a", exitDone, "node a is being drained: it holds 12 replicas and leads 4 segments"},
		{"drain a --dry-run", exitDone, "node a would be drained"},
		{"drain a --undo", exitDone, "node a takes replicas again"},
		{"drain a -o json", exitDone, `"replicas": 12`},
		{"drain gone", exitFailed, "knows no node"},
		{"drain", exitUsage, "its name or ID"},
		{"move 0000000000000007 a b", exitDone, "segment 0000000000000007 moves: from id of a to id of b"},
		{"move 0000000000000007 a b --dry-run -o json", exitDone, `"dry_run": true`},
		{"move 0000000000000007 a gone", exitFailed, "not alive"},
		{"move seven a b", exitUsage, "seven"},
		{"move 0000000000000007 a", exitUsage, "two nodes"},
		{"transfer 0000000000000007 b", exitDone, "segment 0000000000000007 is led: from old to b"},
		{"transfer 0000000000000007 old", exitDone, "is led by old already"},
		{"transfer 0000000000000007", exitUsage, "the node that is to lead it"},
	} {
		got, out, errs := call(t, append(strings.Fields(c.args), "--endpoint", addr)...)
		if got != c.status || !strings.Contains(out+errs, c.text) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", c.args, got, out, errs)
		}
	}
}
