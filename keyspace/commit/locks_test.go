package commit

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
)

func rng(start, end string) anchormesh.KeyRange {
	return anchormesh.RequestRange([]byte(start), []byte(end))
}

func shared(start, end string) Lock    { return Lock{Range: rng(start, end)} }
func exclusive(start, end string) Lock { return Lock{Range: rng(start, end), Exclusive: true} }

var here = Place{Term: 3, Generation: 2, Scope: "/s"}

func TestLocksNeverWait(t *testing.T) {
	cases := []struct {
		name        string
		held, asked Lock
		refused     bool
	}{
		{"two readers", shared("a", ""), shared("a", ""), false},
		{"writer behind reader", shared("a", ""), exclusive("a", ""), true},
		{"reader behind writer", exclusive("a", ""), shared("a", ""), true},
		{"insert into a range that was read", shared("a", "c"), exclusive("b", ""), true},
		{"neighbours", exclusive("a", "b"), exclusive("b", "c"), false},
		{"everything from a key on", shared("b", "\x00"), exclusive("z", ""), true},
	}
	for _, c := range cases {
		l, p := NewLocks(here), &Participant{}
		if _, err := l.Acquire(0, txnID(0), []Lock{c.held}, p); err != nil {
			t.Fatal(err)
		}
		if plain := l.Admit([]Lock{c.asked}, p); errors.Is(plain, ErrConflict) != c.refused {
			t.Errorf("%s, as a plain command: %v", c.name, plain)
		}
		_, err := l.Acquire(0, txnID(1), []Lock{c.asked}, p)
		if errors.Is(err, ErrConflict) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCounterexample2fRangesAreLockedAgainstInserts: and of two that want each
// other's keys one is refused, none waits.
func TestCounterexample2fRangesAreLockedAgainstInserts(t *testing.T) {
	l, p := NewLocks(here), &Participant{}
	if _, err := l.Acquire(0, txnID(0), []Lock{exclusive("a", "m")}, p); err != nil {
		t.Fatal(err)
	}
	var by *Blocked
	if err := l.Admit([]Lock{exclusive("k", "")}, p); !errors.As(err, &by) || by.By != txnID(0) || by.Prepared {
		t.Fatalf("an insert into a range that is to be deleted: %v", err)
	}
}

func TestAGrantServesOnce(t *testing.T) {
	l, p := NewLocks(here), &Participant{}
	g, err := l.Acquire(0, txnID(0), []Lock{shared("a", "")}, p)
	if err != nil {
		t.Fatal(err)
	}
	other := g
	other.Place.Term++
	for _, bad := range []Grant{other, {Place: here, Number: g.Number + 1}} {
		if err := l.Propose(txnID(0), bad); !errors.Is(err, ErrLockLost) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := l.Propose(txnID(0), g); err != nil {
		t.Fatal(err)
	}
	if err := l.Propose(txnID(0), g); !errors.Is(err, ErrLockLost) {
		t.Errorf("the same prepare twice: %v", err)
	}
	if l.Expire(LockMax) {
		t.Error("a lock whose prepare is under way has expired")
	}
	l.Release(txnID(0))
	if err := l.Admit([]Lock{exclusive("a", "")}, p); err != nil {
		t.Errorf("released: %v", err)
	}
}

// A request for locks that came twice leaves none behind once one of its grants has
// served, and takes none from another prepare of the same transaction.
func TestPreparedLeavesNothingBehind(t *testing.T) {
	l, p := NewLocks(here), &Participant{}
	grants := make([]Grant, 3) // the first and the second are of one part
	for i, key := range []string{"a", "a", "m"} {
		var err error
		if grants[i], err = l.Acquire(0, txnID(0), []Lock{exclusive(key, "")}, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range grants[1:] {
		if err := l.Propose(txnID(0), g); err != nil {
			t.Fatal(err)
		}
	}
	l.Prepared(txnID(0), grants[1])
	if err := l.Admit([]Lock{exclusive("a", "")}, p); err != nil {
		t.Errorf("a key that nobody will prepare any more: %v", err)
	}
	if err := l.Admit([]Lock{exclusive("m", "")}, p); !errors.Is(err, ErrConflict) {
		t.Errorf("a key whose prepare is on its way: %v", err)
	}
	l.Prepared(txnID(0), grants[2])
	if !l.Idle() {
		t.Error("locks are left")
	}
}

func TestLocksExpire(t *testing.T) {
	l, p := NewLocks(here), &Participant{}
	g, err := l.Acquire(0, txnID(0), []Lock{shared("a", "")}, p)
	if err != nil {
		t.Fatal(err)
	}
	if l.Expire(LockMax-1) || !l.Expire(LockMax) {
		t.Fatal("not at its time")
	}
	if err := l.Propose(txnID(0), g); !errors.Is(err, ErrLockLost) {
		t.Errorf("a prepare behind the expiry: %v", err)
	}
}

func TestLocksAreBounded(t *testing.T) {
	l, p := NewLocks(here), &Participant{}
	for i := range LocksMax {
		if _, err := l.Acquire(0, TxnID{byte(i), byte(i >> 8), 1}, []Lock{shared("a", "")}, p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Acquire(0, TxnID{2: 2}, []Lock{shared("a", "")}, p); !errors.Is(err, ErrTooMany) {
		t.Fatalf("one too many: %v", err)
	}
}
