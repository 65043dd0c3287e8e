package machine

import (
	"errors"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

// trusting takes every signature that says "yes".
func trusting(_ anchormesh.NodeID, _, signature []byte) bool { return string(signature) == "yes" }

func (b *bench) governs() {
	b.m.approvals.verify = trusting
}

// decide has a proposal opened and approved by two of three.
func (b *bench) decide(gen anchormesh.Generation, p scope.Proposal) {
	b.t.Helper()
	if out := b.apply(gen, Propose(&p)); out.Err != nil {
		b.t.Fatal(out.Err)
	}
	id := b.m.State().Scope.Next
	for _, n := range []anchormesh.NodeID{"a", "b"} {
		if out := b.apply(gen, CastVote(id, &scope.Vote{Node: n, Approve: true, Signature: []byte("yes")})); out.Err != nil {
			b.t.Fatal(out.Err)
		}
	}
}

// A vote without its voter's signature counts for nothing, two of three decide, and the
// policy is in force in the segment, its descriptor and its lineage.
func TestAmendment(t *testing.T) {
	b := newBench(t)
	b.governs()
	p := scope.Proposal{Kind: scope.Amend, Version: 1, Policy: &policy.Policy{Anchors: policy.Anchors{Count: 5}}, Operator: "me"}
	if out := b.apply(1, Propose(&p)); out.Err != nil {
		t.Fatal(out.Err)
	}
	for name, v := range map[string]scope.Vote{
		"forged":   {Node: "a", Approve: true, Signature: []byte("no")},
		"stranger": {Node: "x", Approve: true, Signature: []byte("yes")},
	} {
		if out := b.apply(1, CastVote(1, &v)); !errors.Is(out.Err, ErrRefused) {
			t.Errorf("%s: %v", name, out.Err)
		}
	}
	for i, n := range []anchormesh.NodeID{"a", "c"} {
		if got := b.m.State().Scope.Newest().Number; got != 0 {
			t.Fatalf("version %d after %d votes", got, i)
		}
		b.apply(1, CastVote(1, &scope.Vote{Node: n, Approve: true, Signature: []byte("yes")}))
	}
	s := b.m.State()
	if s.Want != 5 || s.Descriptor.Policy != 1 || s.Scope.InForce != 1 || s.Scope.Newest().Entry != s.Chain.Head() || !s.Chain.Last().Describes(s.Descriptor) {
		t.Errorf("%+v", s)
	}
	if out := b.apply(1, CastVote(1, &scope.Vote{Node: "b", Signature: []byte("yes")})); !errors.Is(out.Err, scope.ErrNoProposal) {
		t.Errorf("a vote behind the decision: %v", out.Err)
	}
	if got := b.machine(b.m.Segment()).State(); got.Policy == nil || got.Policy.Anchors.Count != 5 || got.Scope.Newest().Number != 1 {
		t.Errorf("read back: %+v", got)
	}
}

// The right child of a cut adopts a decided scope with its proof, of another generation;
// late and doctored adoptions are refused, and so is what the policy forbids.
func TestAdoption(t *testing.T) {
	b := newBench(t)
	b.governs()
	if out := b.apply(1, (&Split{At: []byte("m"), Right: 11}).Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	born := b.changes[len(b.changes)-1]
	child := &bench{t: t, store: b.store, index: BirthIndex}
	child.m = child.machine(born.Child)
	child.governs()
	inner := &policy.Policy{Anchors: policy.Anchors{Count: 3}, Structure: policy.Structure{NoSplit: true}}
	b.decide(2, scope.Proposal{Kind: scope.Create, Subject: []byte("m"), Version: 1, Policy: inner, AtMillis: 9})
	entry := b.m.State().Chain.Last()
	proof := &lineage.Proof{Entry: entry}
	proof.Add("a", []byte("yes"))
	adopt := func(gen anchormesh.Generation, p *lineage.Proof, rules *policy.Policy) error {
		return child.apply(gen, (&Adoption{Proof: p, Policy: rules}).Command()).Err
	}
	// The child begins at m, and keys that do not begin with m are in it: no scope of these.
	if err := adopt(2, proof, inner); err == nil || !strings.Contains(err.Error(), "cannot go") {
		t.Errorf("more keys than the scope's: %v", err)
	}
	if out := child.apply(2, (&Split{At: []byte("n"), Right: 12}).Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	if err := adopt(3, proof, inner); !errors.Is(err, lineage.ErrUnproven) {
		t.Errorf("one signature of three: %v", err)
	}
	proof.Add("b", []byte("yes"))
	if err := adopt(3, proof, &policy.Policy{Anchors: policy.Anchors{Count: 1}}); !errors.Is(err, ErrRefused) {
		t.Errorf("another policy: %v", err)
	}
	if out := child.apply(3, (&Adoption{Proof: proof, Policy: inner}).Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	s := child.m.State()
	if d := s.Descriptor; string(d.Scope) != "m" || d.Policy != 1 || d.Generation != 4 || !s.Home() || s.Scope.Newest().AtMillis != 9 || s.Scope.InForce != 0 {
		t.Errorf("%+v, record %+v", d, s.Scope)
	}
	if out := child.apply(3, (&Adoption{Proof: proof, Policy: inner}).Command()); !errors.Is(out.Err, ErrGeneration) {
		t.Errorf("a late adoption: %v", out.Err)
	}
	if out := child.apply(4, (&Split{At: []byte("m5"), Right: 13}).Command()); out.Err == nil || !strings.Contains(out.Err.Error(), "forbids splits") {
		t.Errorf("a split: %v", out.Err)
	}
	// What is decided and not proven yet is entered again, for others to sign.
	head := b.m.State().Chain.Head()
	if out := b.apply(2, Affirm(1)); out.Err != nil {
		t.Fatal(out.Err)
	}
	again := b.m.State().Chain.Last()
	if again.Rule.Decision != head || b.m.State().Scope.Doing.Entry != again.Hash() || b.m.Descriptor().Generation != 2 {
		t.Errorf("%+v", again)
	}
	if out := b.apply(2, Finish(1, scope.Decided, "")); out.Err != nil || b.m.State().Scope.Doing != nil {
		t.Errorf("finish: %v", out.Err)
	}
	if out := b.apply(2, Affirm(1)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("affirmed when done: %v", out.Err)
	}
	// A scope inside the one that was made meanwhile, decided around both, is cut out all the
	// same: nothing else would ever end its creation.
	b.decide(2, scope.Proposal{Kind: scope.Create, Subject: []byte("m5"), Version: 1, Policy: inner, AtMillis: 10})
	late := &lineage.Proof{Entry: b.m.State().Chain.Last()}
	late.Add("a", []byte("yes"))
	late.Add("b", []byte("yes"))
	child.m.RequireAgreement()
	for at, cuts := range map[string]bool{"m6": true, "m55": false} {
		split := Split{At: []byte(at), Right: 14, Evidence: lineage.Evidence{Reason: lineage.Boundary}}
		if out := child.apply(4, (&Decision{Proof: late}).Allow(split.Command())); (out.Err == nil) != cuts {
			t.Errorf("a cut at %s: %v", at, out.Err)
		}
	}
}

// A segment that begins anew on a survivor skips whatever the others can have reached.
func TestRecovered(t *testing.T) {
	b := newBench(t)
	b.apply(1, put("a", "v"))
	before := b.m.State()
	s, err := b.m.Recover(Recovery{Self: "b", At: lineage.Place{Index: 100, Term: 9}, Why: lineage.Evidence{Reason: lineage.Recovery}})
	if err != nil {
		t.Fatal(err)
	}
	d := s.Descriptor
	if len(d.Anchors) != 1 || d.Anchors[0].Node != "b" || d.Anchors[0].Replica < before.Descriptor.NextReplica || d.Generation < before.Descriptor.Generation+1<<16 ||
		s.Window < 1<<32 || !d.Stamped || !s.Chain.Last().Describes(d) || len(s.Conf.GetVoters()) != 1 {
		t.Errorf("%+v", s)
	}
	// The next recovery of the same old generation, on another survivor: above the first,
	// and all that may have come of it.
	next, err := before.recovered(&Recovery{Self: "c", At: lineage.Place{Index: 90, Term: 9}, Times: 2, Why: lineage.Evidence{Reason: lineage.Recovery}}, 1)
	if err != nil || next.Descriptor.Generation < d.Generation+1<<16-1 || next.Descriptor.Anchors[0].Replica < d.NextReplica+recoveredReplicas-1 {
		t.Errorf("after %+v: %+v, %v", d, next, err)
	}
	if _, err := before.recovered(&Recovery{Self: "x", At: lineage.Place{Index: 100, Term: 9}}, 1); err == nil {
		t.Error("a node that is no anchor survived")
	}
}

func FuzzParseAdoption(f *testing.F) {
	e := threeAnchors().Chain.Last()
	f.Add((&Adoption{Proof: &lineage.Proof{Entry: e}, Policy: &policy.Policy{}, Anchors: 3}).Command()[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAdoption(data)
		if err != nil {
			return
		}
		again, err := parseAdoption(a.Command()[1:])
		if err != nil || again.Anchors != a.Anchors || scope.PolicyHash(again.Policy) != scope.PolicyHash(a.Policy) {
			t.Fatalf("%+v came back as %+v, %v", a, again, err)
		}
	})
}
