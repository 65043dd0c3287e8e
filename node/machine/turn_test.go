package machine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// inScope is a bench whose segment is all of a scope's keys, on the root's line.
func inScope(t *testing.T, keys anchormesh.KeyRange, last anchormesh.Revision) *bench {
	b := newBench(t)
	s := *b.m.State()
	d := s.Descriptor.Clone()
	d.Scope, d.Stamped = []byte("/b/"), true
	s.Descriptor, s.Line = d, 4
	split := &Split{At: []byte("/b/"), Right: 30}
	if out := b.apply(1, split.Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	if len(keys.End) > 0 {
		right := b.changes[len(b.changes)-1]
		b.m = b.machine(right.Child)
		b.index = BirthIndex
		if out := b.apply(2, (&Split{At: keys.End, Right: 31}).Command()); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	next := *b.m.State()
	next.Descriptor = next.Descriptor.Clone()
	next.Descriptor.Scope = []byte("/b/")
	b.m.enter(&next)
	if out := b.apply(b.gen(), stamped(int64(last), put("/b/x", "v"))); out.Err != nil {
		t.Fatal(out.Err)
	}
	return b
}

func (b *bench) gen() anchormesh.Generation { return b.m.Descriptor().Generation }

func (b *bench) must(what string, cmd []byte) {
	b.t.Helper()
	if out := b.apply(b.gen(), cmd); out.Err != nil {
		b.t.Fatalf("%s: %v", what, out.Err)
	}
	again, err := DecodeState(b.m.State().Encode())
	if err != nil || again.Turn.Phase != b.m.State().Turn.Phase || again.Turn.Number != b.m.State().Turn.Number {
		b.t.Fatalf("behind %s the state cannot be read again: %v", what, err)
	}
	if d := b.m.Descriptor(); !b.m.State().Chain.Last().Describes(d) {
		b.t.Fatalf("behind %s the lineage does not describe the segment", what)
	}
}

// The home of a whole scope serves nothing until its line begins above the base, and
// counts from there; a split gives the line stamps.
func TestWholeScopeCountsOnItsOwnLine(t *testing.T) {
	b := inScope(t, anchormesh.PrefixRange([]byte("/b/")), 50)
	old := b.gen()
	b.must("turn", Turning([]byte("/b/")))
	if out := b.apply(old, stamped(60, put("/b/x", "v"))); !errors.Is(out.Err, ErrGeneration) {
		t.Errorf("a stamp of the old line: %v", out.Err)
	}
	if out := b.apply(b.gen(), put("/b/x", "v")); !errors.Is(out.Err, ErrBetween) {
		t.Errorf("a write in between: %v", out.Err)
	}
	if out := b.apply(b.gen(), (&Split{At: []byte("/b/m"), Right: 40}).Command()); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a split in between: %v", out.Err)
	}
	number := b.m.State().Turn.Number
	if out := b.apply(b.gen(), Begin(number-1, 500)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("the beginning of another hand-over: %v", out.Err)
	}
	b.must("begin", Begin(number, 500))
	d := b.m.Descriptor()
	if d.Stamped || !d.LineHome() || !b.m.State().Counts() {
		t.Fatalf("%+v", d)
	}
	b.must("put", put("/b/x", "v"))
	if rev, _ := b.m.Segment().Revision(); rev != 501 {
		t.Errorf("the first write got %d, want 501", rev)
	}
	b.must("lift", Lift(900, false))
	if out := b.apply(b.gen(), Lift(900, true)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a number claimed twice: %v", out.Err)
	}
	b.must("claim", Lift(901, true))
	b.must("put", put("/b/x", "v"))
	if rev, _ := b.m.Segment().Revision(); rev != 902 {
		t.Errorf("behind the lift a write got %d, want 902", rev)
	}
	b.must("split", (&Split{At: []byte("/b/m"), Right: 40}).Command())
	if s := b.m.State(); s.Line != uint64(s.Descriptor.Segment) || s.Window != 902 || !s.Descriptor.Stamped {
		t.Errorf("cut: line %d, window %d", s.Line, s.Window)
	}
	born := b.changes[len(b.changes)-1].Born
	if born.Line != b.m.State().Line || !bytes.Equal(born.Descriptor.Line, []byte("/b/")) {
		t.Errorf("the child is on line %d of %q", born.Line, born.Descriptor.Line)
	}
}

// Back to the outer line: what it must be raised above is the window; turned back, the
// own line goes on there.
func TestBackToTheOuterLine(t *testing.T) {
	b := inScope(t, anchormesh.PrefixRange([]byte("/b/")), 50)
	b.must("cut", (&Split{At: []byte("/b/m"), Right: 40}).Command())
	b.must("turn", Turning([]byte("/b/")))
	b.must("begin", Begin(b.m.State().Turn.Number, 500))
	b.must("window", Window(700))
	b.must("turn", Turning(nil))
	if turn := b.m.State().Turn; turn.Above != 700 || string(turn.From) != "/b/" {
		t.Fatalf("%+v", turn)
	}
	b.must("turned back", Turning([]byte("/b/")))
	b.must("begin", Begin(b.m.State().Turn.Number, 0))
	if s := b.m.State(); s.Window != 700 || s.Line != uint64(s.Descriptor.Segment) {
		t.Fatalf("the line goes on at %d", s.Window)
	}
	b.must("turn", Turning(nil))
	turn := b.m.State().Turn
	other := &Switching{By: 77, Number: 1, Home: 9}
	if out := b.apply(b.gen(), Switch(other)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("somebody else's hand-over during its own: %v", out.Err)
	}
	b.must("switch", Switch(&Switching{By: b.m.Descriptor().Segment, Number: turn.Number, Home: 9}))
	if s := b.m.State(); s.Line != 9 || len(s.Descriptor.Line) != 0 || s.Turn.Phase != Spreading || s.Silent() != nil {
		t.Fatalf("%+v of %+v", s.Turn, s.Descriptor)
	}
	b.must("settle", Settle(turn.Number))
	b.must("put", stamped(800, put("/b/a", "v")))
	// As one of several it follows another home, once for each of its hand-overs.
	b.must("follows", Switch(&Switching{By: 77, Number: 5, Home: 9}))
	if out := b.apply(b.gen(), Switch(&Switching{By: 77, Number: 5, Home: 9})); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("the same hand-over twice: %v", out.Err)
	}
}
