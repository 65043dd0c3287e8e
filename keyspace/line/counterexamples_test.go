package line

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Each schedule here broke a draft of the design: revisions by clocks (1), windows
// and apply (4), sleeping segments (13), stamps, barriers and commits (22).

var (
	rangeA = anchormesh.KeyRange{Start: []byte("a"), End: []byte("m")}
	rangeB = anchormesh.KeyRange{Start: []byte("m"), End: []byte("z")}
)

const segA, segB anchormesh.SegmentID = 2, 3

// newTestHome leads segment 1 in term 1 with numbers up to window.
func newTestHome(window anchormesh.Revision) *Home {
	cfg := DefaultConfig()
	cfg.Window = 10
	h := NewHome(cfg)
	h.Lead(Lead{Seat: Seat{1, 1, 1, 1}})
	h.Windowed(1, window)
	h.Take()
	return h
}

// exchange sends one request through one round.
func exchange(t *testing.T, h *Home, asks []Ask, since ...anchormesh.Revision) Answer {
	t.Helper()
	h.Request(1, Request{Line: 1, Segment: 1, Generation: h.seat.Generation, Asks: asks, Since: since})
	h.RoundDone(h.Take().Round, h.seat.Term)
	fx := h.Take()
	if len(fx.Answers) != 1 {
		t.Fatalf("%d answers, want 1", len(fx.Answers))
	}
	return fx.Answers[0]
}

func stamps(t *testing.T, h *Home, segment anchormesh.SegmentID, keys anchormesh.KeyRange, n int) Grant {
	t.Helper()
	a := exchange(t, h, []Ask{{Segment: segment, Generation: 1, Term: 1, Range: keys, Count: n}})
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	return a.Grants[0]
}

// held is a Holder with its Collector.
type held struct {
	t *testing.T
	c *Collector[string]
	*Holder[string]
}

func newHeld(t *testing.T, term uint64) held {
	h := held{t, NewCollector[string](DefaultConfig()), NewHolder[string](DefaultConfig())}
	h.c.Add(segA, h.Holder)
	h.Lead(Seat{1, segA, 1, term}, rangeA, nil)
	return h
}

func (h held) write(w string) {
	h.t.Helper()
	if err := h.c.Write(segA, w); err != nil {
		h.t.Fatal(err)
	}
}

// asked asks for what waits.
func (h held) asked() (uint64, Ask) {
	h.t.Helper()
	seq, asks, ok := h.c.Collect(time.Time{})
	if !ok {
		h.t.Fatal("nothing to ask for")
	}
	return seq, asks[0]
}

func grantOf(a Ask, first anchormesh.Revision) []Grant {
	return []Grant{{a.Segment, a.Generation, a.Term, a.Seq, first, a.Count}}
}

// stamp brings a write to the stamp.
func (h held) stamp(w string, at anchormesh.Revision) {
	h.t.Helper()
	h.write(w)
	seq, a := h.asked()
	h.c.Granted(seq, grantOf(a, at))
	if fx := h.Take(); len(fx.Stamped) != 1 || fx.Stamped[0].Stamp != at {
		h.t.Fatalf("stamped %v, want one at %d", fx.Stamped, at)
	}
}

// barrier starts one and wins its round.
func (h held) barrier(at anchormesh.Revision) []Passed {
	h.Barrier(time.Time{}, Barrier{Token: uint64(at), Line: 1, Segment: segA, Generation: h.Seat().Generation, T: at})
	fx := h.Take()
	if fx.Round == 0 {
		return fx.Passed
	}
	h.RoundDone(fx.Round, h.Seat().Term)
	return h.Take().Passed
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// 1a, 1b: a read of one key, wherever, is answered at a T that holds what was
// acknowledged anywhere in the scope.
func TestHeaderIsFreshWhateverIsRead(t *testing.T) {
	h := newTestHome(1000)
	b := stamps(t, h, segB, rangeB, 100)
	want(t, "T", exchange(t, h, nil).T, b.First+99)
}

// 1c: w1 in A is acknowledged, then w2 in B arrives: it gets the larger number.
func TestWriteAfterWriteIsAbove(t *testing.T) {
	h := newTestHome(1000)
	w1, w2 := stamps(t, h, segA, rangeA, 1), stamps(t, h, segB, rangeB, 1)
	if w2.First <= w1.First {
		t.Fatalf("w2 at %d is not above w1 at %d", w2.First, w1.First)
	}
}

// 1d: w1 in A, then w2 in B. A read that has w2 has w1: its barrier at A waits until
// w1 is applied.
func TestNoCausalReverse(t *testing.T) {
	home, a := newTestHome(1000), newHeld(t, 1)
	w1 := stamps(t, home, segA, rangeA, 1).First
	a.stamp("w1", w1)
	stamps(t, home, segB, rangeB, 1)
	at := exchange(t, home, nil).T
	want(t, "barriers passed before w1", len(a.barrier(at)), 0)
	a.Ended(w1)
	want(t, "barriers passed after w1", len(a.Take().Passed), 1)
}

// 1e: the home's old leader, cut off, is asked while its successor gives out 1000.
func TestCutOffHomeGivesNothing(t *testing.T) {
	ask := Request{Line: 1, Segment: 1, Generation: 1, Asks: []Ask{{Segment: segA, Generation: 1, Term: 1, Count: 1}}}
	for name, end := range map[string]func(h *Home, round uint64){
		"no majority":          func(h *Home, round uint64) { h.RoundFailed(round) },
		"the successor's word": func(h *Home, round uint64) { h.RoundDone(round, 0) },
		"elected again since":  func(h *Home, round uint64) { h.RoundDone(round, 3) },
		"deposed":              func(h *Home, round uint64) { h.Deposed(); h.RoundDone(round, 1) },
	} {
		h := newTestHome(1000)
		h.Request(7, ask)
		round := h.Take().Round
		want(t, name+": answers before the round", len(h.out.Answers), 0)
		end(h, round)
		fx := h.Take()
		if len(fx.Answers) != 1 || fx.Answers[0].Err == nil || h.given != 0 {
			t.Fatalf("%s: %+v, given %d", name, fx.Answers, h.given)
		}
	}
}

// 1f: a stamp is on its way to X when X answers a barrier above it.
func TestStampBelowAnsweredBarrierIsThrownAway(t *testing.T) {
	x := newHeld(t, 1)
	x.write("w")
	seq, a := x.asked()
	want(t, "barriers passed", len(x.barrier(100)), 1)
	x.c.Granted(seq, grantOf(a, 90))
	want(t, "stamped", len(x.Take().Stamped), 0)
	_, again := x.asked()
	want(t, "asked again", again.Count, 1)
}

// 1f: X is deposed, leads again, and gets the stamp it asked for in its first term.
func TestStampOfEarlierTermIsThrownAway(t *testing.T) {
	x := newHeld(t, 1)
	x.write("w")
	seq, a := x.asked()
	x.Deposed()
	want(t, "given back", len(x.Take().Back), 1)
	x.Lead(Seat{1, segA, 1, 3}, rangeA, nil)
	x.write("w again")
	x.c.Granted(seq, grantOf(a, 90))
	want(t, "stamped", len(x.Take().Stamped), 0)
}

// 4a: the extension behind a split is committed before the split is applied. Its
// numbers are not given; then it is refused.
func TestWindowIsNotGivenBeforeItIsApplied(t *testing.T) {
	h := newTestHome(2000)
	h.lift(1999)
	h.Request(1, Request{Line: 1, Segment: 1, Generation: 1, Asks: []Ask{{Segment: segA, Generation: 1, Term: 1, Count: 2}}})
	fx := h.Take()
	if fx.Window <= 2000 {
		t.Fatalf("window %d is proposed, want more than 2000", fx.Window)
	}
	h.RoundDone(fx.Round, 1)
	want(t, "answers", len(h.Take().Answers), 0)
	h.Structure(1, 2, rangeA, 2000) // the split
	h.WindowFailed()                // and the window behind it
	fx = h.Take()
	if len(fx.Answers) != 1 || !errors.Is(fx.Answers[0].Err, ErrGeneration) || h.given != 1999 {
		t.Fatalf("%+v, given %d", fx.Answers, h.given)
	}
}

// 4b: the new leader starts above the window, not above the last number it has seen.
func TestNewHomeStartsAboveItsWindow(t *testing.T) {
	h := NewHome(DefaultConfig())
	h.Lead(Lead{Seat: Seat{1, 1, 1, 2}, Window: 1000, Last: 500})
	h.Windowed(2, 2000)
	want(t, "first number", stamps(t, h, segA, rangeA, 1).First, 1001)
}

// 4c: stamped 100, not yet in the log: a barrier at 120 waits.
func TestBarrierWaitsForWhatIsStampedAndNotProposed(t *testing.T) {
	x := newHeld(t, 1)
	x.stamp("w", 100)
	want(t, "passed", len(x.barrier(120)), 0)
	x.Ended(100)
	want(t, "passed", len(x.Take().Passed), 1)
}

// 13: one write a second somewhere among ten thousand segments wakes one of them.
func TestSleepingSegmentsAreNotAsked(t *testing.T) {
	const n = 10_000
	h := newTestHome(1 << 20)
	for i := range n {
		stamps(t, h, anchormesh.SegmentID(2+i), anchormesh.KeyRange{Start: []byte{byte(i >> 8), byte(i)}, End: []byte{byte(i >> 8), byte(i), 0}}, 1)
	}
	since := exchange(t, h, nil).T
	stamps(t, h, segB, rangeB, 1)
	s := exchange(t, h, nil, since).Spreads[0]
	if s.All || len(s.Ranges) != 1 || !s.Ranges[0].Equal(rangeB) {
		t.Fatalf("%+v, want the one range that got a stamp", s)
	}
	want(t, "an unknown asker asks all", exchange(t, h, nil, 0).Spreads[0].All, true)
}

// 22b: L holds 150, R answers a barrier at 200, L absorbs R and puts 150 into R's
// range.
func TestStampsAreNotPooledOverAbsorb(t *testing.T) {
	l := newHeld(t, 1)
	l.write("w")
	seq, a := l.asked()
	l.Structure(1, 2, anchormesh.KeyRange{Start: rangeA.Start, End: rangeB.End}, nil)
	want(t, "given back", len(l.Take().Back), 1)
	l.write("w in R's range")
	l.c.Granted(seq, grantOf(a, 150))
	want(t, "stamped", len(l.Take().Stamped), 0)
}

// 22c: a batch of stamps straddles a barrier: the lower part is thrown away, not
// kept for the next batch.
func TestStampsAreNotHeldOverABarrier(t *testing.T) {
	x := newHeld(t, 1)
	x.write("w1")
	x.write("w2")
	seq, a := x.asked()
	x.barrier(100)
	x.c.Granted(seq, grantOf(a, 100))
	fx := x.Take()
	if len(fx.Stamped) != 1 || fx.Stamped[0] != (Stamped[string]{"w1", 101}) {
		t.Fatalf("%v, want w1 at 101", fx.Stamped)
	}
}

// 22e: the round succeeds after the split was applied here: the generation is
// checked again before the answer.
func TestRoundAcrossSplitIsRefused(t *testing.T) {
	h := newTestHome(1000)
	h.Request(1, Request{Line: 1, Segment: 1, Generation: 1, Asks: []Ask{{Segment: segA, Generation: 1, Term: 1, Count: 1}}})
	round := h.Take().Round
	h.Structure(1, 2, rangeA, 1000) // the round's index is applied, the split with it
	h.RoundDone(round, 1)
	fx := h.Take()
	if len(fx.Answers) != 1 || !errors.Is(fx.Answers[0].Err, ErrGeneration) {
		t.Fatalf("%+v", fx.Answers)
	}
	x := newHeld(t, 1)
	x.Barrier(time.Time{}, Barrier{Token: 1, Line: 1, Segment: segA, Generation: 1, T: 10})
	round = x.Take().Round
	x.Structure(1, 2, rangeA, nil)
	x.RoundDone(round, 1)
	if p := x.Take().Passed; len(p) != 1 || !errors.Is(p[0].Err, ErrGeneration) {
		t.Fatalf("%+v", p)
	}
}

// 22f: the split was proposed at W = 2000, then W = 3000 was applied, then the split.
func TestWindowIsTakenWhenTheSplitIsApplied(t *testing.T) {
	h := newTestHome(2000)
	h.Windowed(1, 3000)
	h.lift(2499)
	stamps(t, h, segA, rangeA, 1) // 2500
	h.Structure(1, 2, rangeA, 3000)
	g, err := h.Own(Ask{Segment: 1, Generation: 2, Term: 1, Count: 1})
	if err != nil || g.First != 2501 {
		t.Fatalf("%+v %v, want 2501", g, err)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a window below the one in force was taken")
		}
	}()
	h.Structure(1, 3, rangeA, 2000)
}

// A scope that counted at apply until its split: the home's last revision is above
// its window, and stays the base of all numbers, also behind the next split.
func TestFirstStampIsAboveTheLastDenseRevision(t *testing.T) {
	h := NewHome(DefaultConfig())
	h.Lead(Lead{Seat: Seat{1, 1, 1, 2}, Last: 300})
	h.Structure(2, 2, rangeA, 0)
	h.Windowed(2, 1000)
	g, err := h.Own(Ask{Segment: 1, Generation: 2, Term: 2, Count: 1})
	if err != nil || g.First != 301 {
		t.Fatalf("%+v %v, want 301", g, err)
	}
}

// 22g: X applies 90 and says so, event 90 is on its way: X is asked all the same,
// because it got a stamp since this asker's last barrier. X splits: its old range
// is asked. A deposed X says nothing that counts, for nobody's reports do.
func TestSpreadKnowsRangesNotReports(t *testing.T) {
	h := newTestHome(1000)
	h.lift(89)
	stamps(t, h, segA, rangeA, 1) // 90
	left := anchormesh.KeyRange{Start: rangeA.Start, End: []byte("g")}
	exchange(t, h, []Ask{{Segment: segA, Generation: 2, Term: 2, Range: left, Count: 1}})
	s := exchange(t, h, nil, 80).Spreads[0]
	if s.All || len(s.Ranges) != 2 || !s.Ranges[0].Equal(left) || !s.Ranges[1].Equal(rangeA) {
		t.Fatalf("%+v, want [a,g) and all of [a,m)", s)
	}
}

// 22h: the old leader gave 500, the new one has applied 300: T counts the window.
func TestBarrierAfterHomeFailoverIsNotStale(t *testing.T) {
	h := NewHome(DefaultConfig())
	h.Lead(Lead{Seat: Seat{1, 1, 1, 2}, Window: 1000, Last: 300})
	a := exchange(t, h, nil, 999, 1000)
	want(t, "T", a.T, 1000)
	want(t, "all, before its time", a.Spreads[0].All, true)
	want(t, "all, since its time", a.Spreads[1].All, false)
}

// 22i: raised to 1000, answered; the leader dies; the next number is above.
func TestRaiseIsInTheWindow(t *testing.T) {
	h := newTestHome(600)
	h.Request(1, Request{Line: 1, Segment: 1, Generation: 1, Raise: 1000})
	h.RoundDone(h.Take().Round, 1)
	fx := h.Take()
	if len(fx.Answers) != 0 || fx.Window < 1000 {
		t.Fatalf("answered %v with window %d", fx.Answers, fx.Window)
	}
	h.Windowed(1, fx.Window)
	want(t, "T, raised", h.Take().Answers[0].T, 1000)
	next := NewHome(DefaultConfig())
	next.Lead(Lead{Seat: Seat{1, 1, 1, 2}, Window: fx.Window})
	next.Windowed(2, fx.Window+100)
	if g := stamps(t, next, segA, rangeA, 1); g.First <= 1000 || stamps(t, h, segA, rangeA, 1).First <= 1000 {
		t.Fatalf("%d is not above 1000", g.First)
	}
}

// Found by the model: the old leader has confirmed requests that wait for numbers,
// is replaced without knowing, and applies its successor's extension.
func TestSuccessorsWindowIsNotGiven(t *testing.T) {
	h := newTestHome(10)
	h.lift(10)
	h.Request(1, Request{Line: 1, Segment: 1, Generation: 1, Asks: []Ask{{Segment: segA, Generation: 1, Term: 1, Count: 1}}})
	h.RoundDone(h.Take().Round, 1)
	h.Windowed(2, 100)
	if fx := h.Take(); len(fx.Answers) != 1 || !errors.Is(fx.Answers[0].Err, ErrNotLeader) || h.given != 10 {
		t.Fatalf("%+v, given %d", fx.Answers, h.given)
	}
}

// A transaction prepared at 90 and committed at 150: barriers from 90 on wait, also
// those of the next leader.
func TestPreparedHoldsBarriers(t *testing.T) {
	x := newHeld(t, 1)
	x.stamp("prepare", 90)
	x.Hold(90)
	x.Ended(90)
	want(t, "passed below", len(x.barrier(89)), 1)
	want(t, "passed at 90", len(x.barrier(90)), 0)
	x.Lead(Seat{1, segA, 1, 2}, rangeA, []anchormesh.Revision{90})
	want(t, "failed by the new term", len(x.Take().Passed), 1)
	want(t, "passed at 95", len(x.barrier(95)), 0)
	x.Release(90)
	want(t, "passed when decided", len(x.Take().Passed), 1)
}

// Readers cannot starve writers: after stamps were thrown away, the next barrier
// lets the new ones through.
func TestBarriersDoNotStarveWrites(t *testing.T) {
	x := newHeld(t, 1)
	x.write("w")
	at := anchormesh.Revision(10)
	for range 2 {
		seq, a := x.asked()
		x.barrier(at) // on its way before the grant, above it
		x.c.Granted(seq, grantOf(a, at-1))
		if fx := x.Take(); len(fx.Stamped) == 1 {
			return
		}
		at += 10
	}
	t.Fatal("two barriers in a row threw the write's stamps away")
}

// The hot path: a batch costs a few allocations, whatever its size.
func TestBatchAllocatesLittle(t *testing.T) {
	const k = 1000
	h, x := newTestHome(1<<40), newHeld(t, 1)
	got := testing.AllocsPerRun(50, func() {
		for range k {
			x.write("w")
		}
		seq, ask := x.asked()
		a := exchange(t, h, []Ask{ask})
		x.c.Granted(seq, a.Grants)
		for _, s := range x.Take().Stamped {
			x.Ended(s.Stamp)
		}
	})
	if got > 20 {
		t.Fatalf("%v allocations for %d writes", got, k)
	}
}

func TestDefaultConfigIsValid(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(){func() { c.Window = 1 }, func() { c.Patience = 0 }, func() { c.Retry = 0 }, func() { c.AsksMax = 0 }} {
		c = DefaultConfig()
		if spoil(); c.Validate() == nil {
			t.Fatalf("%+v is taken", c)
		}
	}
}
