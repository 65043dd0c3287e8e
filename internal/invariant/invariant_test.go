package invariant

import (
	"errors"
	"testing"
)

// caught runs f and returns the text of the violation it panicked with.
func caught(f func()) (text string) {
	defer func() {
		if v, ok := recover().(Violation); ok {
			text = v.Error()
		}
	}()
	f()
	return ""
}

func TestAlways(t *testing.T) {
	if got := caught(func() { Always(true, "unused %d", 1) }); got != "" {
		t.Fatalf("a true condition panicked: %s", got)
	}
	want := "broken invariant: term 3 after term 4"
	if got := caught(func() { Always(false, "term %d after term %d", 3, 4) }); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestBroken(t *testing.T) {
	if got := caught(func() { Broken("term %d", 3) }); got != "broken invariant: term 3" {
		t.Fatalf("got %q", got)
	}
}

func TestCostlyRunsOnlyWithTheTag(t *testing.T) {
	ran := false
	got := caught(func() {
		Costly(func() error { ran = true; return errors.New("sum 3, want 4") })
	})
	if ran != Enabled {
		t.Fatalf("check ran: %v, tag set: %v", ran, Enabled)
	}
	want := ""
	if Enabled {
		want = "broken invariant: sum 3, want 4"
	}
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestAlwaysDoesNotAllocate(t *testing.T) {
	n := 7
	if got := testing.AllocsPerRun(100, func() { Always(n == 7, "constant") }); got != 0 {
		t.Fatalf("%v allocations per call, want 0", got)
	}
}
