package machine

import (
	"errors"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

// act has a change of structure voted on, as the leader of term 2 has.
func (b *bench) act(who []anchormesh.NodeID, no refusals, command []byte) *approval.Batch {
	out := b.show(0, who, no, command)
	for i := range out.Votes {
		out.Votes[i].Signature = signed(out.Votes[i].Node, out.Question.Statement(&out.Votes[i]))
	}
	return out
}

func cutAt(key string, why lineage.Reason) []byte {
	return (&Split{At: []byte(key), Right: 11, Evidence: lineage.Evidence{Reason: why}}).Command()
}

// A leader that leaves out its anchors' votes on a split, takes too few, those on another
// split, of another generation or of nobody, changes nothing.
func TestASplitNeedsItsAnchors(t *testing.T) {
	cut := cutAt("m", lineage.Load)
	refusing := refusals{"b": {0: "not now"}}
	for name, c := range map[string]struct {
		entry func(b *bench) []byte
		want  error
	}{
		"no votes":          {func(*bench) []byte { return cut }, ErrUnagreed},
		"one of three":      {func(b *bench) []byte { return Agreed(b.act(two[:1], nil, cut)) }, ErrUnagreed},
		"one of two":        {func(b *bench) []byte { return Agreed(b.act(two, refusing, cut)) }, ErrUnagreed},
		"a stranger's":      {func(b *bench) []byte { return Agreed(b.act([]anchormesh.NodeID{"a", "x"}, nil, cut)) }, approval.ErrForged},
		"a scope's end":     {func(b *bench) []byte { return Agreed(b.act(two, nil, cutAt("m", lineage.Boundary))) }, ErrRefused},
		"a window":          {func(b *bench) []byte { return Agreed(b.act(two, nil, Window(9))) }, errCommand},
		"as a write":        {func(b *bench) []byte { return Agreed(b.show(1, two, nil, cut)) }, approval.ErrForged},
		"on another split":  {func(b *bench) []byte { v := b.act(two, nil, cutAt("n", 0)); v.Slots[0].Bytes = cut; return Agreed(v) }, approval.ErrForged},
		"another policy's":  {func(b *bench) []byte { v := b.act(two, nil, cut); v.Question.Policy++; return Agreed(v) }, approval.ErrStale},
		"signed by nobody":  {func(b *bench) []byte { v := b.act(two, nil, cut); v.Votes[1].Signature = []byte("x"); return Agreed(v) }, approval.ErrForged},
		"nothing":           {func(*bench) []byte { return []byte{byte(OpAgreed)} }, errCommand},
		"cut short":         {func(b *bench) []byte { e := Agreed(b.act(two, nil, cut)); return e[:len(e)-1] }, approval.ErrEncoding},
		"a decision of air": {func(*bench) []byte { return append([]byte{byte(OpAgreed), byDecision, 0, 0}, cut...) }, lineage.ErrInvalid},
	} {
		b := newBench(t)
		b.m.RequireAgreement()
		out := b.apply(1, c.entry(b))
		if name == "a decision of air" {
			if out.Err == nil {
				t.Errorf("%s: it was cut", name)
			}
		} else if !errors.Is(out.Err, c.want) {
			t.Errorf("%s: %v, want %v", name, out.Err, c.want)
		}
		if b.m.Descriptor().Generation != 1 {
			t.Errorf("%s: it was cut", name)
		}
	}
	b := newBench(t)
	b.m.RequireAgreement()
	if out := b.apply(1, Agreed(b.act(two, nil, cut))); out.Err != nil || b.m.Descriptor().Generation != 2 {
		t.Errorf("two of three: %v", out.Err)
	}
}

// Where operators vote, the anchors' own votes do not cut; the amend threshold holds.
func TestASplitUnderAPolicy(t *testing.T) {
	cut := cutAt("m", lineage.Operator)
	b := newStrongBench(t, &policy.Policy{Anchors: policy.Anchors{Count: 3}, Amend: policy.Amend{Manual: true}})
	b.m.RequireAgreement()
	if out := b.in(2, Agreed(b.act(two, nil, cut))); out.Err == nil || !strings.Contains(out.Err.Error(), "operators vote") {
		t.Errorf("manual: %v", out.Err)
	}
	b = newStrongBench(t, &policy.Policy{Anchors: policy.Anchors{Count: 3}, Structure: policy.Structure{NoSplit: true}})
	b.m.RequireAgreement()
	if err := b.m.State().JudgeAct(cut); err == nil || !strings.Contains(err.Error(), "forbids splits") {
		t.Errorf("a voter: %v", err)
	}
	if out := b.in(2, Agreed(b.act(two, nil, cut))); out.Err == nil || !strings.Contains(out.Err.Error(), "forbids splits") {
		t.Errorf("no_split: %v", out.Err)
	}
}

// A decision of the scope's home cuts what it names, once, and nothing else.
func TestASplitByDecision(t *testing.T) {
	order := scope.Proposal{Kind: scope.Split, Segment: 9, Generation: 1, Key: []byte("m"), Operator: "me"}
	b := newBench(t)
	b.governs()
	b.m.RequireAgreement()
	b.decide(1, order)
	doing := b.m.State().Scope.Doing
	if doing == nil || doing.Kind != scope.Split || doing.Entry != b.m.State().Chain.Head() {
		t.Fatalf("decided: %+v", doing)
	}
	proof := &lineage.Proof{Entry: b.m.State().Chain.Last()}
	for _, n := range two {
		proof.Add(n, []byte("yes"))
	}
	unproven := &lineage.Proof{Entry: proof.Entry}
	unproven.Add("a", []byte("yes"))
	split := &Split{At: []byte("m"), Right: RightOf(doing), Evidence: lineage.Evidence{Reason: lineage.Operator, Operator: "me"}}
	elsewhere := *split
	elsewhere.At = []byte("n")
	other := *doing
	other.Key = []byte("n")
	for name, entry := range map[string][]byte{
		"unproven":          (&Decision{Proof: unproven, Order: doing}).Allow(split.Command()),
		"elsewhere":         (&Decision{Proof: proof, Order: doing}).Allow(elsewhere.Command()),
		"by another order":  (&Decision{Proof: proof, Order: &other}).Allow(elsewhere.Command()),
		"as a scope's end":  (&Decision{Proof: proof}).Allow(cutAt("m", lineage.Boundary)),
		"something unasked": (&Decision{Proof: proof, Order: doing}).Allow(Window(7)),
	} {
		if out := b.apply(1, entry); out.Err == nil || b.m.Descriptor().Generation != 1 {
			t.Errorf("%s: %v", name, out.Err)
		}
	}
	entry := (&Decision{Proof: proof, Order: doing}).Allow(split.Command())
	if out := b.apply(1, entry); out.Err != nil || b.m.Descriptor().Generation != 2 {
		t.Fatalf("decided: %v", out.Err)
	}
	if out := b.apply(2, entry); out.Err == nil || b.m.Descriptor().Generation != 2 {
		t.Errorf("once more: %v", out.Err)
	}
}

func FuzzAgreed(f *testing.F) {
	f.Add([]byte{byVotes})
	f.Add((&Decision{Proof: &lineage.Proof{Entry: &lineage.Entry{}}}).Allow(cutAt("m", 0))[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		b := newBench(t)
		b.m.RequireAgreement()
		if out := b.apply(1, append([]byte{byte(OpAgreed)}, data...)); out.Err == nil {
			t.Fatal("it was taken")
		}
	})
}
