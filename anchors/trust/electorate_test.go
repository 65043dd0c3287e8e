package trust

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
)

func of(num, den uint32) Threshold { return Threshold{Num: num, Den: den} }

// thresholdsOf are those that a policy may have for so many anchors, and the default.
func thresholdsOf(n int) (out []Threshold) {
	out = append(out, Threshold{})
	f := uint32(n-1) / 2
	for _, t := range []Threshold{of(1, 2), of(2, 3), of(3, 5), of(4, 7), of(1, 3), of(1, 1), of(501, 1000)} {
		most := uint64(t.Num)*uint64(n) <= uint64(t.Den)*uint64(uint32(n)-f)
		if least := uint64(t.Num)*uint64(n) > uint64(t.Den)*uint64(f); most && least {
			out = append(out, t)
		}
	}
	return out
}

// electSlowly is Elect's dumb twin.
func electSlowly(voters []Weight, thresholds []Threshold) *Electorate {
	for level := uint32(Cap); level > Least; level-- {
		if e := lowered(voters, level); e.fair(thresholds) {
			return e
		}
	}
	return lowered(voters, Least)
}

// holds checks the caps of an electorate the dumb way: over every set of voters.
func holds(t *testing.T, weights []uint32, thresholds ...Threshold) {
	t.Helper()
	voters := make([]Weight, len(weights))
	for i, n := range letters(len(weights)) {
		voters[i] = Weight{n, weights[i]}
	}
	e := Elect(voters, thresholds...)
	if slow := electSlowly(voters, thresholds); !slices.Equal(e.voters, slow.voters) {
		t.Fatalf("weights %v, thresholds %v: effective %v, one level at a time %v", weights, thresholds, e.voters, slow.voters)
	}
	n, f := len(weights), (len(weights)-1)/2
	for _, th := range thresholds {
		for set := range 1 << n {
			sum, size := uint32(0), 0
			for i := range n {
				if set>>i&1 == 1 {
					sum, size = sum+e.voters[i].Weight, size+1
				}
			}
			if reached := e.Reached(th, sum); size >= n-f && !reached || size <= f && reached {
				t.Fatalf("weights %v, effective %v: %d of %d voters (%b) weigh %d, which reaches %v of %d: %v",
					weights, e.voters, size, n, set, sum, th, e.sum, reached)
			}
			// Whether it is lost is the other side of whether the rest reaches it.
			if e.Lost(th, sum) == e.Reached(th, e.sum-sum) {
				t.Fatalf("weights %v, threshold %v: lost and reached agree about refusals of %d", weights, th, sum)
			}
		}
	}
}

// TestCapsHoldForEveryLedger: exhaustive for three voters and a coarse scale, random
// over the whole for five and seven.
func TestCapsHoldForEveryLedger(t *testing.T) {
	scale := []uint32{1, 2, 3, 5, 9, 10, 19, 20, 33, 50, 99, 100}
	for _, a := range scale {
		holds(t, []uint32{a}, thresholdsOf(1)...)
		for _, b := range scale {
			holds(t, []uint32{a, b}, thresholdsOf(2)...)
			for _, c := range scale {
				for _, th := range thresholdsOf(3) {
					holds(t, []uint32{a, b, c}, th)
				}
				holds(t, []uint32{a, b, c}, thresholdsOf(3)...)
			}
		}
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	t.Logf("seed %d", seed)
	for _, n := range []int{4, 5, 6, 7} {
		for range 400 {
			weights := make([]uint32, n)
			for i := range weights {
				weights[i] = 1 + rng.Uint32N(Cap)
				if rng.IntN(3) == 0 {
					weights[i] = scale[rng.IntN(len(scale))]
				}
			}
			holds(t, weights, thresholdsOf(n)...)
		}
	}
}

// TestAThresholdThatCannotBeKeptIsCountedInVoters: the policy was written for fewer
// or more anchors than the group has at the moment.
func TestAThresholdThatCannotBeKeptIsCountedInVoters(t *testing.T) {
	for _, th := range []Threshold{of(2, 3), of(1, 1), of(1, 3), of(1, 10)} {
		for _, weights := range [][]uint32{{1, 1, 1, 1, 1}, {100, 100, 20, 10, 1}, {7, 7, 7, 7, 7, 7, 7}, {100, 1, 1}} {
			holds(t, weights, th)
		}
	}
}

// Counterexample 7: weights 4, 1, 1 and a threshold of half.
func TestCounterexample7(t *testing.T) {
	half := of(1, 2)
	voters := []Weight{{"a", 4}, {"b", 1}, {"c", 1}}
	e := Elect(voters, half)
	t.Run("a: the heavy anchor dies and writes go on", func(t *testing.T) {
		if !e.Reached(half, e.Weight("b")+e.Weight("c")) {
			t.Errorf("two of three healthy anchors cannot write: %v", e.Voters())
		}
		if e.Reached(half, e.Weight("a")) {
			t.Errorf("the heavy one decides alone: %v", e.Voters())
		}
	})
	t.Run("b: of five anchors two heavy ones neither decide nor block", func(t *testing.T) {
		e := Elect([]Weight{{"a", 100}, {"b", 100}, {"c", 10}, {"d", 10}, {"e", 10}}, half)
		if e.Reached(half, e.Weight("a")+e.Weight("b")) || !e.Reached(half, 3*e.Weight("c")) {
			t.Errorf("%v", e.Voters())
		}
	})
	t.Run("c: trust entries and what they change need no weight, only a majority of reports", func(t *testing.T) {
		l := after(t, nil, 20, letters(3), letters(3), allWell)
		before := l.Weight("a")
		l = after(t, l, 3, letters(3), nodes("b", "c"), func(_, of anchormesh.NodeID) Measure {
			if of == "a" {
				return dead
			}
			return well
		})
		if l.Weight("a") >= before || l.Weight("b") < before {
			t.Errorf("while the heaviest is dead, weights are %v", l.Weights())
		}
	})
}

// TestWeightsStillCount: the caps do not make all weights equal.
func TestWeightsStillCount(t *testing.T) {
	e := Elect([]Weight{{"a", 100}, {"b", 100}, {"c", 10}}, of(1, 2))
	if got := []uint32{e.Weight("a"), e.Weight("b"), e.Weight("c")}; !slices.Equal(got, []uint32{100, 100, 10}) {
		t.Errorf("effective weights %v: nothing had to be lowered", got)
	}
	e = Elect([]Weight{{"a", 100}, {"b", 10}, {"c", 10}}, of(1, 2))
	if e.Weight("a") != 19 { // 20 would be half of 40
		t.Errorf("effective weights %v", e.Voters())
	}
}

func FuzzElect(f *testing.F) {
	f.Add([]byte{100, 10, 10}, uint32(1), uint32(2))
	f.Fuzz(func(t *testing.T, raw []byte, num, den uint32) {
		if len(raw) == 0 || len(raw) > 7 || den > 1000 || num > den || num == 0 {
			return
		}
		weights := make([]uint32, len(raw))
		for i, b := range raw {
			weights[i] = 1 + uint32(b)%Cap
		}
		holds(t, weights, of(num, den))
	})
}

func BenchmarkElect(b *testing.B) {
	voters := []Weight{{"a", 100}, {"b", 90}, {"c", 40}, {"d", 20}, {"e", 10}}
	for b.Loop() {
		Elect(voters, of(1, 2), of(3, 5))
	}
}
