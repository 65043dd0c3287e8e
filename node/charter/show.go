package charter

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/governor"
)

// asksMax bounds the questions to other nodes under way for one request.
const asksMax = 16

// Show implements meshpb.ScopesServer.
func (s *Service) Show(ctx context.Context, req *meshpb.ShowScopeRequest) (*meshpb.ScopeReply, error) {
	v, err := s.show(ctx, req.GetPrefix())
	if err != nil {
		return nil, err
	}
	newest := v.Record.Newest()
	out := &meshpb.Scope{
		Prefix: v.Prefix, Version: newest.Number, InForce: v.Record.InForce, Policy: encoded(newest.Policy), Home: uint64(v.Home), Leader: string(v.Leader),
		Voters: weights(v), Anchors: uint32(v.Anchors), Open: proposals(v),
	}
	for _, a := range v.Segments {
		out.Segments = append(out.Segments, &meshpb.ScopeSegment{
			Segment: uint64(a.Segment), Start: a.Range.Start, End: a.Range.End, Version: a.Version, Entered: a.Entered,
		})
	}
	if v.Record.Doing != nil {
		out.Doing = proposal(v, v.Record.Doing)
	}
	if v.Record.Recovering != nil {
		out.Recovering = proposal(v, v.Record.Recovering)
	}
	return &meshpb.ScopeReply{Scope: out}, nil
}

func encoded(p *policy.Policy) string {
	if p == nil {
		return ""
	}
	return string(p.Encode())
}

// weights are those of a home's voters.
func weights(v *governor.View) (out []*meshpb.Weight) {
	for i, n := range v.Voters {
		out = append(out, &meshpb.Weight{Node: string(n), Weight: uint32(v.Weights[i])})
	}
	return out
}

func proposals(v *governor.View) (out []*meshpb.Proposal) {
	for _, p := range v.Record.Open {
		out = append(out, proposal(v, p))
	}
	return out
}

// proposal shows one that is open or being carried out.
func proposal(v *governor.View, p *scope.Proposal) *meshpb.Proposal {
	out := &meshpb.Proposal{
		Scope: v.Prefix, Id: p.ID, Kind: p.Kind.String(), Subject: p.Subject, Version: p.Version, Policy: encoded(p.Policy),
		Operator: p.Operator, AtUnixMs: p.AtMillis, Segment: uint64(p.Segment), Survivor: string(p.Survivor),
		Key: p.Key, From: string(p.From), To: string(p.To),
	}
	for _, vote := range p.Votes {
		out.Votes = append(out.Votes, &meshpb.Ballot{Node: string(vote.Node), Approve: vote.Approve, Why: vote.Why})
	}
	i := slices.IndexFunc(v.Open, func(s governor.Standing) bool { return s.ID == p.ID })
	if i < 0 {
		return out
	}
	out.Tally = tally(v.Open[i].Tally)
	for _, n := range v.Open[i].Waiting {
		out.Waiting = append(out.Waiting, string(n))
	}
	return out
}

// List implements meshpb.ScopesServer: what the routes say.
func (s *Service) List(context.Context, *meshpb.ListScopesRequest) (*meshpb.ListScopesReply, error) {
	out := &meshpb.ListScopesReply{Mesh: uint64(s.cfg.Host.Mesh())}
	known := make(map[string]*meshpb.ScopeSummary)
	for _, d := range s.cfg.Table.All() {
		one := known[string(d.Scope)]
		if one == nil {
			one = &meshpb.ScopeSummary{Prefix: d.Scope, OldestVersion: d.Policy, NewestVersion: d.Policy, Anchors: uint32(len(d.Voters()))}
			known[string(d.Scope)] = one
			out.Scopes = append(out.Scopes, one)
		}
		one.Segments++
		one.OldestVersion, one.NewestVersion = min(one.OldestVersion, d.Policy), max(one.NewestVersion, d.Policy)
		one.Anchors = min(one.Anchors, uint32(len(d.Voters())))
		if d.Home() {
			leader, _ := s.cfg.Table.Leader(d.Segment)
			one.Class, one.Line, one.Home, one.Leader = d.Class.String(), d.Line, uint64(d.Segment), string(leader)
		}
	}
	slices.SortFunc(out.Scopes, func(a, b *meshpb.ScopeSummary) int { return bytes.Compare(a.GetPrefix(), b.GetPrefix()) })
	return out, nil
}

// History implements meshpb.ScopesServer.
func (s *Service) History(ctx context.Context, req *meshpb.ScopeHistoryRequest) (*meshpb.ScopeHistoryReply, error) {
	v, err := s.show(ctx, req.GetPrefix())
	if err != nil {
		return nil, err
	}
	out := &meshpb.ScopeHistoryReply{}
	for _, n := range v.Record.Versions {
		out.Versions = append(out.Versions, &meshpb.PolicyVersion{
			Number: n.Number, Policy: encoded(n.Policy), Operator: n.Operator, AtUnixMs: n.AtMillis, Proposal: n.Proposal, Index: n.Index, Approved: n.Approved, Total: n.Total,
		})
	}
	for _, c := range v.Record.Closed {
		out.Endings = append(out.Endings, &meshpb.Ending{
			Id: c.ID, Kind: c.Kind.String(), Subject: c.Subject, Version: c.Version, Operator: c.Operator, AtUnixMs: c.AtMillis, Outcome: c.Outcome.String(), Note: c.Note, Index: c.Index,
		})
	}
	for i := range v.Record.Counts {
		out.Counts = append(out.Counts, count(&v.Record.Counts[i]))
	}
	return out, nil
}

func count(c *scope.Count) *meshpb.Count {
	out := &meshpb.Count{
		Proposal: c.Proposal, Kind: c.Kind.String(), Decided: c.Decided, Policy: c.Policy, Threshold: c.Threshold.String(), Ledger: c.Basis.Ledger,
		Tally: tally(c.Tally),
	}
	for i, w := range c.Basis.Weights {
		out.Voters = append(out.Voters, &meshpb.Voter{Node: string(w.Node), Weight: w.Weight, Verdict: c.Votes[i].String()})
	}
	for _, t := range c.Basis.Thresholds {
		out.Thresholds = append(out.Thresholds, t.String())
	}
	return out
}

func tally(t scope.Tally) *meshpb.Tally {
	return &meshpb.Tally{Approved: t.Approved, Refused: t.Refused, Total: t.Total, Needed: t.Needed}
}

// Proposals implements meshpb.ScopesServer.
func (s *Service) Proposals(ctx context.Context, req *meshpb.ProposalsRequest) (*meshpb.ProposalsReply, error) {
	if !req.GetAll() {
		v, err := s.show(ctx, req.GetPrefix())
		if err != nil {
			return nil, err
		}
		return &meshpb.ProposalsReply{Proposals: proposals(v)}, nil
	}
	prefixes := s.cfg.Scopes.List()
	views, failed := make([]*governor.View, len(prefixes)), make([]error, len(prefixes))
	var asked errgroup.Group
	asked.SetLimit(asksMax)
	for i, prefix := range prefixes {
		asked.Go(func() error {
			views[i], failed[i] = s.cfg.Scopes.Show(ctx, prefix)
			return nil
		})
	}
	_ = asked.Wait() // the failures are told
	out := &meshpb.ProposalsReply{}
	for i, v := range views {
		if failed[i] != nil {
			out.Problems = append(out.Problems, fmt.Sprintf("scope %q does not answer: %v", prefixes[i], failed[i]))
			continue
		}
		out.Proposals = append(out.Proposals, proposals(v)...)
	}
	return out, nil
}

// within returns the segments of a scope, without those of scopes inside it.
func (s *Service) within(prefix []byte) (out []*anchormesh.Descriptor) {
	for _, d := range s.cfg.Table.All() {
		if bytes.Equal(d.Scope, prefix) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *anchormesh.Descriptor) int { return bytes.Compare(a.Range.Start, b.Range.Start) })
	return out
}
