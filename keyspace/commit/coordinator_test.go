package commit

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// two returns a coordinator over two segments that has taken in the given events.
func two(t *testing.T, txn *codec.TxnRequest, events ...Event) (*Coordinator, []Effect) {
	t.Helper()
	d, err := Divide(txn, []Segment{
		{Range: anchormesh.KeyRange{End: []byte("m")}}, {Range: anchormesh.KeyRange{Start: []byte("m")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := NewCoordinator(txnID(0), d, false)
	out := c.Start()
	for _, e := range events {
		out = c.Step(e)
	}
	return c, out
}

func locked(part int) Event {
	return Acquired{Part: part, Grant: Grant{Number: 1}, Values: make([]Got, 1)}
}

func answerIn(out []Effect) (a Answer) {
	for _, e := range out {
		if x, ok := e.(Answer); ok {
			a = x
		}
	}
	return a
}

func TestCoordinatorAnswers(t *testing.T) {
	gone := errors.New("gone")
	all := []Event{locked(0), locked(1), Prepared{0, 5}, Prepared{1, 6}}
	deciding := append(append([]Event{}, all...), Numbered{7})
	then := func(before []Event, more ...Event) []Event { return append(append([]Event{}, before...), more...) }
	cases := []struct {
		name   string
		events []Event
		want   Outcome
	}{
		{"a conflict", []Event{locked(0), Failed{Err: ErrConflict}}, Again},
		{"given up under locks", []Event{locked(0), GiveUp{gone}}, Refused},
		{"a refused prepare", []Event{locked(0), locked(1), Prepared{0, 5}, Failed{Err: gone, Final: true}}, Refused},
		{"a lost prepare", []Event{locked(0), locked(1), Prepared{0, 5}, Lost{}}, Again},
		{"a revision below a stamp", then(all, Numbered{6}), Again},
		{"no revision", then(all, Failed{Err: gone}), Again},
		{"decided", then(deciding, Decided{Verdict: Verdict{true, 7}}), Committed},
		{"aborted by others", then(deciding, Decided{}), Again},
		{"aborted by others and forgotten", then(deciding, Failed{Err: ErrNotPrepared}), Again},
		{"given up while it is decided", then(deciding, GiveUp{gone}), Unknown},
		{"lost, found committed", then(deciding, Lost{}, Decided{Verdict: Verdict{true, 7}}), Committed},
		{"lost, found aborted", then(deciding, Lost{}, Decided{}), Unknown},
		{"lost twice", then(deciding, Lost{}, Lost{}), Unknown},
	}
	for _, c := range cases {
		_, out := two(t, both(), c.events...)
		if got := answerIn(out).Outcome; got != c.want {
			t.Errorf("%s: answered %d, want %d", c.name, got, c.want)
		}
	}
}

func TestCoordinatorRefusesWhatTheRequestRefuses(t *testing.T) {
	txn := both()
	txn.Success[0].Put.IgnoreValue = true
	c, out := two(t, txn, locked(0), locked(1))
	if a := answerIn(out); a.Outcome != Refused || !errors.Is(a.Err, ErrKeyNotFound) || !c.Ended() {
		t.Fatalf("%+v", a)
	}
	if len(out) != 3 {
		t.Errorf("the locks were not given back: %v", out)
	}
}

// TestTellingASegmentThatWasSplit: each part confirms its share.
func TestTellingASegmentThatWasSplit(t *testing.T) {
	span := rng("a", "k")
	f := finisher{id: txnID(0), forget: true, key: []byte("a")}
	f.start([]anchormesh.KeyRange{span})
	out, done := f.step(Told{Span: span, Range: rng("c", "e")})
	if len(out) != 2 || done || string(out[0].(TellAt).Span.Start) != "a" || string(out[1].(TellAt).Span.Start) != "e" {
		t.Fatalf("%+v", out)
	}
	f.step(Told{Span: rng("e", "k"), Range: rng("e", "z")})
	out, _ = f.step(Told{Span: rng("a", "c"), Range: rng("a", "c")})
	if _, ok := out[0].(ForgetAt); !ok || len(out) != 1 {
		t.Fatalf("%+v", out)
	}
	if _, done := f.step(Forgot{}); !done {
		t.Fatal("not done")
	}
}
