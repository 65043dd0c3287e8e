package replica

import (
	"errors"
	"testing"
)

// entriesOf proposes and returns how many requests each entry holds.
func entriesOf(a *alone, list ...Proposal) (sizes []int) {
	for _, p := range list {
		a.r.Propose(p)
	}
	a.run()
	for len(a.applies) > 0 {
		for _, ap := range a.applies {
			for _, e := range ap.Entries {
				sizes = append(sizes, len(e.Payloads))
			}
		}
		a.apply() // the next batch waits for this one
	}
	return sizes
}

// A structural command must not share its entry: what comes behind it in the entry
// would be judged by the generation that the command ends.
func TestARequestThatWantsAnEntryOfItsOwnGetsIt(t *testing.T) {
	a := newAlone(t)
	one := Proposal{Generation: 1, Payload: []byte("x"), Done: func(Result) {}}
	apart := one
	apart.Alone = true
	got := entriesOf(a, one, one, apart, one, one, one)
	want := []int{2, 1, 3}
	if len(got) != len(want) {
		t.Fatalf("entries of %v requests, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("entries of %v requests, want %v", got, want)
		}
	}
}

// A request that carries a number it got in one term must not go into the log of
// another one.
func TestARequestOfAnotherTermIsRefused(t *testing.T) {
	a := newAlone(t)
	term := a.r.Status().Term
	var ends []error
	p := Proposal{Generation: 1, Payload: []byte("x"), Done: func(r Result) { ends = append(ends, r.Err) }}
	for _, p.Term = range []uint64{term + 1, term, term + 2} {
		a.r.Propose(p)
	}
	a.run()
	a.apply()
	if len(ends) != 3 || !errors.Is(ends[0], ErrNotLeader) || !errors.Is(ends[1], ErrNotLeader) || ends[2] != nil {
		t.Errorf("in term %d those of the next one, of this and of the one after it ended with %v", term, ends)
	}
}
