package line

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// kept is one line over all its leaders: what its home's log says, and the core of the
// leader of now.
type kept struct {
	t      *testing.T
	rng    *rand.Rand
	home   *Home
	term   uint64
	window anchormesh.Revision // W as committed
	top    anchormesh.Revision // the largest number that anybody got
	floor  anchormesh.Revision // later numbers must be above it
}

func newKept(t *testing.T, rng *rand.Rand, base anchormesh.Revision) *kept {
	k := &kept{t: t, rng: rng, home: NewHome(smallWindows()), window: base, top: base, floor: base}
	k.lead()
	return k
}

func smallWindows() Config {
	cfg := DefaultConfig()
	cfg.Window = 8
	return cfg
}

// lead is a change of leaders: nothing of the old one's memory is left.
func (k *kept) lead() {
	k.term++
	k.home = NewHome(smallWindows())
	k.home.Lead(Lead{Seat: Seat{1, 1, 1, k.term}, Window: k.window})
}

// ask makes a request and drives it to its answer. If dies, the leader is replaced while
// the request waits for its window, and it is asked again.
func (k *kept) ask(req Request, dies bool) Answer {
	k.t.Helper()
	req.Line, req.Segment, req.Generation = 1, 1, 1
	k.home.Request(9, req)
	for range 10 {
		fx := k.home.Take()
		if fx.Window != 0 && dies && len(fx.Answers) == 0 {
			if k.rng.IntN(2) == 0 { // committed, and the old leader never heard
				k.window = max(k.window, fx.Window)
			}
			k.lead()
			return k.ask(req, false)
		}
		if fx.Window != 0 {
			k.window = max(k.window, fx.Window)
			k.home.Windowed(k.term, k.window)
		}
		for _, a := range fx.Answers {
			if a.Err != nil {
				k.t.Fatal(a.Err)
			}
			return a
		}
		if fx.Round != 0 {
			k.home.RoundDone(fx.Round, k.term)
		}
	}
	k.t.Fatal("no answer")
	return Answer{}
}

// got notes a number that was given out: it is nobody else's, and above what must be below.
func (k *kept) got(what string, number anchormesh.Revision) {
	k.t.Helper()
	if number <= k.top || number <= k.floor {
		k.t.Fatalf("%s %d, although %d was given out and %d passed", what, number, k.top, k.floor)
	}
	k.top = number
}

// Two lines over many leaders: numbers are given once and grow, also over claims at
// numbers of both, over raises to a number of the other (a snapshot there does not
// change), and for a scope that goes from one to the other and back: its numbers grow, and
// whoever asks the outer line where stamps went since before is told of its keys.
func TestRaisesClaimsAndHandOvers(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { raisesAndClaims(t, seed) })
	}
}

func raisesAndClaims(t *testing.T, seed uint64) {
	keys := anchormesh.KeyRange{Start: []byte("b"), End: []byte("c")}
	rng := rand.New(rand.NewPCG(seed, 7))
	outer, own := newKept(t, rng, 10), (*kept)(nil)
	last := anchormesh.Revision(0) // the scope's newest
	for range 200 {
		dies, on := rng.IntN(3) == 0, outer
		if own != nil && rng.IntN(2) == 0 {
			on = own
		}
		switch rng.IntN(7) {
		case 0:
			on.lead()
		case 1, 2:
			g := on.ask(Request{Asks: []Ask{{Segment: 3, Range: rangeA, Count: 1 + rng.IntN(5)}}}, dies).Grants[0]
			on.got("a stamp at", g.First)
			on.top = g.First + anchormesh.Revision(g.Count) - 1
			if own == nil || on == own { // a write of the scope
				if g.First <= last {
					t.Fatalf("seed %d: the scope goes back from %d to %d", seed, last, g.First)
				}
				last = on.top
			}
		case 3: // a snapshot over both
			at := outer.ask(Request{}, dies).T
			if own != nil {
				at = max(at, own.ask(Request{}, dies).T)
				for _, k := range []*kept{outer, own} {
					if a := k.ask(Request{Raise: at}, dies); a.T < at {
						t.Fatalf("seed %d: raised to %d, at %d", seed, at, a.T)
					}
					k.floor = max(k.floor, at)
				}
			}
			outer.floor = max(outer.floor, at)
		case 4: // a transaction over both
			if own == nil {
				continue
			}
			number := max(outer.ask(Request{}, dies).T, own.ask(Request{}, dies).T) + anchormesh.Revision(rng.IntN(3))
			for _, k := range []*kept{outer, own} {
				if k.ask(Request{Claim: number}, false).Claimed {
					k.got("a claim at", number)
				}
			}
		case 5: // to its own line
			if own == nil {
				since := outer.ask(Request{}, false).T
				base := outer.ask(Request{Asks: []Ask{{Segment: 5, Range: keys, Count: 1}}}, dies).Grants[0].First
				outer.got("a base at", base)
				own = newKept(t, rng, base)
				named(t, outer, since, keys)
			}
		case 6: // back, behind a window that nobody may have used
			if own != nil {
				since := outer.ask(Request{}, false).T
				g := outer.ask(Request{Raise: own.window, Asks: []Ask{{Segment: 5, Range: keys, Count: 1}}}, dies).Grants[0].First
				outer.got("a number at", g)
				if g <= own.window {
					t.Fatalf("seed %d: %d is not above the window %d", seed, g, own.window)
				}
				own = nil
				named(t, outer, since, keys)
			}
		}
	}
}

// named wants the keys among those that got stamps since a number.
func named(t *testing.T, k *kept, since anchormesh.Revision, keys anchormesh.KeyRange) {
	t.Helper()
	s := k.ask(Request{Since: []anchormesh.Revision{since}}, false).Spreads[0]
	for _, r := range s.Ranges {
		if r.Overlaps(keys) {
			return
		}
	}
	if !s.All {
		t.Fatalf("since %d the keys went to another line, and only %v are named", since, s.Ranges)
	}
}
