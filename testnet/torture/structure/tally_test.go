package structure

import (
	"maps"
	"strings"
	"testing"
)

func TestTallySurvivesRestarts(t *testing.T) {
	page := func(splits, merges string) string {
		return `# TYPE anchormesh_structure_splits_total counter
anchormesh_structure_splits_total{cause="order"} 90
anchormesh_structure_splits_total{cause="load"} ` + splits + `
anchormesh_structure_merges_total{outcome="aborted"} 7
anchormesh_structure_merges_total{outcome="load"} ` + merges + "\n"
	}
	tally := &Tally{nodes: make([]tallied, 2), count: map[string]int{}}
	for _, look := range []struct {
		node           int
		splits, merges string
	}{
		{0, "2", "1"}, {1, "1", "0"}, {0, "2", "1"}, {0, "5", "2"},
		{0, "1", "0"}, // a new process
		{0, "1", "4"},
	} {
		now, err := samples(strings.NewReader(page(look.splits, look.merges)))
		if err != nil {
			t.Fatal(err)
		}
		tally.take(look.node, now)
	}
	if want := map[string]int{"split": 5 + 1 + 1, "merge": 2 + 4}; !maps.Equal(tally.count, want) {
		t.Errorf("counted %v, want %v", tally.count, want)
	}
	if _, err := samples(strings.NewReader(page("many", "0"))); err == nil {
		t.Error("a sample that is no number was accepted")
	}
}
