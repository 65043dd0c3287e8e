package compactor

import (
	"math/rand/v2"
	"testing"
	"time"
)

// What is compacted was noted at least a period ago, and what is older than that and a
// note's distance is compacted.
func TestKeeperByAge(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		k := NewKeeper(Retention{Period: 160 * time.Second})
		now, at := time.Unix(0, 0), Position{Revision: 1, Compacted: -1}
		stood := []placed{{now, at}}
		for range 2000 {
			if rng.IntN(5) > 0 {
				at.Revision += 1 + rng.Int64N(1_000_000) // a line that others share leaps
				at.Writes++
			}
			stood = append(stood, placed{now, at})
			if to := k.Step(now, at); to != 0 {
				at.Compacted = to
			}
			for _, s := range stood {
				age := now.Sub(s.at)
				if s.Revision < at.Compacted && age < 160*time.Second && s.Revision != at.Compacted && revAt(stood, now.Add(-160*time.Second)) < at.Compacted {
					t.Fatalf("seed %d: compacted to %d, where the segment stood less than a period ago", seed, at.Compacted)
				}
				if age > 184*time.Second && at.Compacted < s.Revision {
					t.Fatalf("seed %d: %d is kept after %v, compacted to %d", seed, s.Revision, age, at.Compacted)
				}
			}
			if len(k.notes) > 2*notesPer+2 {
				t.Fatalf("%d notes", len(k.notes))
			}
			if now = now.Add(keepInterval); len(stood) > 200 {
				stood = stood[1:]
			}
		}
	}
}

// revAt is where the segment stood at a time.
func revAt(stood []placed, at time.Time) (rev int64) {
	for _, s := range stood {
		if !s.at.After(at) {
			rev = s.Revision
		}
	}
	return rev
}

// The newest writes are kept, whatever their revisions are: at least as many as asked for
// and at most a note's distance more (counterexample 18).
func TestKeeperCountsWrites(t *testing.T) {
	for _, leap := range []int64{1, 1_000_000} {
		k := NewKeeper(Retention{Writes: 1000})
		now, at := time.Unix(0, 0), Position{Revision: 1, Compacted: -1}
		for range 500 {
			at.Writes, at.Revision = at.Writes+13, at.Revision+13*leap
			if to := k.Step(now, at); to != 0 {
				at.Compacted = to
			}
			kept := at.Writes
			if at.Compacted > 0 {
				kept = (at.Revision - at.Compacted) / leap
			}
			if kept < min(1000, at.Writes) || kept > 1000+1000/notesPer+2*13 {
				t.Fatalf("leap %d: %d of %d writes are kept", leap, kept, at.Writes)
			}
			now = now.Add(keepInterval)
		}
	}
}

// A segment to which nothing happens is compacted once and left alone, also by a new
// leader.
func TestKeeperLeavesWhatSleeps(t *testing.T) {
	at, compactions := Position{Revision: 70, Compacted: -1, Writes: 9}, 0
	for range 3 { // leaders
		k, now := NewKeeper(Retention{Period: time.Minute, Writes: 5}), time.Unix(0, 0)
		for range 200 {
			if to := k.Step(now, at); to != 0 {
				at.Compacted = to
				compactions++
			}
			now = now.Add(keepInterval)
		}
	}
	if compactions != 1 || at.Compacted != 70 {
		t.Errorf("%d compactions, to %d", compactions, at.Compacted)
	}
}
