package node

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/entropy"
)

// A decision keeps its numbers and what its children inherit in the lineage, within
// the lineage's limits.
func TestEvidenceFitsTheLineage(t *testing.T) {
	d := entropy.Decision{Action: entropy.Split, Cause: entropy.ByWrites, Reversals: 5, Numbers: entropy.Numbers{
		Pressing: entropy.ByWrites, WritesPerSec: 6000, Pressure: 1200, Spread: 900, Keys: 77, Left: 480,
	}}
	e := evidence(d)
	if e.Reason != lineage.Load || e.Pressure != 1200 || e.Spread != 900 || len(e.Numbers) != lineage.NumbersMax {
		t.Fatalf("%+v", e)
	}
	if e.Numbers[1] != 6000 || e.Numbers[6] != 77 || e.Numbers[7] != 480 {
		t.Errorf("numbers %v", e.Numbers)
	}
	if got := inherited(lineage.Split, e); got != d.Evidence().Birth() {
		t.Errorf("children inherit %+v, want %+v", got, d.Evidence().Birth())
	}
	if got := inherited(lineage.Split, lineage.Evidence{Reason: lineage.Operator}); got != (entropy.Birth{Cause: entropy.Split}) {
		t.Errorf("of a split by hand they inherit %+v", got)
	}
}

// Without haste a mesh waits as it always did; with any allowed one its judges, its
// placement and its order of waits still make sense.
func TestHaste(t *testing.T) {
	as := defaultGovernance()
	if got := as.hastened(1); got.judge != as.judge || got.place != as.place || got.recruit != as.recruit ||
		got.window != as.window || got.asleep != as.asleep || got.planEvery != as.planEvery {
		t.Errorf("without haste %+v became %+v", as, got)
	}
	for by := time.Duration(2); by <= 100; by++ {
		g := as.hastened(by)
		if err := errors.Join(g.judge.Validate(), g.place.Validate(), g.recruit.Validate()); err != nil {
			t.Errorf("haste %d: %v", by, err)
		}
		if g.judge.SplitAfter >= as.judge.SplitAfter || g.judge.MergeAfter >= as.judge.MergeAfter || g.window > as.window || g.pairing.Again >= as.pairing.Again {
			t.Errorf("haste %d makes nothing faster: %+v", by, g)
		}
	}
}
