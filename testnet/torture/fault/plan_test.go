package fault

import (
	"slices"
	"testing"
	"time"
)

func config(seed uint64) Config {
	return Config{Seed: seed, Count: 200, Nodes: 5, Kinds: Kinds(), Within: 30 * time.Minute}
}

func TestOneSeedIsOnePlan(t *testing.T) {
	a, err := Plan(config(7))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Plan(config(7))
	if !slices.Equal(a, b) {
		t.Fatal("two plans of one seed differ")
	}
	if other, _ := Plan(config(8)); slices.Equal(a, other) {
		t.Fatal("two seeds gave one plan")
	}
}

func TestPlanHoldsEveryKindEarly(t *testing.T) {
	for seed := range uint64(20) {
		plan, err := Plan(config(seed))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[Kind]bool{}
		for _, f := range plan[:len(Kinds())] {
			seen[f.Kind] = true
		}
		if len(seen) != len(Kinds()) {
			t.Errorf("seed %d: the first %d faults are of %d kinds only", seed, len(Kinds()), len(seen))
		}
		for i, f := range plan {
			if f.N != i+1 || f.Node < 0 || f.Node >= 5 || f.For < forMin || f.For > forMax {
				t.Errorf("seed %d: %+v", seed, f)
			}
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := config(1).Validate(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Count = -1 }, func(c *Config) { c.Nodes = 2 },
		func(c *Config) { c.Kinds = nil }, func(c *Config) { c.Within = 0 },
	} {
		c := config(1)
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
