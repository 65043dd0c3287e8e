package weave

import (
	"math/rand/v2"
	"testing"
)

// TestPlantedFaults shows that the checks of TestGuarantees can fail: each fault is
// found, by some world, most within a few hundred.
func TestPlantedFaults(t *testing.T) {
	for _, p := range []plant{
		markAhead, markMissing, openAtSplit, openBeyond, toldHoldersAll, toldNobody,
		barrierKeeps, indexIgnored, noHold, noBound, staleHome, eventsHear,
	} {
		t.Run(string(p), func(t *testing.T) {
			base := rand.Uint64()
			for i := range 4000 {
				if _, err := run(base+uint64(i), p, 600); err != nil {
					t.Logf("world %d: %v", i, err)
					return
				}
			}
			t.Fatalf("seeds %d to %d: nobody noticed", base, base+3999)
		})
	}
}
