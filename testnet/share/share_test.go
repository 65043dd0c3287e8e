package share

import (
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func TestBandwidthStaysInTheKernelsBounds(t *testing.T) {
	for _, c := range []struct {
		cores         float64
		quota, period time.Duration
	}{
		{0, 0, 20 * time.Millisecond},
		{0.05, time.Millisecond, 20 * time.Millisecond},
		{0.1, 2 * time.Millisecond, 20 * time.Millisecond},
		{2, 40 * time.Millisecond, 20 * time.Millisecond},
		{0.01, time.Millisecond, 100 * time.Millisecond},
		{0.0001, time.Millisecond, time.Second},
	} {
		if quota, period := bandwidth(c.cores); quota != c.quota || period != c.period {
			t.Errorf("%v cores: %s per %s, want %s per %s", c.cores, quota, period, c.quota, c.period)
		}
	}
}

func TestParseStat(t *testing.T) {
	if all, throttled := parseStat("nr_periods 31\nnr_throttled 7\nthrottled_time 2628159635\n"); all != 31 || throttled != 7 {
		t.Errorf("%d of %d", throttled, all)
	}
}

// Where the system allows it, a process can be put in a group and its limit
// changed while it runs.
func TestGroup(t *testing.T) {
	l, err := Detect()
	if err != nil {
		t.Skip(err)
	}
	g, err := l.Group("test")
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := g.Add(child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for _, cores := range []float64{0.05, 1.5, 0, 0.001} {
		if err := g.Limit(cores); err != nil {
			t.Errorf("%v cores: %v", cores, err)
		}
	}
	if _, _, err := g.Periods(); err != nil {
		t.Error(err)
	}
	if _, err := l.Group("test"); err == nil {
		t.Error("a second group of the same name was made, " + strconv.Itoa(child.Process.Pid))
	}
}
