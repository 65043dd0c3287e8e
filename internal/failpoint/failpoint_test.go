package failpoint

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	points, err := parse("wal/before-sync=crash@3; a=sleep(20ms);b=panic;c=hold;d=cut@2;e=stop")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		action action
		delay  time.Duration
		from   int64
	}{
		"wal/before-sync": {crash, 0, 3},
		"a":               {sleep, 20 * time.Millisecond, 1},
		"b":               {panics, 0, 1},
		"c":               {hold, 0, 1},
		"d":               {cut, 0, 2},
		"e":               {stop, 0, 1},
	} {
		p := points[name]
		if p == nil || p.action != want.action || p.delay != want.delay || p.from != want.from {
			t.Errorf("%s: got %+v, want %+v", name, p, want)
		}
	}
	if len(points) != 6 {
		t.Errorf("%d points, want 6", len(points))
	}
	for _, bad := range []string{"a", "=crash", "a=explode", "a=sleep(x)", "a=sleep", "a=crash@0", "a=crash@x"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestHitWithoutTheVariable(t *testing.T) {
	if got := testing.AllocsPerRun(100, func() { Hit("wal/before-sync") }); got != 0 {
		t.Fatalf("%v allocations, want 0", got)
	}
}
