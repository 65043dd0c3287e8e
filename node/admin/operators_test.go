package admin_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/admin"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

// orders takes what would be carried out.
type orders struct{ moves, transfers []string }

func (o *orders) Split(context.Context, anchormesh.SegmentID, []byte, lineage.Evidence, bool) (anchormesh.SegmentID, error) {
	return 0, nil
}

func (o *orders) Move(_ anchormesh.SegmentID, from, to anchormesh.NodeID, dry bool) error {
	if !dry {
		o.moves = append(o.moves, string(from+">"+to))
	}
	return nil
}

func (o *orders) Transfer(_ context.Context, _ anchormesh.SegmentID, to anchormesh.NodeID) error {
	o.transfers = append(o.transfers, string(to))
	return nil
}

func (o *orders) Yield(context.Context, anchormesh.SegmentID) (anchormesh.NodeID, error) {
	return "b", nil
}

// Orders name nodes by ID or name; what cannot be is refused before anything is done,
// and a dry run does nothing.
func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		n := hosttest.Start(t, hosttest.NewDisk(t), net, "a")
		if err := n.Host.Genesis(meshID, segment, "east", 3); err != nil {
			t.Fatal(err)
		}
		n.Put(segment, "k", "v")
		for id, name := range map[anchormesh.NodeID]string{"b": "beta", "c": "twin", "d": "twin"} {
			net.Add(id, mesh.Member{Name: name})
		}
		net.Observe("a", "d", mesh.Dead)
		var did orders
		var leaving []bool
		left := 1
		s := admin.New(admin.Config{
			Mesh: n.Mesh, Host: n.Host, Engine: n.Engine, Table: n.Table, Steward: &did,
			Nodes: func() (out []place.Node) {
				for _, id := range []anchormesh.NodeID{"a", "b"}[:left] {
					out = append(out, place.Node{Member: recruit.Member{Node: id, Alive: true}, Replicas: 5, Leaders: 2})
				}
				return out
			},
			SetLeaving: func(l bool) error { leaving = append(leaving, l); return nil },
		})
		refused := func(what string, err error, code codes.Code, text string) {
			t.Helper()
			if status.Code(err) != code || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %v with %q", what, err, code, text)
			}
		}
		drain := func(node string, dry, undo bool) (*meshpb.DrainReply, error) {
			return s.Drain(t.Context(), &meshpb.DrainRequest{Node: node, DryRun: dry, Undo: undo})
		}
		_, err := drain("nobody", false, false)
		refused("unknown node", err, codes.NotFound, "nobody")
		_, err = drain("twin", false, false)
		refused("ambiguous name", err, codes.FailedPrecondition, "by its ID")
		_, err = drain("d", false, false)
		refused("dead node", err, codes.FailedPrecondition, "does not run")
		_, err = drain("a", false, false)
		refused("the last node", err, codes.FailedPrecondition, "anchors are asked for")
		left = 2
		if r, err := drain("a", true, false); err != nil || r.GetReplicas() != 5 || r.GetLeaders() != 2 || len(leaving) != 0 {
			t.Errorf("dry run: %v, %v, told %v", r, err, leaving)
		}
		if _, err := drain("a", false, false); err != nil {
			t.Error(err)
		}
		if _, err := drain("a", false, true); err != nil || len(leaving) != 2 || !leaving[0] || leaving[1] {
			t.Errorf("drained and back: %v, %v", leaving, err)
		}
		_, err = s.Move(t.Context(), &meshpb.MoveRequest{Segment: 77, From: "a", To: "b"})
		refused("unknown segment", err, codes.NotFound, "no such segment")
		_, err = s.Move(t.Context(), &meshpb.MoveRequest{From: "a", To: "b"})
		refused("no segment", err, codes.InvalidArgument, "not named")
		_, err = s.Move(t.Context(), &meshpb.MoveRequest{Segment: uint64(segment), From: "a", To: "nobody"})
		refused("unknown target", err, codes.NotFound, "nobody")
		if r, err := s.Move(t.Context(), &meshpb.MoveRequest{Segment: uint64(segment), From: "c", To: "beta"}); err != nil || r.GetTo() != "b" {
			t.Errorf("%v, %v", r, err)
		}
		if r, err := s.Transfer(t.Context(), &meshpb.TransferRequest{Segment: uint64(segment), To: "beta"}); err != nil || r.GetTo() != "b" || r.GetFrom() != "a" {
			t.Errorf("%v, %v", r, err)
		}
		if len(did.moves) != 1 || did.moves[0] != "c>b" || len(did.transfers) != 1 {
			t.Errorf("carried out: %+v", did)
		}
	})
}
