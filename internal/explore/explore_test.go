package explore

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// counters is a model of two counters that go up to three each.
func counters(check func([2]int) error, settled func([2]int) bool) Model[[2]int] {
	return Model[[2]int]{
		Key: func(s [2]int) []byte { return []byte{byte(s[0]), byte(s[1])} },
		Next: func(s [2]int) []Step[[2]int] {
			var out []Step[[2]int]
			for i := range s {
				if s[i] < 3 {
					next := s
					next[i]++
					out = append(out, Step[[2]int]{Label: fmt.Sprintf("up %d", i), Fault: i == 1, State: next})
				}
			}
			return out
		},
		Check: check, Settled: settled, Most: 100,
	}
}

func holds([2]int) error { return nil }

func TestEveryStateIsVisitedOnce(t *testing.T) {
	if r := Run(counters(holds, nil)); r.Err != nil || r.States != 16 || r.Edges != 24 || r.Depth != 6 {
		t.Fatal(r)
	}
}

func TestTheTraceIsAShortestOne(t *testing.T) {
	wrong := errors.New("wrong")
	r := Run(counters(func(s [2]int) error {
		if s[0] == 2 && s[1] >= 1 {
			return wrong
		}
		return nil
	}, nil))
	if !errors.Is(r.Err, wrong) || len(r.Trace) != 3 {
		t.Fatal(r)
	}
	slices.Sort(r.Trace)
	if want := []string{"up 0", "up 0", "up 1"}; !slices.Equal(r.Trace, want) {
		t.Fatal(r)
	}
}

func TestStatesThatOnlyAFaultCanSettleAreStuck(t *testing.T) {
	if r := Run(counters(holds, func(s [2]int) bool { return s[0] == 3 })); r.Err != nil {
		t.Fatal(r)
	}
	if r := Run(counters(holds, func(s [2]int) bool { return s[1] == 3 })); !errors.Is(r.Err, ErrStuck) {
		t.Fatal(r)
	}
}

func TestTheLimitIsAFailure(t *testing.T) {
	m := counters(holds, nil)
	m.Most = 15
	if r := Run(m); !errors.Is(r.Err, ErrTooLarge) {
		t.Fatal(r)
	}
}
