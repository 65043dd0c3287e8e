package charter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/charter"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

const (
	meshID  = anchormesh.MeshID(1)
	segment = anchormesh.SegmentID(7)
)

// fakeGovernor knows some scopes and notes what is asked for.
type fakeGovernor struct {
	governor.Scopes
	views map[string]*governor.View
	order []string // ascending
	asked []governor.Change
	fails error
}

func (f *fakeGovernor) List() (out [][]byte) {
	for _, p := range f.order {
		out = append(out, []byte(p))
	}
	return out
}

func (f *fakeGovernor) Fit(_ context.Context, prefix []byte) error {
	if string(prefix) == "/n/" {
		return fmt.Errorf("%w: an anchor is still learning", governor.ErrNotNow)
	}
	return nil
}

func (f *fakeGovernor) Show(_ context.Context, prefix []byte) (*governor.View, error) {
	if f.fails != nil {
		return nil, f.fails
	}
	if v := f.views[string(prefix)]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("%w: %q", governor.ErrNoScope, prefix)
}

func (f *fakeGovernor) Propose(_ context.Context, c governor.Change) (governor.Receipt, error) {
	if f.fails != nil {
		return governor.Receipt{}, f.fails
	}
	f.asked = append(f.asked, c)
	return governor.Receipt{Scope: c.Prefix, ID: uint64(len(f.asked))}, nil
}

func (f *fakeGovernor) Vote(_ context.Context, r governor.Receipt, node anchormesh.NodeID, _ bool, _ string) error {
	if node != "a" || r.ID != 3 {
		return fmt.Errorf("%w: %w: no such proposal is open", governor.ErrRefused, machine.ErrRefused)
	}
	return nil
}

func (f *fakeGovernor) Withdraw(_ context.Context, r governor.Receipt, _ string) error {
	if r.ID != 3 {
		return fmt.Errorf("%w: no such proposal", governor.ErrRefused)
	}
	return nil
}

// newGovernor knows the root scope, which is as at the beginning, "/s/", which binds its
// class, and "/s/in/" inside it.
func newGovernor() *fakeGovernor {
	root := &governor.View{Home: segment, Leader: "a", Voters: []anchormesh.NodeID{"a"}, Weights: []uint64{10}, Needed: 6, Anchors: 3, Record: &scope.Record{}}
	critical := policy.Critical()
	critical.Binding = []string{"class"}
	s := &governor.View{
		Prefix: []byte("/s/"), Home: segment, Leader: "a", Voters: []anchormesh.NodeID{"a"}, Weights: []uint64{10}, Needed: 6, Anchors: 5,
		Record: &scope.Record{
			InForce: 1,
			Versions: []scope.Version{
				{Number: 1, Policy: policy.Standard(), Operator: "anna", Approved: 10, Total: 10},
				{Number: 2, Policy: critical, Operator: "anna", Approved: 10, Total: 10},
			},
			Open:   []*scope.Proposal{{ID: 3, Kind: scope.Amend, Subject: []byte("/s/"), Policy: policy.Standard(), Version: 3, Votes: []scope.Vote{{Node: "a", Why: "no"}}}},
			Closed: []scope.Closed{{ID: 1, Kind: scope.Amend, Subject: []byte("/s/"), Outcome: scope.Decided}, {ID: 2, Kind: scope.Create, Outcome: scope.Refused, Note: "why"}},
		},
		Open:     []governor.Standing{{ID: 3, Tally: scope.Tally{Refused: 10, Total: 10, Needed: 6}, Waiting: []anchormesh.NodeID{"b"}}},
		Segments: []governor.Adoption{{Segment: segment, Version: 1, Entered: true}},
	}
	strict := policy.Critical()
	in := &governor.View{Prefix: []byte("/s/in/"), Record: &scope.Record{InForce: 1, Versions: []scope.Version{{Number: 1, Policy: strict}}}}
	return &fakeGovernor{views: map[string]*governor.View{"": root, "/s/": s, "/s/in/": in}, order: []string{"", "/s/", "/s/in/"}}
}

// noPeers is a mesh in which nobody else answers.
type noPeers struct{}

func (noPeers) Conn(anchormesh.NodeID) (grpc.ClientConnInterface, error) {
	return nil, status.Error(codes.Unavailable, "nobody answers")
}

// service runs f with the service of a node of two that holds the only segment.
func service(t *testing.T, f func(*testing.T, *charter.Service, *fakeGovernor, *hosttest.Node)) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		n := hosttest.Start(t, hosttest.NewDisk(t), net, "a")
		if err := n.Host.Genesis(meshID, segment, "east", 3); err != nil {
			t.Fatal(err)
		}
		net.Add("b", mesh.Member{Name: "beta"})
		g := newGovernor()
		f(t, charter.New(charter.Config{
			Scopes: g, Mesh: n.Mesh, Peers: noPeers{}, Host: n.Host, Engine: n.Engine, Table: n.Table, Compile: machine.CompileRule,
			Nodes: func() []place.Node {
				return []place.Node{{Member: recruit.Member{Node: "a", Alive: true, Zone: "east"}}, {Member: recruit.Member{Node: "b", Alive: true, Zone: "east"}, Leaving: true}}
			},
		}), g, n)
	})
}

func refused(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %v with %q", what, err, code, text)
	}
}

func TestChangesAreCheckedAndProposed(t *testing.T) {
	service(t, func(t *testing.T, s *charter.Service, g *fakeGovernor, _ *hosttest.Node) {
		ctx := t.Context()
		_, err := s.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("/s/"), Preset: "standard"})
		refused(t, "create again", err, codes.AlreadyExists, `scope "/s/" exists already`)
		_, err = s.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("/n/"), Policy: "class: soft\ncolour: red"})
		refused(t, "create badly", err, codes.InvalidArgument, "line 1: class: \"soft\" is no class: want light, normal or strong\nline 2: colour")
		_, err = s.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("/n/"), Policy: "writes: {rules: [{name: r, expr: nonsense > 1}]}"})
		refused(t, "create with a rule", err, codes.InvalidArgument, `rule "r" does not compile`)
		_, err = s.Create(ctx, &meshpb.CreateScopeRequest{Prefix: make([]byte, 2000)})
		refused(t, "long prefix", err, codes.InvalidArgument, "2000 bytes long, at most 1024")
		_, err = s.Set(ctx, &meshpb.SetScopeRequest{Operator: strings.Repeat("x", 65)})
		refused(t, "long name", err, codes.InvalidArgument, "the operator's name is 65 bytes long")
		_, err = s.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte("/s/"), Expect: new(uint64(1))})
		refused(t, "set an old version", err, codes.Aborted, `the newest version of scope "/s/" is 2, not 1`)
		_, err = s.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte("/n/"), Expect: new(uint64(1))})
		refused(t, "set nothing", err, codes.NotFound, `there is no scope "/n/"`)
		_, err = s.Delete(ctx, &meshpb.DeleteScopeRequest{})
		refused(t, "delete the root", err, codes.FailedPrecondition, "the root scope cannot be deleted")
		_, err = s.RecoverHere(ctx, &meshpb.RecoverHereRequest{Segment: 99})
		refused(t, "begin anew what is not there", err, codes.NotFound, "no such segment")
		_, err = s.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: 99, Survivor: "a"})
		refused(t, "recover what is not there", err, codes.NotFound, "no such segment")
		_, err = s.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: uint64(segment), Survivor: "beta"})
		refused(t, "recover on a stranger", err, codes.FailedPrecondition, "is no anchor of segment")
		_, err = s.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: uint64(segment), Survivor: "nobody"})
		refused(t, "recover on nobody", err, codes.NotFound, `no node "nobody"`)
		if len(g.asked) != 0 {
			t.Fatalf("proposed %+v", g.asked)
		}
		for _, err := range []error{
			second(s.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("/n/"), Preset: "ephemeral", Operator: "anna"})),
			second(s.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte("/s/"), Policy: "preset: critical", Expect: new(uint64(2))})),
			second(s.Set(ctx, &meshpb.SetScopeRequest{Prefix: []byte("/s/")})),
			second(s.Delete(ctx, &meshpb.DeleteScopeRequest{Prefix: []byte("/s/")})),
			second(s.Recover(ctx, &meshpb.RecoverScopeRequest{Segment: uint64(segment), Survivor: "a"})),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		var got []string
		for _, c := range g.asked {
			got = append(got, fmt.Sprintf("%s %s %d %v %s", c.Kind, c.Prefix, c.Expect, c.AnyVersion, c.Survivor))
		}
		if want := "create /n/ 0 false |amend /s/ 2 false |amend /s/ 0 true |delete /s/ 0 false |recover  0 false a"; strings.Join(got, "|") != want {
			t.Errorf("proposed %q", got)
		}
		if !g.asked[0].Policy.Equal(policy.Ephemeral()) || g.asked[0].Operator != "anna" {
			t.Errorf("proposed %+v", g.asked[0])
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestErrorsHaveCodes(t *testing.T) {
	service(t, func(t *testing.T, s *charter.Service, g *fakeGovernor, _ *hosttest.Node) {
		for err, code := range map[error]codes.Code{
			fmt.Errorf("%w: no leader", governor.ErrUnavailable): codes.Unavailable,
			fmt.Errorf("%w: class: laxer", governor.ErrRefused):  codes.FailedPrecondition,
			governor.ErrUnknown: codes.Unknown, context.Canceled: codes.Canceled,
			fmt.Errorf("%w: %w", governor.ErrUnknown, context.DeadlineExceeded): codes.DeadlineExceeded,
		} {
			g.fails = err
			_, got := s.Set(t.Context(), &meshpb.SetScopeRequest{Prefix: []byte("/s/")})
			if status.Code(got) != code || strings.HasPrefix(status.Convert(got).Message(), "refused") {
				t.Errorf("%v became %v", err, got)
			}
			if _, got := s.Show(t.Context(), &meshpb.ShowScopeRequest{}); status.Code(got) != code {
				t.Errorf("%v became %v", err, got)
			}
		}
		g.fails = errors.New("odd")
		if _, err := s.Show(t.Context(), &meshpb.ShowScopeRequest{}); status.Code(err) != codes.Unknown {
			t.Error(err)
		}
	})
}

func TestWhatIsShown(t *testing.T) {
	service(t, func(t *testing.T, s *charter.Service, g *fakeGovernor, _ *hosttest.Node) {
		ctx := t.Context()
		reply, err := s.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte("/s/")})
		v := reply.GetScope()
		if err != nil || v.GetVersion() != 2 || v.GetInForce() != 1 || !strings.Contains(v.GetPolicy(), `"class":"strong"`) ||
			len(v.GetSegments()) != 1 || len(v.GetVoters()) != 1 || v.GetVoters()[0].GetWeight() != 10 {
			t.Errorf("%v: %v", err, v)
		}
		if p := v.GetOpen(); len(p) != 1 || p[0].GetTally().GetNeeded() != 6 || p[0].GetVotes()[0].GetWhy() != "no" || p[0].GetWaiting()[0] != "b" {
			t.Errorf("open: %v", p)
		}
		_, err = s.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte("/n/")})
		refused(t, "show", err, codes.NotFound, `there is no scope "/n/"`)
		history, err := s.History(ctx, &meshpb.ScopeHistoryRequest{Prefix: []byte("/s/")})
		if err != nil || len(history.GetVersions()) != 2 || len(history.GetEndings()) != 2 || history.GetEndings()[1].GetOutcome() != "refused" {
			t.Errorf("%v: %v", err, history)
		}
		all, err := s.Proposals(ctx, &meshpb.ProposalsRequest{All: true})
		if err != nil || len(all.GetProposals()) != 1 || len(all.GetProblems()) != 0 {
			t.Errorf("%v: %v", err, all)
		}
		g.order = append(g.order, "/t/")
		if all, _ = s.Proposals(ctx, &meshpb.ProposalsRequest{All: true}); len(all.GetProblems()) != 1 || !strings.Contains(all.GetProblems()[0], "/t/") {
			t.Errorf("a scope that does not answer: %v", all)
		}
		list, err := s.List(ctx, &meshpb.ListScopesRequest{})
		if err != nil || len(list.GetScopes()) != 1 || list.GetScopes()[0].GetClass() != "normal" || list.GetScopes()[0].GetSegments() != 1 {
			t.Errorf("%v: %v", err, list)
		}
		ledger, err := s.Trust(ctx, &meshpb.TrustRequest{})
		if err != nil || len(ledger.GetSegments()) != 1 || ledger.GetSegments()[0].GetWeights()[0].GetEffective() != 10 {
			t.Errorf("%v: %v", err, ledger)
		}
		_, err = s.Trust(ctx, &meshpb.TrustRequest{Segment: 99})
		refused(t, "trust of a segment", err, codes.NotFound, "no replica")
		_, err = s.Trust(ctx, &meshpb.TrustRequest{Prefix: []byte("/n/")})
		refused(t, "trust of a scope", err, codes.NotFound, `there is no scope "/n/"`)
	})
}

func TestVotesAreTheAskedNodesUnlessNamed(t *testing.T) {
	service(t, func(t *testing.T, s *charter.Service, _ *fakeGovernor, _ *hosttest.Node) {
		ctx := t.Context()
		if reply, err := s.Vote(ctx, &meshpb.VoteRequest{Scope: []byte("/s/"), Id: 3}); err != nil || reply.GetNode() != "a" {
			t.Errorf("%v, %v", reply, err)
		}
		_, err := s.Vote(ctx, &meshpb.VoteRequest{Scope: []byte("/s/"), Id: 3, Node: "beta"})
		refused(t, "another's vote", err, codes.FailedPrecondition, `node b does not vote in scope "/s/"; its voters are a`)
		_, err = s.Vote(ctx, &meshpb.VoteRequest{Scope: []byte("/n/"), Id: 3})
		refused(t, "a vote nowhere", err, codes.NotFound, `there is no scope "/n/"`)
		_, err = s.Vote(ctx, &meshpb.VoteRequest{Scope: []byte("/s/"), Id: 4})
		refused(t, "a vote on nothing", err, codes.FailedPrecondition, "no such proposal is open")
		_, err = s.Vote(ctx, &meshpb.VoteRequest{Id: 3, Why: strings.Repeat("x", 300)})
		refused(t, "a long reason", err, codes.InvalidArgument, "300 bytes long")
		if _, err := s.Withdraw(ctx, &meshpb.WithdrawRequest{Scope: []byte("/s/"), Id: 3}); err != nil {
			t.Error(err)
		}
		_, err = s.Withdraw(ctx, &meshpb.WithdrawRequest{Scope: []byte("/s/"), Id: 4})
		refused(t, "withdraw", err, codes.FailedPrecondition, "no such proposal")
	})
}

func TestDryRunSaysWhatItWouldTake(t *testing.T) {
	service(t, func(t *testing.T, s *charter.Service, g *fakeGovernor, n *hosttest.Node) {
		ctx := t.Context()
		for _, k := range []string{"/a", "/n/1", "/n/2", "/z"} {
			n.Put(segment, k, "value")
		}
		d, err := s.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/n/"), Preset: "critical"})
		if err != nil {
			t.Fatal(err)
		}
		if h := d.GetHolds(); d.GetKind() != "create" || len(d.GetDecides()) != 0 || h.GetKeys() != 2 || h.GetBytes() != 18 || h.GetCounted() != 1 {
			t.Errorf("%v", d)
		}
		if c := d.GetChanges(); len(c) == 0 || c[0].GetField() != "class" || c[0].GetNew() != "strong" {
			t.Errorf("changes %v", c)
		}
		if c := d.GetCuts(); len(c) != 2 || string(c[0].GetAt()) != "/n/" || string(c[1].GetAt()) != "/n0" {
			t.Errorf("cuts %v", c)
		}
		if d.GetNeeded() != 6 || len(d.GetVoters()) != 1 || len(d.GetRecruiting()) != 1 || d.GetRecruiting()[0].GetWants() != 5 || len(d.GetUncounted()) != 1 || d.GetUncounted()[0] != "beta" {
			t.Errorf("%v", d)
		}
		if w := strings.Join(d.GetWarnings(), "|"); !strings.Contains(w, "5 anchors are wanted, and 1 nodes") || !strings.Contains(w, "4 acks are wanted, and 1 nodes") ||
			!strings.Contains(w, "segment 0000000000000007 has 1 voters: its writes are refused until it has more") ||
			!strings.Contains(w, "it would be refused now, and may be asked for later: an anchor is still learning") {
			t.Errorf("warnings %q", w)
		}
		if s := d.GetTouched(); len(s) != 1 || s[0].GetSegment() != uint64(segment) || len(s[0].GetAnchors()) != 1 ||
			s[0].GetAnchors()[0].GetNode() != "a" || s[0].GetAnchors()[0].GetRole() != meshpb.Role_ROLE_VOTER {
			t.Errorf("touched are %v", s)
		}
		d, err = s.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/s/"), Policy: "preset: critical\nanchors: {count: 7, zones: 2}\nacks: {count: 5}\namend: {threshold: 1/2}\nbinding: [anchors.count]"})
		if err != nil || d.GetKind() != "amend" || !strings.Contains(strings.Join(d.GetWarnings(), "|"), `scope "/s/in/" inside would be laxer`) ||
			!strings.Contains(strings.Join(d.GetWarnings(), "|"), "2 zones are wanted") || string(d.GetDecides()) != "/s/" {
			t.Errorf("%v: %v", err, d)
		}
		d, err = s.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/s/"), Kind: "delete"})
		if err != nil || d.GetKind() != "delete" || d.GetChanges()[0].GetNew() != "normal" {
			t.Errorf("%v: %v", err, d)
		}
		_, err = s.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/s/x/"), Preset: "standard"})
		refused(t, "a laxer one inside", err, codes.FailedPrecondition, "class: normal is laxer than strong")
		_, err = s.DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("/n/"), Kind: "delete"})
		refused(t, "delete nothing", err, codes.NotFound, `there is no scope "/n/"`)
		_, err = s.DryRun(ctx, &meshpb.DryRunRequest{Kind: "delete"})
		refused(t, "delete the root", err, codes.FailedPrecondition, "root scope")
		_, err = s.DryRun(ctx, &meshpb.DryRunRequest{Kind: "burn"})
		refused(t, "burn", err, codes.InvalidArgument, `"burn"`)
		if len(g.asked) != 0 {
			t.Errorf("proposed %v", g.asked)
		}
	})
}
