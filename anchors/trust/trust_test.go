package trust

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// well, slow, dead and corrupt are what a voter measures.
var (
	well    = Measure{Answered: 30}
	slow    = Measure{Answered: 26, Missed: 4}
	lagging = Measure{Answered: 30, Late: 10}
	dead    = Measure{Missed: 30}
	corrupt = Measure{Answered: 30, Differs: 1}
)

func nodes(names ...string) (out []anchormesh.NodeID) {
	for _, n := range names {
		out = append(out, anchormesh.NodeID(n))
	}
	return out
}

func letters(n int) (out []anchormesh.NodeID) {
	for i := range n {
		out = append(out, anchormesh.NodeID(rune('a'+i)))
	}
	return out
}

// poll asks the voters about each other: see says what one measures of another.
func poll(l *Ledger, voters, present []anchormesh.NodeID, see func(by, of anchormesh.NodeID) Measure) (*Poll, []Report) {
	p := &Poll{Mesh: 7, Segment: 9, Generation: 1, Term: 3, Version: l.Version(), Ledger: l.Digest(), Voters: voters}
	var reports []Report
	for _, by := range present {
		r := Report{By: by, Measures: make([]Measure, len(voters)), Signature: []byte("signed by " + by)}
		for i, of := range voters {
			if of != by {
				r.Measures[i] = see(by, of)
			}
		}
		reports = append(reports, r)
	}
	return p, reports
}

// after returns the ledger behind so many entries of the same.
func after(t testing.TB, l *Ledger, entries int, voters, present []anchormesh.NodeID, see func(by, of anchormesh.NodeID) Measure) *Ledger {
	t.Helper()
	for range entries {
		p, reports := poll(l, voters, present, see)
		next, err := l.Next(p, reports, 100+l.Version(), 3)
		if errors.Is(err, ErrUnchanged) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		l = next
	}
	return l
}

func allWell(_, _ anchormesh.NodeID) Measure { return well }

func TestLedgersReadBackAndReplay(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	voters := letters(5)
	var l *Ledger
	weights := map[uint64][]Weight{0: nil}
	for range 3 * HistoryMax {
		if rng.IntN(20) == 0 { // an anchor is replaced
			voters = slices.Clone(voters)
			voters[rng.IntN(len(voters))] = anchormesh.NodeID(fmt.Sprintf("n%03d", rng.IntN(1000)))
			slices.Sort(voters)
			voters = slices.Compact(voters)
		}
		kinds := []Measure{well, well, well, slow, dead, lagging, corrupt, {}}
		l = after(t, l, 1, voters, voters, func(_, _ anchormesh.NodeID) Measure { return kinds[rng.IntN(len(kinds))] })
		weights[l.Version()] = l.Weights()
		again, err := Decode(l.Encode())
		if err != nil || again.Version() != l.Version() || !slices.Equal(again.Weights(), l.Weights()) || !reflect.DeepEqual(again.past(), l.past()) {
			t.Fatalf("seed %d: %+v came back as %+v, %v", seed, l, again, err)
		}
	}
	if err := l.Replay(); err != nil {
		t.Fatal(err)
	}
	for v, want := range weights {
		got, ok := l.At(v)
		if kept := v+HistoryMax >= l.Version(); ok != kept || ok && !slices.Equal(got, want) {
			t.Errorf("seed %d: version %d of %d: %v (%v), it was %v", seed, v, l.Version(), got, ok, want)
		}
	}
	if len(l.Encode()) > 16<<10 {
		t.Errorf("a full ledger takes %d bytes", len(l.Encode()))
	}
	l.weights[0].Weight = 1 + l.weights[0].Weight%Cap
	if !errors.Is(l.Replay(), ErrReplay) {
		t.Error("a weight that does not follow from the history was believed")
	}
	if _, err := Decode(l.Encode()); !errors.Is(err, ErrReplay) {
		t.Errorf("and read back: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	var none *Ledger
	f.Add(none.Encode())
	l := after(f, nil, 5, letters(3), letters(3), allWell)
	f.Add(l.Encode())
	f.Add(after(f, l, 5, letters(4), letters(3), func(_, of anchormesh.NodeID) Measure {
		if of == "d" {
			return dead
		}
		return well
	}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Decode(data)
		if err != nil {
			return
		}
		if l == nil {
			return
		}
		if again := (&Ledger{version: l.version, weights: l.weights, made: l.past()}).Encode(); string(again) != string(data) {
			t.Fatalf("%x came back as %x", data, again)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	p, reports := poll(nil, letters(3), letters(2), allWell)
	f.Add(p.AppendEntry(nil, reports))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, reports, err := ParseEntry(data)
		if err != nil {
			return
		}
		for i := range reports {
			p.Statement(&reports[i])
		}
		var l *Ledger
		_, _ = l.Next(p, reports, 1, 1)
	})
}

// Whatever of a ledger is changed, the checkpoint, an entry or the newest weights, a
// replay says so, also where the change would not move any weight that is kept.
func TestAReplayMissesNothing(t *testing.T) {
	turns := 0
	see := func(_, of anchormesh.NodeID) Measure {
		if turns/40%2 == 0 && of == "b" {
			return dead
		}
		return well
	}
	var l *Ledger
	for ; l.Version() < 2*HistoryMax; turns++ {
		l = after(t, l, 1, letters(3), letters(3), see)
		if turns > 100*HistoryMax {
			t.Fatal("too few entries")
		}
	}
	signed := func(node anchormesh.NodeID, _, signature []byte) bool {
		return string(signature) == "signed by "+string(node)
	}
	if by, err := l.Verify(signed); err != nil || len(by) != 3 {
		t.Fatalf("%v, %v", by, err)
	}
	if _, err := l.Verify(func(anchormesh.NodeID, []byte, []byte) bool { return false }); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by nobody: %v", err)
	}
	if v, digest := l.Oldest(); v != l.Version()-HistoryMax || digest.IsZero() {
		t.Errorf("checkpoint %d, %s", v, digest)
	}
	for what, spoil := range map[string]func(*Ledger){
		"the checkpoint's weights":  func(l *Ledger) { l.made.base[0].Weight-- },
		"what made the checkpoint":  func(l *Ledger) { l.made.before[7]++ },
		"a median":                  func(l *Ledger) { l.made.history[9].Opinions[0].Points-- },
		"how many had seen it":      func(l *Ledger) { l.made.history[9].Opinions[0].Of-- },
		"where an entry stands":     func(l *Ledger) { l.made.history[9].Index++ },
		"the evidence of an entry":  func(l *Ledger) { l.made.history[9].Evidence[0]++ },
		"the newest evidence":       func(l *Ledger) { l.made.history[HistoryMax-1].Evidence[0]++ },
		"the newest medians":        func(l *Ledger) { l.made.history[HistoryMax-1].Opinions[0].Of-- },
		"a measure of a report":     func(l *Ledger) { l.made.last[0].Measures[1].Missed++ },
		"what the reporters signed": func(l *Ledger) { l.made.poll.Ledger[0]++ },
		"a weight":                  func(l *Ledger) { l.weights[2].Weight-- },
	} {
		spoilt, err := Read(l.Encode())
		if err != nil {
			t.Fatal(err)
		}
		spoil(spoilt)
		if err := spoilt.Replay(); !errors.Is(err, ErrReplay) {
			t.Errorf("%s was changed: %v", what, err)
		}
		if _, err := Decode(spoilt.Encode()); !errors.Is(err, ErrReplay) {
			t.Errorf("%s was changed, and read back: %v", what, err)
		}
	}
}
