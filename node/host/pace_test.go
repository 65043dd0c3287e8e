package host

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p Pace
	now := time.Unix(100, 0)
	for range 1000 {
		if !p.Take(now) {
			t.Fatal("a pace of nothing bounds")
		}
	}
	p.Set(10)
	took := func() (n int) {
		for range 100 {
			if p.Take(now) {
				n++
			}
		}
		return n
	}
	if n := took(); n != 10 {
		t.Errorf("%d at once, want a second's worth", n)
	}
	now = now.Add(500 * time.Millisecond)
	if n := took(); n != 5 {
		t.Errorf("%d after half a second", n)
	}
	now = now.Add(-time.Hour) // a clock that was put back saves nothing up
	if n := took(); n != 0 {
		t.Errorf("%d after the clock went back", n)
	}
	now = now.Add(2 * time.Hour)
	if n := took(); n != 10 {
		t.Errorf("%d after an hour, want a second's worth", n)
	}
	p.Set(0.5)
	now = now.Add(2 * time.Second)
	if n := took(); n != 1 {
		t.Errorf("%d after two seconds at one in two", n)
	}
	if p.Shed() == 0 {
		t.Error("nothing was counted as refused")
	}
}
