package turns

import (
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/machine"
)

func home(line string, turn machine.Turn) *machine.State {
	return &machine.State{
		Descriptor: &anchormesh.Descriptor{Segment: 5, Range: anchormesh.PrefixRange([]byte("/b/")), Scope: []byte("/b/"), Line: []byte(line), Policy: 1},
		Scope:      &scope.Record{InForce: 1}, Turn: turn,
	}
}

// Every state of a home has one next step, and only some can be turned back.
func TestNextAndBack(t *testing.T) {
	own, root := []byte("/b/"), []byte{}
	for name, c := range map[string]struct {
		turn machine.Turn
		next step
		back string // "-": it cannot be turned back
	}{
		"settled":                 {machine.Turn{}, nothing, "-"},
		"to its own":              {machine.Turn{Phase: machine.Leaving, From: root, To: own}, gather, ""},
		"turned back before":      {machine.Turn{Phase: machine.Leaving, From: root, To: root}, join, "-"},
		"to the outer":            {machine.Turn{Phase: machine.Leaving, From: own, To: root}, join, "/b/"},
		"turned back to its own":  {machine.Turn{Phase: machine.Leaving, From: own, To: own}, resume, "-"},
		"the others follow":       {machine.Turn{Phase: machine.Spreading, From: own, To: root}, spread, "-"},
		"the others follow again": {machine.Turn{Phase: machine.Spreading, From: root, To: root}, spread, "-"},
	} {
		s := home("/b/", c.turn)
		if got := next(s); got != c.next {
			t.Errorf("%s: step %d, want %d", name, got, c.next)
		}
		line, ok := back(s)
		if ok != (c.back != "-") || ok && string(line) != c.back {
			t.Errorf("%s: back to %q, %t", name, line, ok)
		}
	}
}

// The policy asks for a line, once all segments are of the scope.
func TestWanted(t *testing.T) {
	for name, c := range map[string]struct {
		line   string
		policy policy.Line
		with   func(*machine.State)
		want   string // "-": nothing
	}{
		"own, and is":            {"/b/", policy.Own, nil, "-"},
		"own, and is not":        {"", policy.Own, nil, "/b/"},
		"shared, and is":         {"", policy.Shared, nil, "-"},
		"shared, and is not":     {"/b/", policy.Shared, nil, ""},
		"not in force yet":       {"", policy.Own, func(s *machine.State) { s.Scope.InForce = 0 }, "-"},
		"under way":              {"", policy.Own, func(s *machine.State) { s.Turn.Phase = machine.Leaving }, "-"},
		"about to be deleted":    {"/b/", policy.Own, func(s *machine.State) { s.Scope.Doing = &scope.Proposal{Kind: scope.Delete} }, ""},
		"not the scope's record": {"", policy.Own, func(s *machine.State) { s.Scope = nil }, "-"},
	} {
		s := home(c.line, machine.Turn{})
		s.Policy = &policy.Policy{Line: c.policy}
		if c.with != nil {
			c.with(s)
		}
		line, ok := wanted(s)
		if ok != (c.want != "-") || ok && string(line) != c.want {
			t.Errorf("%s: wants %q, %t", name, line, ok)
		}
	}
}

func TestCovers(t *testing.T) {
	r := func(start, end string) anchormesh.KeyRange {
		return anchormesh.KeyRange{Start: []byte(start), End: []byte(end)}
	}
	for name, c := range map[string]struct {
		all  []anchormesh.KeyRange
		keys anchormesh.KeyRange
		want bool
	}{
		"nothing":           {nil, r("b", "d"), false},
		"one":               {[]anchormesh.KeyRange{r("a", "e")}, r("b", "d"), true},
		"two, out of order": {[]anchormesh.KeyRange{r("c", "d"), r("b", "c")}, r("b", "d"), true},
		"a hole":            {[]anchormesh.KeyRange{r("b", "c"), r("ca", "d")}, r("b", "d"), false},
		"too short":         {[]anchormesh.KeyRange{r("b", "c")}, r("b", "d"), false},
		"overlapping":       {[]anchormesh.KeyRange{r("b", "cc"), r("c", "d")}, r("b", "d"), true},
		"to the end":        {[]anchormesh.KeyRange{r("b", "c"), r("c", "")}, r("b", ""), true},
		"not to the end":    {[]anchormesh.KeyRange{r("b", "c")}, r("b", ""), false},
	} {
		if got := covers(c.all, c.keys); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// FuzzAnswers: what a node answers to a wish may be anything.
func FuzzAnswers(f *testing.F) {
	f.Add(answerOf(home("", machine.Turn{}).Descriptor))
	f.Add([]byte{answerStale, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, ok := cutBytes(b)
		if ok && len(v)+len(rest) > len(b) {
			t.Errorf("%q of %q", v, b)
		}
	})
}
