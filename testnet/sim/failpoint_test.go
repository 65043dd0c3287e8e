//go:build failpoints

package sim

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// busy is a mesh in which most steps that have a failpoint come about.
func busy(seed uint64) plan.Config {
	c := governing(seed)
	c.Length, c.Mesh.KeepEntries, c.Mesh.LogFileBytes = 2*time.Minute, 5, 64<<10
	c.Faults.Crash, c.Faults.Down = 15*time.Second, 2*time.Second
	c.Faults.Split, c.Faults.Merge, c.Mesh.SplitsMax, c.Load.Txn = 5*time.Second, 5*time.Second, 12, 8
	return c
}

// TestPowerCutAtEveryFailpoint cuts the power at each step that a real process can be
// stopped at, some times in a run of its own. Nothing that was acknowledged may be lost, and
// the mesh must become whole again.
func TestPowerCutAtEveryFailpoint(t *testing.T) {
	defer failpoint.Handle(nil)
	var m *node.Mesh // at whose steps the handler is
	hits := make(map[string]int)
	at := map[string]func(*node.Process){}
	for seed := range uint64(3) {
		failpoint.Handle(func(name string) { hits[name]++ })
		if _, err := run(busy(seed), at); err != nil {
			t.Fatal(err)
		}
	}
	delete(hits, "") // commands whose steps have no names
	if len(hits) < 40 {
		t.Errorf("only %d steps come about: %v", len(hits), slices.Sorted(maps.Keys(hits)))
	}
	for i, name := range slices.Sorted(maps.Keys(hits)) {
		every, met, cuts := max(1, hits[name]/10), 0, 0
		failpoint.Handle(func(here string) {
			if here != name || m == nil || m.Healed || m.Acting == nil || cuts == 5 {
				return
			}
			if met++; met%every == 0 {
				cuts++
				m.Acting.Darken()
			}
		})
		cfg := busy(uint64(i % 3))
		_, err := simulate(cfg, at, func(w *world) {
			m = w.Mesh
			w.play()
		})
		m = nil
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d cuts", name, cuts)
	}
}
