package trim

import "testing"

const mib = 1 << 20

func TestDue(t *testing.T) {
	before := usage{allocated: 500 * mib, live: 100 * mib, held: 150 * mib}
	for what, c := range map[string]struct {
		now   usage
		floor uint64
		want  bool
	}{
		"at rest, a third not in use":     {usage{501 * mib, 100 * mib, 150 * mib}, 0, true},
		"under load":                      {usage{600 * mib, 100 * mib, 150 * mib}, 0, false},
		"at rest, all in use":             {usage{501 * mib, 100 * mib, 115 * mib}, 0, false},
		"at rest, small":                  {usage{500 * mib, 10 * mib, 17 * mib}, 0, false},
		"at rest, small, and was large":   {usage{500 * mib, 10 * mib, 60 * mib}, 0, true},
		"loops of a node at rest":         {usage{540 * mib, 100 * mib, 150 * mib}, 0, true},
		"holes that were there before":    {usage{501 * mib, 100 * mib, 150 * mib}, 140 * mib, false},
		"and something behind them":       {usage{501 * mib, 100 * mib, 165 * mib}, 140 * mib, true},
		"live since the last look, freed": {usage{500 * mib, 100 * mib, 90 * mib}, 0, false},
	} {
		if got := due(before, c.now, c.floor); got != c.want {
			t.Errorf("%s: due is %v", what, got)
		}
	}
}

// The names are the runtime's: one that it does not know would panic here.
func TestRead(t *testing.T) {
	if u := read(); u.allocated == 0 || u.held == 0 {
		t.Errorf("the runtime counts %+v", u)
	}
}
