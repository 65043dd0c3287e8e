package scope

import (
	"encoding/json"
	"time"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// What answers look like to programs. Prefixes and keys are text as people type it;
// bytes that are no text are replaced.

type scopeView struct {
	Prefix   string          `json:"prefix"`
	Version  uint64          `json:"version"`
	InForce  uint64          `json:"in_force"`
	Policy   json.RawMessage `json:"policy"` // null: the mesh's default
	Home     string          `json:"home"`
	Leader   string          `json:"leader"`
	Anchors  uint32          `json:"anchors"`
	Voters   []weightView    `json:"voters"`
	Segments []segmentView   `json:"segments"`
	Open     []proposalView  `json:"open"`
	// Doing and Recovering were decided, and are being carried out.
	Doing      *proposalView `json:"doing,omitempty"`
	Recovering *proposalView `json:"recovering,omitempty"`
}

type weightView struct {
	Node   string `json:"node"`
	Weight uint32 `json:"weight"`
}

type segmentView struct {
	Segment string `json:"segment"`
	Range   string `json:"range"`
	Version uint64 `json:"version"`
	Entered bool   `json:"entered"`
}

type proposalView struct {
	Scope    string          `json:"scope"`
	ID       uint64          `json:"id"`
	Kind     string          `json:"kind"`
	Subject  string          `json:"subject"`
	Version  uint64          `json:"version,omitempty"`
	Policy   json.RawMessage `json:"policy,omitempty"`
	Operator string          `json:"operator"`
	At       time.Time       `json:"at"`
	Approved uint64          `json:"approved"`
	Refused  uint64          `json:"refused"`
	Needed   uint64          `json:"needed"`
	Total    uint64          `json:"total"`
	Votes    []voteView      `json:"votes"`
	Waiting  []string        `json:"waiting"`
	Segment  string          `json:"segment,omitempty"`
	Survivor string          `json:"survivor,omitempty"`
	Key      string          `json:"key,omitempty"`
	From     string          `json:"from,omitempty"`
	To       string          `json:"to,omitempty"`
}

type voteView struct {
	Node    string `json:"node"`
	Approve bool   `json:"approve"`
	Why     string `json:"why,omitempty"`
}

func viewScope(s *meshpb.Scope) scopeView {
	v := scopeView{
		Prefix: string(s.GetPrefix()), Version: s.GetVersion(), InForce: s.GetInForce(), Policy: rawPolicy(s.GetPolicy()),
		Home: segmentName(s.GetHome()), Leader: s.GetLeader(), Anchors: s.GetAnchors(),
		Voters: viewWeights(s.GetVoters()), Segments: []segmentView{}, Open: []proposalView{},
	}
	for _, seg := range s.GetSegments() {
		v.Segments = append(v.Segments, segmentView{
			segmentName(seg.GetSegment()), rangeText(seg.GetStart(), seg.GetEnd()), seg.GetVersion(), seg.GetEntered(),
		})
	}
	for _, p := range s.GetOpen() {
		v.Open = append(v.Open, viewProposal(p))
	}
	v.Doing, v.Recovering = viewCarried(s.GetDoing()), viewCarried(s.GetRecovering())
	return v
}

// viewCarried shows what is being carried out, if anything is.
func viewCarried(p *meshpb.Proposal) *proposalView {
	if p == nil {
		return nil
	}
	v := viewProposal(p)
	return &v
}

func viewWeights(weights []*meshpb.Weight) []weightView {
	out := []weightView{}
	for _, w := range weights {
		out = append(out, weightView{w.GetNode(), w.GetWeight()})
	}
	return out
}

func viewProposal(p *meshpb.Proposal) proposalView {
	v := proposalView{
		Scope: string(p.GetScope()), ID: p.GetId(), Kind: p.GetKind(), Subject: string(p.GetSubject()), Version: p.GetVersion(),
		Operator: p.GetOperator(), At: at(p.GetAtUnixMs()), Survivor: p.GetSurvivor(),
		Key: string(p.GetKey()), From: p.GetFrom(), To: p.GetTo(),
		Approved: p.GetTally().GetApproved(), Refused: p.GetTally().GetRefused(), Needed: p.GetTally().GetNeeded(), Total: p.GetTally().GetTotal(),
		Votes: []voteView{}, Waiting: ask.NonNil(p.GetWaiting()),
	}
	if p.GetPolicy() != "" {
		v.Policy = rawPolicy(p.GetPolicy())
	}
	if p.GetSegment() != 0 {
		v.Segment = segmentName(p.GetSegment())
	}
	for _, b := range p.GetVotes() {
		v.Votes = append(v.Votes, voteView{b.GetNode(), b.GetApprove(), b.GetWhy()})
	}
	return v
}

// rawPolicy puts a policy into an answer as it is.
func rawPolicy(text string) json.RawMessage {
	if text == "" {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}

func at(unixMs int64) time.Time { return time.UnixMilli(unixMs).UTC() }

func atText(unixMs int64) string { return at(unixMs).Format(time.RFC3339) }
