package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// strict and lax differ in every field that can be bound, strict being stricter.
func strictAndLax() (strict, lax *Policy) {
	strict = full()
	strict.Writes.TTLRequired = true // contradicts append-only; the order of fields does not care
	strict.Priority, strict.Retention = 1, Retention{OwnCompaction: true}
	lax = &Policy{
		Class: anchormesh.Light, Anchors: Anchors{Count: 3}, Reads: Reads{Lease: true},
		Amend: Amend{Threshold: Fraction{1, 2}}, Retention: Retention{Seconds: 1, Writes: 1},
	}
	return strict, lax
}

func TestWeakening(t *testing.T) {
	strict, lax := strictAndLax()
	for _, name := range Bindable() {
		strict.Binding, lax.Binding = []string{name}, []string{name}
		err := Weakens(strict, lax)
		if err == nil || !strings.HasPrefix(err.Error(), name) || !strings.Contains(err.Error(), "is laxer than") {
			t.Errorf("%s: %v", name, err)
		}
		if err := Weakens(lax, strict); err != nil {
			t.Errorf("%s: the stricter one weakens: %v", name, err)
		}
		if err := Weakens(strict, strict); err != nil {
			t.Errorf("%s: an equal one weakens: %v", name, err)
		}
		if lax.Binding = nil; !strings.Contains(Weakens(strict, lax).Error(), "binding: must name "+name) {
			t.Errorf("%s: need not be bound inside: %v", name, Weakens(strict, lax))
		}
	}
	strict.Binding = nil
	if err := Weakens(strict, lax); err != nil {
		t.Errorf("nothing is bound, and yet %v", err)
	}
}

func TestWeakeningSaysWhatAndWhy(t *testing.T) {
	around, inside := Critical(), Standard()
	around.Binding = []string{"class", "anchors.count"}
	inside.Binding = []string{"anchors", "class"}
	const want = "class: normal is laxer than strong, which the scope around it binds\n" +
		"anchors.count: 3 is laxer than 5, which the scope around it binds"
	if err := Weakens(around, inside); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestWeakeningOfWhatHasNoNumbers(t *testing.T) {
	for _, c := range []struct {
		binding        string
		around, inside func(*Policy)
		laxer          bool
	}{
		{"amend.threshold", func(*Policy) {}, func(p *Policy) { p.Amend.Threshold = Fraction{1, 2} }, true},
		{"amend.threshold", func(*Policy) {}, func(p *Policy) { p.Amend.Threshold = Fraction{501, 1000} }, false},
		{"amend.threshold", func(p *Policy) { p.Amend.Threshold = Fraction{1, 2} }, func(*Policy) {}, false},
		{"amend.threshold", func(p *Policy) { p.Amend.Threshold = Fraction{2, 3} }, func(*Policy) {}, true},
		{"acks", func(p *Policy) { p.Acks.Count = 2 }, func(*Policy) {}, false}, // both a majority
		{"acks", func(p *Policy) { p.Acks.All = true }, func(p *Policy) { p.Anchors.Count, p.Acks.Count = 5, 4 }, false},
		{"writes.writers", func(p *Policy) { p.Writes.Writers = []string{"a", "b"} }, func(p *Policy) { p.Writes.Writers = []string{"b"} }, false},
		{"writes.writers", func(p *Policy) { p.Writes.Writers = []string{"a"} }, func(p *Policy) { p.Writes.Writers = []string{"a", "c"} }, true},
		{"writes.rules", func(p *Policy) { p.Writes.Rules = []Rule{{"a", "1"}} }, func(p *Policy) { p.Writes.Rules = []Rule{{"b", "2"}, {"a", "1"}} }, false},
		{"writes.rules", func(p *Policy) { p.Writes.Rules = []Rule{{"a", "1"}} }, func(p *Policy) { p.Writes.Rules = []Rule{{"a", "2"}} }, true},
		{"quota.keys", func(p *Policy) { p.Quota.Keys = 5 }, func(*Policy) {}, true},
		{"quota.keys", func(*Policy) {}, func(p *Policy) { p.Quota.Keys = 5 }, false},
		{"retention.writes", func(*Policy) {}, func(p *Policy) { p.Retention.Writes = 5 }, true},
	} {
		around, inside := Standard(), Standard()
		around.Binding, inside.Binding = []string{c.binding}, []string{c.binding}
		c.around(around)
		c.inside(inside)
		if err := Weakens(around, inside); (err != nil) != c.laxer {
			t.Errorf("%s around %s: %v", around.Encode(), inside.Encode(), err)
		}
	}
}

func TestDiffIsInWords(t *testing.T) {
	var got []string
	for _, c := range Diff(Critical(), Ephemeral()) {
		got = append(got, c.Field+": "+c.Old+" > "+c.New)
	}
	want := []string{
		"class: strong > light", "anchors.count: 5 > 3", "acks: 4 of 5 > a majority", "approvals.threshold: 1/2 > none", "amend.threshold: 3/5 > more than half",
		"writes.ttl_required: no > yes", "priority: 8 > 3", "retention.seconds: until somebody compacts > 10m",
		"binding: acks, amend.threshold, anchors.count, approvals.threshold, class > nothing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(full().Describe()) != len(fields) {
		t.Error("a description leaves fields out")
	}
}
