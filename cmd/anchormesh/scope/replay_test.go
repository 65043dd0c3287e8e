package scope

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// elders are three nodes with a ledger of more entries than are kept, and a scope that
// they decided about meanwhile.
type elders struct {
	t      *testing.T
	nodes  []wire.Identity // by node
	ledger *trust.Ledger
	record *scope.Record
}

func newElders(t *testing.T) *elders {
	e := &elders{t: t, record: &scope.Record{}}
	for range 3 {
		id, err := wire.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		e.nodes = append(e.nodes, id)
	}
	slices.SortFunc(e.nodes, func(a, b wire.Identity) int { return cmp.Compare(a.NodeID(), b.NodeID()) })
	for turn := range 130 {
		e.judge(turn/30%2 == 1)
		if turn%4 == 0 {
			e.decide()
		}
	}
	return e
}

func (e *elders) voters() (out []anchormesh.NodeID) {
	for _, n := range e.nodes {
		out = append(out, n.NodeID())
	}
	return out
}

// judge has all report: of the first one that it is dead, or well.
func (e *elders) judge(dead bool) {
	p := &trust.Poll{Mesh: 7, Segment: 10, Generation: 1, Term: 3, Version: e.ledger.Version(), Ledger: e.ledger.Digest(), Voters: e.voters()}
	var reports []trust.Report
	for i, n := range e.nodes {
		r := trust.Report{By: n.NodeID(), Measures: []trust.Measure{{Answered: 30}, {Answered: 30}, {Answered: 30}}}
		if dead && i > 0 {
			r.Measures[0] = trust.Measure{Missed: 30}
		}
		var err error
		if r.Signature, err = n.Sign(p.Statement(&r)); err != nil {
			e.t.Fatal(err)
		}
		reports = append(reports, r)
	}
	next, err := e.ledger.Next(p, reports, 100+p.Version, 3)
	if err == nil {
		e.ledger = next
	} else if !errors.Is(err, trust.ErrUnchanged) {
		e.t.Fatal(err)
	}
}

// decide amends the policy by the votes of the first two; every third time they refuse.
func (e *elders) decide() {
	newest := e.record.Newest()
	p := scope.Proposal{Kind: scope.Amend, Subject: []byte("/secrets/"), Base: newest.Number, Version: newest.Number + 1, Policy: policy.Standard()}
	record, err := e.record.Propose([]byte("/secrets/"), p, scope.Place{Index: 5, Term: 1})
	for _, n := range e.nodes[1:] {
		if err == nil {
			approve := record.Next%3 > 0
			electorate := e.ledger.Elect(e.voters(), record.Threshold())
			record, _, err = record.Vote(record.Next, scope.Vote{Node: n.NodeID(), Approve: approve}, electorate, scope.Place{Index: 6, Term: 1})
		}
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.record = record
}

// answers are what a node says of them.
func (e *elders) answers() (*meshpb.TrustReply, *meshpb.ScopeHistoryReply) {
	history := &meshpb.ScopeHistoryReply{}
	for _, c := range e.record.Counts {
		one := &meshpb.Count{
			Proposal: c.Proposal, Kind: c.Kind.String(), Decided: c.Decided, Policy: c.Policy, Threshold: c.Threshold.String(), Ledger: c.Basis.Ledger,
			Tally: &meshpb.Tally{Approved: c.Tally.Approved, Refused: c.Tally.Refused, Total: c.Tally.Total, Needed: c.Tally.Needed}, Thresholds: []string{""},
		}
		for i, w := range c.Basis.Weights {
			one.Voters = append(one.Voters, &meshpb.Voter{Node: string(w.Node), Weight: w.Weight, Verdict: c.Votes[i].String()})
		}
		history.Counts = append(history.Counts, one)
	}
	return &meshpb.TrustReply{Segments: []*meshpb.SegmentTrust{
		{Segment: 10, Start: []byte("/secrets/"), End: []byte("/secrets0"), Ledger: e.ledger.Encode()}, {Segment: 11, Start: []byte("/secrets0")},
	}}, history
}

// A ledger of more entries than are kept, and every decision, come out the same when they
// are computed again by whoever asks; anything that does not is told loudly.
func TestReplay(t *testing.T) {
	e := newElders(t)
	ledgers, history := e.answers()
	v := replayed("/secrets/", ledgers, history)
	if err := v.wrong(); err != nil || v.Ledgers[0].From == 0 || v.Ledgers[0].To != v.Ledgers[0].From+trust.HistoryMax || len(v.Ledgers[0].SignedBy) != 3 {
		t.Fatalf("%v: %+v", err, v.Ledgers)
	}
	var kept, forgotten, refused, uneven int
	for i, c := range v.Counts {
		if c.Weights {
			kept++
		} else if c.Ledger < v.Ledgers[0].From {
			forgotten++
		} else {
			t.Errorf("%+v was not compared with the ledger", c)
		}
		if !c.Decided {
			refused++
		}
		if w := e.record.Counts[i].Basis.Elect().Voters(); w[0].Weight != w[1].Weight {
			uneven++
		}
	}
	if kept < 5 || forgotten < 5 || refused < 5 || uneven < 5 {
		t.Errorf("of %d decisions %d by weights that are kept, %d of older ones, %d refused, %d by unequal weights", len(v.Counts), kept, forgotten, refused, uneven)
	}
	f := &fakeScopes{ledgers: ledgers, history: history}
	out, _, err := call(t, "trust", "/secrets/", "--replay", "--endpoint", serve(t, f))
	if err != nil || strings.Contains(out, "MISMATCH") || strings.Count(out, "the same") != len(v.Counts) {
		t.Errorf("%v:\n%s", err, out)
	}
	for what, spoil := range map[string]func(*meshpb.TrustReply, *meshpb.ScopeHistoryReply){
		"a bit of the ledger": func(l *meshpb.TrustReply, _ *meshpb.ScopeHistoryReply) { b := l.Segments[0].Ledger; b[len(b)-1] ^= 1 },
		"a tally":             func(_ *meshpb.TrustReply, h *meshpb.ScopeHistoryReply) { h.Counts[0].Tally.Approved++ },
		"a vote":              func(_ *meshpb.TrustReply, h *meshpb.ScopeHistoryReply) { h.Counts[1].Voters[2].Verdict = "silent" },
		"a verdict":           func(_ *meshpb.TrustReply, h *meshpb.ScopeHistoryReply) { h.Counts[1].Decided = !h.Counts[1].Decided },
		"a threshold":         func(_ *meshpb.TrustReply, h *meshpb.ScopeHistoryReply) { h.Counts[2].Threshold = "7/8" },
		"weights that the ledger never gave": func(_ *meshpb.TrustReply, h *meshpb.ScopeHistoryReply) {
			last := h.Counts[len(h.Counts)-1]
			for _, w := range last.Voters {
				w.Weight = 10
			}
			last.Tally = &meshpb.Tally{Approved: last.Tally.Approved / max(last.Tally.Approved, 1) * 20, Refused: last.Tally.Refused / max(last.Tally.Refused, 1) * 20, Total: 30, Needed: 16}
		},
	} {
		ledgers, history := e.answers()
		spoil(ledgers, history)
		f := &fakeScopes{ledgers: ledgers, history: history}
		out, _, err := call(t, "trust", "/secrets/", "--replay", "--endpoint", serve(t, f))
		if !errors.Is(err, errReplay) || !strings.Contains(out, "MISMATCH") {
			t.Errorf("%s was changed: %v\n%s", what, err, out)
		}
	}
}
