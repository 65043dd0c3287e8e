package compactor

import (
	"testing"
	"time"
)

func TestPeriodicKeepsAPeriod(t *testing.T) {
	c := NewCore(time.Hour, 0)
	now, rev := time.Unix(0, 0), int64(0)
	step := c.Interval()
	if step != 6*time.Minute {
		t.Fatalf("steps of %v, want 6m", step)
	}
	for i := range 40 {
		rev += 10
		to := c.Step(now, rev)
		if i < 10 && to != 0 {
			t.Fatalf("compacted to %d after %v", to, now.Sub(time.Unix(0, 0)))
		}
		if want := int64(10 * (i - 9)); i >= 10 && to != want {
			t.Fatalf("step %d compacts to %d, want %d: the revision of an hour ago", i, to, want)
		}
		now = now.Add(step)
	}
}

func TestPeriodicIdleCompactsNothingTwice(t *testing.T) {
	c := NewCore(time.Hour, 0)
	now, compactions := time.Unix(0, 0), 0
	for range 50 {
		if c.Step(now, 100) != 0 {
			compactions++
		}
		now = now.Add(c.Interval())
	}
	if compactions != 1 {
		t.Errorf("%d compactions to one revision", compactions)
	}
}

func TestByRevisionKeepsTheNewest(t *testing.T) {
	c := NewCore(0, 1000)
	now := time.Unix(0, 0)
	if to := c.Step(now, 500); to != 0 {
		t.Errorf("compacts to %d with fewer revisions than are kept", to)
	}
	now = now.Add(revisionInterval)
	if to := c.Step(now, 1500); to != 500 {
		t.Errorf("compacts to %d, want 500", to)
	}
	if to := c.Step(now.Add(time.Second), 9000); to != 0 {
		t.Errorf("looks again after a second and compacts to %d", to)
	}
}

func TestNothingToDo(t *testing.T) {
	if i := NewCore(0, 0).Interval(); i != 0 {
		t.Errorf("interval %v without a retention", i)
	}
}
