package scope

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const when = 1_700_000_000_000

// fakeScopes is a mesh with the scopes "", which is as at the beginning, and
// "/secrets/", to which a proposal is open. What is proposed to it passes through
// the stages.
type fakeScopes struct {
	meshpb.UnimplementedScopesServer
	stages []*meshpb.ScopeReply // of what is proposed; the last one stays
	ending *meshpb.Ending       // behind them
	got    []string             // what was asked for
	busy   int                  // so often nothing can be created
	// What is replayed, in place of the standing answers.
	ledgers *meshpb.TrustReply
	history *meshpb.ScopeHistoryReply
}

func secrets() *meshpb.Scope {
	return &meshpb.Scope{
		Prefix: []byte("/secrets/"), Version: 2, InForce: 1, Policy: string(policy.Critical().Encode()), Home: 10, Leader: "12D3KooWnode-a", Anchors: 5,
		Voters: []*meshpb.Weight{{Node: "12D3KooWnode-a", Weight: 10}, {Node: "12D3KooWnode-b", Weight: 12}},
		Segments: []*meshpb.ScopeSegment{
			{Segment: 10, Start: []byte("/secrets/"), End: []byte("/secrets/m"), Version: 2, Entered: true},
			{Segment: 11, Start: []byte("/secrets/m"), End: []byte("/secrets0"), Version: 1, Entered: true},
		},
		Open: []*meshpb.Proposal{proposal()},
	}
}

func proposal() *meshpb.Proposal {
	return &meshpb.Proposal{
		Scope: []byte("/secrets/"), Id: 3, Kind: "amend", Subject: []byte("/secrets/"), Version: 3, Policy: string(policy.Standard().Encode()), Operator: "anna", AtUnixMs: when,
		Tally:   &meshpb.Tally{Approved: 0, Refused: 10, Total: 22, Needed: 14},
		Votes:   []*meshpb.Ballot{{Node: "12D3KooWnode-a", Why: "class: normal is laxer than strong"}},
		Waiting: []string{"12D3KooWnode-b"},
	}
}

func (f *fakeScopes) note(what string, text string) { f.got = append(f.got, what+" "+text) }

func (f *fakeScopes) Show(_ context.Context, req *meshpb.ShowScopeRequest) (*meshpb.ScopeReply, error) {
	if len(f.stages) > 0 {
		out := f.stages[0]
		if len(f.stages) > 1 {
			f.stages = f.stages[1:]
		}
		if out == nil {
			return nil, status.Error(codes.NotFound, "there is no scope \"/gone/\"")
		}
		return out, nil
	}
	switch string(req.GetPrefix()) {
	case "":
		return &meshpb.ScopeReply{Scope: &meshpb.Scope{
			Home: 9, Leader: "12D3KooWnode-a", Anchors: 3, Segments: []*meshpb.ScopeSegment{{Segment: 9, Entered: true}},
			Voters: []*meshpb.Weight{{Node: "12D3KooWnode-a", Weight: 10}},
		}}, nil
	case "/secrets/":
		return &meshpb.ScopeReply{Scope: secrets()}, nil
	}
	return nil, status.Error(codes.NotFound, "there is no scope \"/gone/\"")
}

func (f *fakeScopes) List(context.Context, *meshpb.ListScopesRequest) (*meshpb.ListScopesReply, error) {
	return &meshpb.ListScopesReply{Scopes: []*meshpb.ScopeSummary{
		{Class: "normal", Segments: 3, Anchors: 3, Home: 9, Leader: "12D3KooWnode-a"},
		{Prefix: []byte("/secrets/"), Class: "strong", OldestVersion: 1, NewestVersion: 2, Line: []byte("/secrets/"), Segments: 2, Anchors: 5, Home: 10},
	}}, nil
}

func (f *fakeScopes) History(context.Context, *meshpb.ScopeHistoryRequest) (*meshpb.ScopeHistoryReply, error) {
	if f.history != nil {
		return f.history, nil
	}
	if f.ending != nil {
		return &meshpb.ScopeHistoryReply{Endings: []*meshpb.Ending{f.ending}}, nil
	}
	return &meshpb.ScopeHistoryReply{
		Versions: []*meshpb.PolicyVersion{
			{Number: 1, Policy: string(policy.Standard().Encode()), Operator: "anna", AtUnixMs: when, Proposal: 1, Index: 20, Approved: 22, Total: 30},
			{Number: 2, Policy: string(policy.Critical().Encode()), Operator: "bert", AtUnixMs: when + 60_000, Proposal: 2, Index: 30, Approved: 30, Total: 30},
		},
		Endings: []*meshpb.Ending{
			{Id: 1, Kind: "amend", Subject: []byte("/secrets/"), Version: 1, Operator: "anna", AtUnixMs: when, Outcome: "decided", Index: 20},
			{Id: 2, Kind: "create", Subject: []byte("/secrets/db/"), Version: 1, Operator: "bert", AtUnixMs: when, Outcome: "refused", Note: "class: normal is laxer than strong", Index: 30},
		},
	}, nil
}

func (f *fakeScopes) Create(_ context.Context, req *meshpb.CreateScopeRequest) (*meshpb.ProposalReply, error) {
	f.note("create", string(req.GetPrefix())+" "+req.GetPreset()+" "+req.GetPolicy())
	if f.busy--; f.busy >= 0 {
		return nil, status.Error(codes.Unavailable, "the anchor group is changing")
	}
	if string(req.GetPrefix()) == "/taken/" {
		return nil, status.Error(codes.AlreadyExists, "scope \"/taken/\" exists already")
	}
	return &meshpb.ProposalReply{Id: 7}, nil
}

func (f *fakeScopes) Set(_ context.Context, req *meshpb.SetScopeRequest) (*meshpb.ProposalReply, error) {
	if req.Expect != nil && req.GetExpect() != 2 {
		return nil, status.Error(codes.Aborted, "the policy has changed meanwhile: the newest version is 2")
	}
	f.note("set", string(req.GetPrefix()))
	return &meshpb.ProposalReply{Scope: req.GetPrefix(), Id: 7}, nil
}

func (f *fakeScopes) Delete(_ context.Context, req *meshpb.DeleteScopeRequest) (*meshpb.ProposalReply, error) {
	return &meshpb.ProposalReply{Scope: req.GetPrefix(), Id: 7}, nil
}

func (f *fakeScopes) Recover(_ context.Context, req *meshpb.RecoverScopeRequest) (*meshpb.ProposalReply, error) {
	f.note("recover", segmentName(req.GetSegment())+" "+req.GetSurvivor())
	return &meshpb.ProposalReply{Id: 7}, nil
}

func (f *fakeScopes) RecoverHere(_ context.Context, req *meshpb.RecoverHereRequest) (*meshpb.RecoverHereReply, error) {
	if req.GetSegment() != 10 {
		return nil, status.Errorf(codes.FailedPrecondition, "segment %s is not the root scope's home", segmentName(req.GetSegment()))
	}
	return &meshpb.RecoverHereReply{Generation: 3}, nil
}

func (f *fakeScopes) Proposals(_ context.Context, req *meshpb.ProposalsRequest) (*meshpb.ProposalsReply, error) {
	out := &meshpb.ProposalsReply{Proposals: []*meshpb.Proposal{proposal()}}
	if req.GetAll() {
		out.Problems = []string{"scope \"/gone/\" does not answer"}
	}
	return out, nil
}

func (f *fakeScopes) Vote(_ context.Context, req *meshpb.VoteRequest) (*meshpb.VoteReply, error) {
	if req.GetId() == 9 {
		return nil, status.Error(codes.NotFound, "no such proposal is open")
	}
	return &meshpb.VoteReply{Node: "12D3KooWnode-a"}, nil
}

func (f *fakeScopes) Withdraw(ctx context.Context, req *meshpb.WithdrawRequest) (*meshpb.WithdrawReply, error) {
	_, err := f.Vote(ctx, &meshpb.VoteRequest{Id: req.GetId()})
	return &meshpb.WithdrawReply{}, err
}

func (f *fakeScopes) DryRun(_ context.Context, req *meshpb.DryRunRequest) (*meshpb.DryRunReply, error) {
	if req.GetKind() == "delete" {
		return &meshpb.DryRunReply{Kind: "delete", Decides: req.GetPrefix(), Segments: []uint64{9}, Holds: &meshpb.CensusReply{Keys: 1}}, nil
	}
	return &meshpb.DryRunReply{
		Kind: "create", Segments: []uint64{9, 10}, Holds: &meshpb.CensusReply{Keys: 1200, Bytes: 5 << 20, Leases: 1, Watchers: 3, Counted: 2},
		Changes: []*meshpb.FieldChange{{Field: "class", Old: "normal", New: "strong"}, {Field: "anchors.count", Old: "3", New: "5"}},
		Touched: []*meshpb.TouchedSegment{
			{Segment: 9, End: []byte("/secrets/m"), Leader: "12D3KooWnode-b", Anchors: []*meshpb.Anchor{
				{Node: "12D3KooWnode-a", Role: meshpb.Role_ROLE_VOTER}, {Node: "12D3KooWnode-b", Role: meshpb.Role_ROLE_VOTER}, {Node: "12D3KooWnode-c", Role: meshpb.Role_ROLE_LEARNER},
			}},
			{Segment: 10, Start: []byte("/secrets/m"), Anchors: []*meshpb.Anchor{{Node: "12D3KooWnode-a", Role: meshpb.Role_ROLE_VOTER}}},
		},
		Cuts:   []*meshpb.Cut{{Segment: 9, At: []byte("/secrets/")}, {Segment: 10, At: []byte("/secrets0")}},
		Voters: []*meshpb.Weight{{Node: "12D3KooWnode-a", Weight: 10}, {Node: "12D3KooWnode-b", Weight: 10}}, Needed: 11,
		Recruiting: []*meshpb.Recruiting{{Segment: 9, Has: 3, Wants: 5}},
		Warnings:   []string{"5 anchors are wanted, and 3 nodes are there"}, Uncounted: []string{"node-c"},
	}, nil
}

func (f *fakeScopes) Trust(context.Context, *meshpb.TrustRequest) (*meshpb.TrustReply, error) {
	if f.ledgers != nil {
		return f.ledgers, nil
	}
	return &meshpb.TrustReply{Segments: []*meshpb.SegmentTrust{{
		Segment: 10, Start: []byte("/secrets/"), End: []byte("/secrets0"), Version: 2,
		Weights: []*meshpb.TrustWeight{{Node: "12D3KooWnode-a", Weight: 40, Effective: 20}, {Node: "12D3KooWnode-z", Weight: 3}},
		History: []*meshpb.TrustStep{{Version: 2, Index: 90, Term: 3, Opinions: []*meshpb.TrustOpinion{
			{Node: "12D3KooWnode-a", Points: 2, Of: 2, Weight: 40}, {Node: "12D3KooWnode-b", Points: -8, Of: 2, Weight: 12},
		}}},
	}}}, nil
}

func serve(t *testing.T, f *fakeScopes) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	meshpb.RegisterScopesServer(s, f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// call runs a command line.
func call(t *testing.T, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	root := New()
	if args[0] == "trust" {
		root, args = NewTrust(), args[1:]
	} else if args[0] == "scope" {
		args = args[1:]
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func TestAnswersLookAsTheyShould(t *testing.T) {
	addr := serve(t, &fakeScopes{})
	for name, args := range map[string][]string{
		"list": {"list"}, "show": {"show", "/secrets/"}, "root": {"show", ""}, "history": {"history", "/secrets/"}, "proposals": {"proposals", "/secrets/"},
		"dry-run": {"dry-run", "/secrets/", "--preset", "critical"}, "trust": {"trust", "/secrets/"}, "trust-history": {"trust", "/secrets/", "--history"},
	} {
		for _, form := range []string{"table", "json", "yaml"} {
			out, errs, err := call(t, append(args, "-o", form, "--endpoint", addr)...)
			if err != nil || errs != "" {
				t.Errorf("%s: %v, stderr %q", name, err, errs)
			}
			var v any
			if form == "json" && !json.Valid([]byte(out)) || form == "yaml" && yaml.Unmarshal([]byte(out), &v) != nil {
				t.Errorf("%s: not %s:\n%s", name, form, out)
			}
			if form != "yaml" || name == "show" {
				golden(t, name+"."+form, out)
			}
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

// A shown policy is a document that can be set.
func TestPoliciesCanBeEdited(t *testing.T) {
	addr := serve(t, &fakeScopes{})
	for _, args := range [][]string{{"show", "/secrets/", "--policy"}, {"history", "/secrets/", "--version", "2"}} {
		out, _, err := call(t, append(args, "--endpoint", addr)...)
		file := filepath.Join(t.TempDir(), "p.yaml")
		if err != nil || os.WriteFile(file, []byte(out), 0o600) != nil {
			t.Fatal(err)
		}
		f := &fakeScopes{}
		if _, _, err := call(t, "create", "/b/", "-f", file, "--wait", "0", "--endpoint", serve(t, f)); err != nil || len(f.got) != 1 {
			t.Errorf("%v, %q", err, f.got)
		}
	}
}

func TestOrdersWaitUntilTheyAreInForce(t *testing.T) {
	open := &meshpb.ScopeReply{Scope: &meshpb.Scope{Open: []*meshpb.Proposal{{Id: 7, Tally: &meshpb.Tally{Total: 30, Needed: 16}, Waiting: []string{"12D3KooWnode-b"}}}}}
	doing := &meshpb.ScopeReply{Scope: &meshpb.Scope{Doing: &meshpb.Proposal{Id: 7}}}
	done := &meshpb.ScopeReply{Scope: &meshpb.Scope{Version: 3, InForce: 3}}
	partial := &meshpb.ScopeReply{Scope: &meshpb.Scope{Version: 3, InForce: 2, Segments: []*meshpb.ScopeSegment{{Version: 3, Entered: true}, {Version: 2, Entered: true}}}}
	seven := &policy.Policy{Class: 2, Anchors: policy.Anchors{Count: 7}, Acks: policy.Acks{All: true}}
	few := &meshpb.ScopeReply{Scope: &meshpb.Scope{Version: 3, InForce: 3, Policy: string(seven.Encode())}}
	enough := &meshpb.ScopeReply{Scope: &meshpb.Scope{Version: 3, InForce: 3, Policy: string(policy.Critical().Encode())}}
	ending := func(kind, outcome, note string) *meshpb.Ending {
		return &meshpb.Ending{Id: 7, Kind: kind, Version: 3, Outcome: outcome, Note: note}
	}
	for _, c := range []struct {
		args   string
		stages []*meshpb.ScopeReply
		ending *meshpb.Ending
		out    string // what it ends with
		say    string // what was said meanwhile
		fails  string
	}{
		{"create /a/ --preset standard", []*meshpb.ScopeReply{open, doing, doing, done}, ending("create", "decided", ""),
			`scope "/a/" is created: its policy is in force`, "0 of 30, needs 16, waiting for W", ""},
		{"set /a/ --preset standard", []*meshpb.ScopeReply{open, partial, done}, ending("amend", "decided", ""),
			`scope "/a/" is changed: version 3 is in force`, "version 3 (partial: 1 of 2 segments have adopted it)", ""},
		{"set /secrets/ --preset critical", []*meshpb.ScopeReply{done, few, enough}, ending("amend", "decided", ""),
			"version 3 is in force\n", "version 3 is in force; 5 of 7 anchors are there, and writes are refused until there are 7", ""},
		{"set /a/ --preset standard --wait 1ms", []*meshpb.ScopeReply{open}, nil, "", "", "not in force after 1ms: "},
		{"set /a/ --preset standard", []*meshpb.ScopeReply{open, done}, ending("amend", "refused", "class: laxer"), "", "", "is refused: class: laxer"},
		{"set /a/ --preset standard", []*meshpb.ScopeReply{open, done}, ending("amend", "expired", ""), "", "", "is expired"},
		{"delete /a/", []*meshpb.ScopeReply{open, doing, doing, nil}, nil, `scope "/a/" is deleted: its keys belong`, "being carried out", ""},
		{"recover 000000000000000a node-a", []*meshpb.ScopeReply{doing, done}, ending("recover", "decided", ""), "segment 000000000000000a is recovered: it is done", "", ""},
		{"create /a/ --preset standard --wait 0", nil, nil, `proposal 7 of scope ""`, "", ""},
		{"create /a/ --preset standard --wait 0 -o json", nil, nil, `"in_force": false`, "", ""},
	} {
		addr := serve(t, &fakeScopes{stages: c.stages, ending: c.ending})
		out, errs, err := call(t, append(strings.Fields(c.args), "--endpoint", addr)...)
		if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) ||
			!strings.Contains(out, c.out) || !strings.Contains(errs, strings.TrimSuffix(c.say, "W")) {
			t.Errorf("%s: %v\nstdout %s\nstderr %s", c.args, err, out, errs)
		}
	}
}

func TestWhatPassesIsWaitedFor(t *testing.T) {
	f := &fakeScopes{busy: 1}
	addr := serve(t, f)
	if out, errs, err := call(t, "create", "/a/", "--preset", "standard", "--wait", "500ms", "--endpoint", addr); len(f.got) != 2 || !strings.Contains(errs, "is changing") {
		t.Errorf("%v, %s, %s", err, out, errs)
	}
	f.busy = 1000
	if _, _, err := call(t, "create", "/a/", "--preset", "standard", "--wait", "0", "--endpoint", addr); err == nil || len(f.got) != 3 {
		t.Errorf("not waited for, and yet %v after %d", err, len(f.got))
	}
}

func TestBadInputIsOneClearSentence(t *testing.T) {
	addr := serve(t, &fakeScopes{})
	file := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, []byte("class: strong\nacks: {count: 9}\ncolour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"create", "want one scope"},
		{"create /a/", "which policy? give --file FILE or --preset NAME"},
		{"create /a/ --preset best", `preset: there is no "best", want ephemeral, standard, critical`},
		{"create /a/ -f " + file, file + ": line 3: colour: there is no such field"},
		{"create /a/ -f /nowhere", "no such file"},
		{"set \"\" --preset ephemeral", "the root scope cannot be light"},
		{"set /a/ --preset standard --expect 1", "the newest version is 2"},
		{"set /a/ --preset standard --expect many", "invalid argument"},
		{"create /taken/ --preset standard", `scope "/taken/" exists already`},
		{"show /gone/", `there is no scope "/gone/"`},
		{"show /gone/ -o xml", "want table or json or yaml"},
		{"history /secrets/ --version 9", "version 9 is not kept"},
		{"dry-run /a/ --delete --preset standard", "needs no policy"},
		{"proposals a b", "want one scope, or none"},
		{"vote /a/", "the number of the proposal"},
		{"vote /a/ x --approve", `"x" is no number of a proposal`},
		{"vote /a/ 3", "give --approve or --refuse"},
		{"vote /a/ 3 --approve --why so", "--why is for refusals"},
		{"vote /a/ 9 --approve", "no such proposal is open"},
		{"withdraw /a/ 9", "no such proposal is open"},
		{"withdraw /a/ 0", `"0" is no number of a proposal`},
		{"recover x node-a", `segment ID "x"`},
		{"recover 000000000000000a", "want a segment and the node"},
		{"recover-here", "want the segment"},
		{"recover-here 000000000000000b", "not the root scope's home"},
		{"trust", "want one scope"},
		{"nonsense", "unknown command"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.Trim(args[i], `"`)
		}
		if args[0] != "nonsense" {
			args = append(args, "--endpoint", addr)
		}
		out, _, err := call(t, args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || out != "" && !strings.HasPrefix(c.args, "vote") {
			t.Errorf("%s: %v, stdout %q", c.args, err, out)
		}
	}
}

func TestVotesGoToEveryNodeNamed(t *testing.T) {
	a, b := serve(t, &fakeScopes{}), serve(t, &fakeScopes{})
	out, _, err := call(t, "vote", "/secrets/", "3", "--refuse", "--why", "not now", "--endpoints", a+","+b)
	if err != nil || strings.Count(out, `refuses proposal 3 of scope "/secrets/"`) != 2 {
		t.Errorf("%v, %s", err, out)
	}
}

func TestProposalsAreWithdrawn(t *testing.T) {
	addr := serve(t, &fakeScopes{})
	for form, want := range map[string]string{"table": `proposal 3 of scope "/secrets/" is withdrawn`, "yaml": "proposal: 3"} {
		if out, _, err := call(t, "withdraw", "/secrets/", "3", "--endpoint", addr, "-o", form); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, %s", err, out)
		}
	}
}

func TestProposalsOfScopesThatDoNotAnswer(t *testing.T) {
	out, errs, err := call(t, "proposals", "--endpoint", serve(t, &fakeScopes{}))
	if err != nil || !strings.Contains(errs, "/gone/") || !strings.Contains(out, "amend") {
		t.Errorf("%v, %s, %s", err, out, errs)
	}
}
