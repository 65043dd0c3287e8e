package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

const (
	soloNode   = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
	firstChild = anchormesh.SegmentID(0xb)
	secondOne  = anchormesh.SegmentID(0xc)
)

// family is a mesh of one node whose first segment was split twice: a, then a's right
// child b. Nobody signed anything.
type family struct {
	meshpb.UnimplementedMeshServer
	chains map[anchormesh.SegmentID]*lineage.Chain
	hide   map[anchormesh.SegmentID]bool
	sums   map[anchormesh.SegmentID]uint64
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newFamily() *family {
	f := &family{chains: map[anchormesh.SegmentID]*lineage.Chain{}, hide: map[anchormesh.SegmentID]bool{}, sums: map[anchormesh.SegmentID]uint64{}}
	voters := lineage.Voters{Incoming: []anchormesh.NodeID{soloNode}}
	a := must(lineage.Begin(7, 0xa, lineage.Extent{Generation: 1}, lineage.Place{Index: 5, Term: 1}, voters, lineage.Evidence{Reason: lineage.Operator}))
	load := lineage.Evidence{Reason: lineage.Load, Pressure: 1500, Spread: 900, Numbers: []uint64{3, 4}}
	a, b, err := a.Split(lineage.Place{Index: 20, Term: 2}, []byte("m"), firstChild, load)
	if err != nil {
		panic(err)
	}
	b, c, err := b.Split(lineage.Place{Index: 9, Term: 1}, []byte("t"), secondOne, lineage.Evidence{Reason: lineage.Operator, Operator: "anna"})
	if err != nil {
		panic(err)
	}
	for _, chain := range []*lineage.Chain{a, b, c} {
		f.chains[chain.Segment()] = chain
	}
	return f
}

func (f *family) replica(c *lineage.Chain) *meshpb.Replica {
	now := c.Now()
	d := &anchormesh.Descriptor{
		Mesh: 7, Segment: c.Segment(), Generation: now.Generation, Range: now.Range, Changed: 30, NextReplica: 2, Lineage: c.Head(),
		Anchors: []anchormesh.Anchor{{Node: soloNode, Replica: 1, Role: anchormesh.Voter}},
	}
	return &meshpb.Replica{Descriptor_: meshpb.ToPB(d), Chain: c.Encode(), Leads: true, Revision: 12, CompactRevision: -1}
}

func (f *family) Nodes(context.Context, *meshpb.NodesRequest) (*meshpb.NodesReply, error) {
	return &meshpb.NodesReply{Mesh: 7, Nodes: []*meshpb.NodeInfo{
		{Id: soloNode, Self: true, State: meshpb.NodeState_NODE_STATE_ALIVE},
		{Id: "12D3KooWgone", Name: "gone", State: meshpb.NodeState_NODE_STATE_DEAD},
	}}, nil
}

func (f *family) Lineage(_ context.Context, req *meshpb.LineageRequest) (*meshpb.LineageReply, error) {
	for id, c := range f.chains {
		if !f.hide[id] && (uint64(id) == req.GetSegment() || req.GetSegment() == 0 && c.Now().Range.Contains(req.GetKey())) {
			return &meshpb.LineageReply{Node: soloNode, Replica: f.replica(c)}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "this node knows no such segment")
}

func (f *family) Structure(_ *meshpb.StructureRequest, to grpc.ServerStreamingServer[meshpb.StructureItem]) error {
	items := []*meshpb.StructureItem{{Item: &meshpb.StructureItem_Node{Node: &meshpb.StructureNode{Mesh: 7, Info: &meshpb.NodeInfo{Id: soloNode}}}}}
	for _, id := range []anchormesh.SegmentID{0xa, firstChild, secondOne} {
		if !f.hide[id] {
			r := f.replica(f.chains[id])
			items = append(items, &meshpb.StructureItem{Item: &meshpb.StructureItem_Route{Route: r.Descriptor_}},
				&meshpb.StructureItem{Item: &meshpb.StructureItem_Replica{Replica: r}})
		}
	}
	for _, i := range items {
		if err := to.Send(i); err != nil {
			return err
		}
	}
	return nil
}

func (f *family) Hash(_ context.Context, req *meshpb.HashRequest) (*meshpb.HashReply, error) {
	return &meshpb.HashReply{Sum: f.sums[anchormesh.SegmentID(req.GetSegment())], Floor: req.GetFloor()}, nil
}

func serveFamily(t *testing.T, f *family) string {
	addr := listen(t, func(s *grpc.Server) { meshpb.RegisterMeshServer(s, f) })
	return addr
}

// A lineage is followed through the parents, as a table and for programs.
func TestLineageLeadsToGenesis(t *testing.T) {
	addr := serveFamily(t, newFamily())
	for _, form := range []string{"table", "json"} {
		code, out, errs := call(t, "lineage", "x", "-o", form, "--endpoint", addr)
		if code != exitDone || errs != "" {
			t.Errorf("status %d, %s", code, errs)
		}
		golden(t, "lineage."+form, out)
	}
	_, byKey, _ := call(t, "lineage", "x", "--endpoint", addr)
	_, byID, _ := call(t, "lineage", secondOne.String(), "--endpoint", addr)
	if byKey != byID || byKey == "" {
		t.Errorf("by key\n%s\nby segment\n%s", byKey, byID)
	}
	if code, _, errs := call(t, "lineage", "a", "b"); code != exitUsage {
		t.Errorf("status %d, %s", code, errs)
	}
}

func TestLineageSaysWhereItEnds(t *testing.T) {
	f := newFamily()
	f.hide[0xa] = true
	code, out, errs := call(t, "lineage", "x", "--endpoint", serveFamily(t, f))
	if code != exitDone || !strings.Contains(out, "note: what was before stands in the lineage of segment 000000000000000a") {
		t.Errorf("status %d, %s\n%s", code, errs, out)
	}
	var v lineageView
	if _, out, _ = call(t, "lineage", "x", "-o", "json", "--endpoint", serveFamily(t, f)); json.Unmarshal([]byte(out), &v) != nil || v.Complete || v.Note == "" {
		t.Errorf("%s", out)
	}
	f.hide[secondOne] = true
	if code, _, errs := call(t, "lineage", "x", "--endpoint", serveFamily(t, f)); code != exitFailed || !strings.Contains(errs, "knows no such segment") {
		t.Errorf("status %d, %s", code, errs)
	}
}

// Verify ends with status 1 and says what it found: here everything is unproven, and
// with a segment gone there is a gap.
func TestVerifyTellsWhatItFound(t *testing.T) {
	looksWait = 0
	defer func() { looksWait = time.Second }()
	f := newFamily()
	code, out, errs := call(t, "verify", "--endpoint", serveFamily(t, f))
	if code != exitFailed || !strings.Contains(errs, "findings") || !strings.Contains(out, "is not proved") || strings.Contains(out, "has two histories") {
		t.Errorf("status %d, %s\n%s", code, errs, out)
	}
	if !strings.Contains(out, "note: node 12D3KooWgone") && !strings.Contains(out, "(gone) was not asked: it is dead") {
		t.Errorf("the dead node is not named:\n%s", out)
	}
	f.hide[secondOne] = true
	_, out, _ = call(t, "verify", "-o", "json", "--endpoint", serveFamily(t, f))
	var v verifyView
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Looks != looksMax || v.Segments != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	if !slices.ContainsFunc(v.Findings, func(f findingView) bool { return f.Kind == "gap" && strings.Contains(f.Text, `["t", ∞)`) }) {
		t.Errorf("no gap: %+v", v.Findings)
	}
	if code, _, errs := call(t, "verify", "--revision", "-1", "--endpoint", "127.0.0.1:1"); code != exitUsage {
		t.Errorf("status %d, %s", code, errs)
	}
	if code, _, errs := call(t, "verify", "--endpoint", "127.0.0.1:1"); code != exitFailed || !strings.Contains(errs, "refused") {
		t.Errorf("status %d, %s", code, errs)
	}
}

func TestReasonsOfNewerPrograms(t *testing.T) {
	if got := reasonText(99); got != "reason 99" {
		t.Error(got)
	}
	var b bytes.Buffer
	fmt.Fprint(&b, (&decisionView{Why: "load", Pressure: 1.5, Spread: .9, Numbers: []uint64{1}}).whyText())
	if b.String() != "load, pressure 1.50, spread 0.90, numbers [1]" {
		t.Error(b.String())
	}
}
