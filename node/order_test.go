package node_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/governor"
)

// manual is a policy under which operators vote.
func manual(expirySeconds int) *policy.Policy {
	return &policy.Policy{Anchors: policy.Anchors{Count: 3}, Amend: policy.Amend{Manual: true, ExpirySeconds: expirySeconds}}
}

// order asks node 0 to split, again while it cannot be taken.
func (m *testMesh) order(ctx context.Context, at string) *meshpb.SplitReply {
	m.t.Helper()
	var out *meshpb.SplitReply
	m.eventually(30*time.Second, "order to split", func() bool {
		conn, err := grpc.NewClient(m.nodes[0].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			m.t.Fatal(err)
		}
		defer conn.Close()
		out, err = meshpb.NewMeshClient(conn).Split(ctx, &meshpb.SplitRequest{Boundary: []byte(at), Operator: "anna"})
		if err != nil && status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded && !passingChange(err) {
			m.t.Fatalf("split at %s: %v", at, err)
		}
		return err == nil
	})
	return out
}

// Where operators vote, their splits are proposals: listed while they are open, decided by
// votes, withdrawn, or expired, and carried out by the decision. Elsewhere a split is one
// command.
func TestOperatorsVoteOnSplits(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if r := m.order(ctx, "a"); r.GetProposal() != 0 || r.GetRight() == 0 {
		t.Fatalf("nobody has to be asked: %v", r)
	}
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/s/"), Policy: manual(0)})
	m.mustGovern(ctx, 0, governor.Change{Kind: scope.Create, Prefix: []byte("/e/"), Policy: manual(10)})
	first, second := m.order(ctx, "/s/m"), m.order(ctx, "/s/t")
	if string(first.GetScope()) != "/s/" || first.GetProposal() == 0 || first.GetRight() != 0 {
		t.Fatalf("where operators vote: %v", first)
	}
	v, err := m.scopes(1).Show(ctx, []byte("/s/"))
	if err != nil || len(v.Record.Open) != 2 || v.Record.Open[0].Kind != scope.Split || string(v.Record.Open[0].Key) != "/s/m" || v.Record.Open[0].Operator != "anna" {
		t.Fatalf("open: %+v, %v", v, err)
	}
	receipt := func(r *meshpb.SplitReply) governor.Receipt {
		return governor.Receipt{Scope: r.GetScope(), ID: r.GetProposal(), Kind: scope.Split}
	}
	if err := m.scopes(2).Withdraw(ctx, receipt(second), "bert"); err != nil {
		t.Fatal(err)
	}
	if end, err := m.scopes(0).Await(ctx, receipt(second)); err != nil || end.Outcome != scope.Withdrawn || end.Note != "by bert" {
		t.Errorf("withdrawn: %+v, %v", end, err)
	}
	if err := m.vote(ctx, v.Voters, receipt(second)); err == nil || !strings.Contains(err.Error(), "not open") {
		t.Errorf("a vote on what was withdrawn: %v", err)
	}
	late := m.order(ctx, "/e/m")
	if end, err := m.scopes(0).Await(ctx, receipt(late)); err != nil || end.Outcome != scope.Expired || !strings.Contains(end.Note, "not decided within 10s") {
		t.Errorf("nobody votes: %+v, %v", end, err)
	}
	if err := m.vote(ctx, v.Voters, receipt(late)); err == nil || !strings.Contains(err.Error(), "not open") {
		t.Errorf("a late vote: %v", err)
	}
	if err := m.vote(ctx, v.Voters[:2], receipt(first)); err != nil {
		t.Fatal(err)
	}
	if end, err := m.scopes(0).Await(ctx, receipt(first)); err != nil || end.Outcome != scope.Decided {
		t.Fatalf("decided: %+v, %v", end, err)
	}
	m.eventually(20*time.Second, "the cut", func() bool {
		v, err := m.scopes(0).Show(ctx, []byte("/s/"))
		return err == nil && len(v.Segments) == 2 && string(v.Segments[1].Range.Start) == "/s/m"
	})
	m.sound(ctx)
}

// vote approves a proposal in the name of nodes.
func (m *testMesh) vote(ctx context.Context, nodes []anchormesh.NodeID, r governor.Receipt) error {
	m.t.Helper()
	for _, n := range nodes {
		var err error
		m.eventually(10*time.Second, "vote", func() bool {
			err = m.scopes(0).Vote(ctx, r, n, true, "")
			return err == nil || !passingChange(err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
