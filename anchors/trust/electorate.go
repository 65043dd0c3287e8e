package trust

import (
	"slices"
	"sort"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
)

// Threshold is the part of the effective sum that a vote needs: at least Num/Den of
// it; the zero one is more than half.
type Threshold = policy.Fraction

// Electorate is a set of voters with their effective weights. It is not modified once
// made.
type Electorate struct {
	basis  Basis
	voters []Weight // by node
	sum    uint32
	least  uint32 // of any n-f voters
	most   uint32 // of any f
}

// Basis is what an electorate was made of: whoever has it can make it again.
type Basis struct {
	Ledger     uint64   // version of the ledger that gave the weights
	Weights    []Weight // of the voters, by node
	Thresholds []Threshold
}

// Elect makes the electorate.
func (b *Basis) Elect() *Electorate {
	e := Elect(b.Weights, b.Thresholds...)
	e.basis.Ledger = b.Ledger
	return e
}

// Elect makes the electorate of these voters by the ledger.
func (l *Ledger) Elect(voters []anchormesh.NodeID, thresholds ...Threshold) *Electorate {
	b := Basis{Ledger: l.Version(), Weights: l.Of(voters), Thresholds: thresholds}
	return b.Elect()
}

// Basis returns what the electorate was made of. It is not to be modified.
func (e *Electorate) Basis() *Basis { return &e.basis }

// Elect lowers the heaviest of the voters, which are ordered by node, until the n-f
// lightest reach every threshold and no f do.
//
// The lower the level to which the heavy ones are brought, the larger is the part of the
// sum that the n-f lightest have, and the smaller that of any f: so the highest level at
// which both hold is found by halving.
func Elect(voters []Weight, thresholds ...Threshold) *Electorate {
	most := uint32(Least)
	for _, v := range voters {
		most = max(most, v.Weight)
	}
	e := lowered(voters, most)
	if !e.fair(thresholds) {
		unfair := sort.Search(int(most-Least), func(above int) bool { return !lowered(voters, Least+1+uint32(above)).fair(thresholds) })
		e = lowered(voters, Least+uint32(unfair))
	}
	e.basis = Basis{Weights: voters, Thresholds: thresholds}
	return e
}

// lowered returns the electorate in which nobody weighs more than level.
func lowered(voters []Weight, level uint32) *Electorate {
	e := &Electorate{voters: slices.Clone(voters)}
	sorted := make([]uint32, len(voters))
	for i := range e.voters {
		w := &e.voters[i].Weight
		*w = max(min(*w, level), Least)
		sorted[i] = *w
		e.sum += *w
	}
	slices.Sort(sorted)
	f := max(len(voters)-1, 0) / 2
	for i, w := range sorted {
		if i < len(sorted)-f {
			e.least += w
		} else {
			e.most += w
		}
	}
	return e
}

// fair reports whether the n-f lightest reach every threshold and no f do.
func (e *Electorate) fair(thresholds []Threshold) bool {
	for _, t := range thresholds {
		if need := share(t, e.sum); e.least < need || e.most >= need {
			return false
		}
	}
	return true
}

// share is the smallest sum that reaches a threshold.
func share(t Threshold, sum uint32) uint32 {
	if t.Den == 0 {
		return sum/2 + 1
	}
	return uint32((uint64(sum)*uint64(t.Num) + uint64(t.Den) - 1) / uint64(t.Den))
}

// Need is the sum of weights that reaches a threshold.
func (e *Electorate) Need(t Threshold) uint32 {
	return min(max(share(t, e.sum), e.most+1), e.least)
}

// Sum is the effective sum.
func (e *Electorate) Sum() uint32 { return e.sum }

// Voters returns the effective weights by node. It is not to be modified.
func (e *Electorate) Voters() []Weight { return e.voters }

// Weight returns a voter's effective weight, and 0 for who is none.
func (e *Electorate) Weight(node anchormesh.NodeID) uint32 {
	if i, found := slices.BinarySearchFunc(e.voters, node, byNode); found {
		return e.voters[i].Weight
	}
	return 0
}

// Reached reports whether votes of this sum reach a threshold.
func (e *Electorate) Reached(t Threshold, votes uint32) bool { return votes >= e.Need(t) }

// Lost reports whether a threshold cannot be reached any more when voters of this sum
// have refused.
func (e *Electorate) Lost(t Threshold, refusals uint32) bool {
	return e.sum-min(refusals, e.sum) < e.Need(t)
}
