package scope

import (
	"errors"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// ErrCount says that a count does not come out as it was entered.
var ErrCount = errors.New("the votes do not come out as they were counted")

// Count is how a proposal was decided by its votes, with all that it takes to count them
// again.
type Count struct {
	Proposal  uint64
	Kind      Kind
	Decided   bool   // else refused
	Policy    uint64 // version that was asked, with this threshold
	Threshold policy.Fraction
	// Basis gives the weights, and Votes the verdict of each of its voters.
	Basis trust.Basis
	Votes []Verdict
	Tally Tally
}

// Verdict is a voter's word in a count.
type Verdict uint8

// Verdicts.
const (
	Silent Verdict = iota
	Approves
	Refuses
)

// String is the word used in tables.
func (v Verdict) String() string {
	if int(v) >= len(verdicts) {
		return fmt.Sprintf("verdict %d", uint8(v))
	}
	return verdicts[v]
}

var verdicts = []string{"silent", "approves", "refuses"}

// ReadVerdict reads what String wrote.
func ReadVerdict(word string) (Verdict, error) {
	for i, v := range verdicts {
		if v == word {
			return Verdict(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no verdict", word)
}

// counted enters a count of the votes on a proposal. r is the caller's.
func (r *Record) counted(p *Proposal, e *trust.Electorate, t Tally) {
	c := Count{
		Proposal: p.ID, Kind: p.Kind, Decided: t.Decided(), Policy: r.Newest().Number, Threshold: r.Threshold(), Basis: *e.Basis(), Tally: t,
	}
	for _, w := range c.Basis.Weights {
		c.Votes = append(c.Votes, p.verdict(w.Node))
	}
	r.Counts = append(r.Counts[:len(r.Counts):len(r.Counts)], c)
	if over := len(r.Counts) - CountsMax; over > 0 {
		r.Counts = r.Counts[over:]
	}
}

// verdict is what a node has said.
func (p *Proposal) verdict(node anchormesh.NodeID) Verdict {
	for _, v := range p.Votes {
		switch {
		case v.Node != node:
		case v.Approve:
			return Approves
		default:
			return Refuses
		}
	}
	return Silent
}

// Again makes the electorate again and counts the votes; it wraps ErrCount if the tally
// or the outcome is another one.
func (c *Count) Again() (Tally, error) {
	e := c.Basis.Elect()
	t := Tally{Total: uint64(e.Sum()), Needed: uint64(e.Need(c.Threshold))}
	for i, w := range c.Basis.Weights {
		switch c.Votes[i] {
		case Approves:
			t.Approved += uint64(e.Weight(w.Node))
		case Refuses:
			t.Refused += uint64(e.Weight(w.Node))
		}
	}
	if t != c.Tally || t.Decided() != c.Decided || !t.Decided() && !t.Hopeless() {
		return t, fmt.Errorf("%w: %d for and %d against of %d, %d needed; entered were %d and %d of %d, %d needed",
			ErrCount, t.Approved, t.Refused, t.Total, t.Needed, c.Tally.Approved, c.Tally.Refused, c.Tally.Total, c.Tally.Needed)
	}
	return t, nil
}

// append writes
//
//	proposal | kind 1 | decided 1 | policy | threshold | ledger | count, per voter: node, weight, verdict 1
//	  | count, thresholds | approved | refused | total | needed
func (c *Count) append(b []byte) []byte {
	decided := byte(0)
	if c.Decided {
		decided = 1
	}
	b = append(appendNumber(b, c.Proposal), byte(c.Kind), decided)
	b = appendNumber(b, c.Policy, uint64(c.Threshold.Num), uint64(c.Threshold.Den), c.Basis.Ledger, uint64(len(c.Basis.Weights)))
	for i, w := range c.Basis.Weights {
		b = append(appendNumber(fields.AppendBytes(b, []byte(w.Node)), uint64(w.Weight)), byte(c.Votes[i]))
	}
	b = appendNumber(b, uint64(len(c.Basis.Thresholds)))
	for _, t := range c.Basis.Thresholds {
		b = appendNumber(b, uint64(t.Num), uint64(t.Den))
	}
	return appendNumber(b, c.Tally.Approved, c.Tally.Refused, c.Tally.Total, c.Tally.Needed)
}

// thresholdsMax is how many thresholds one electorate is made for at most.
const thresholdsMax = 4

func (r *reader) count() Count {
	c := Count{Proposal: r.Number(), Kind: Kind(r.Byte()), Decided: r.Byte() == 1, Policy: r.Number(), Threshold: r.fraction()}
	c.Basis.Ledger = r.Number()
	for range r.AtMost(trust.VotersMax) {
		w := trust.Weight{Node: anchormesh.NodeID(r.bytes(nodeBytesMax)), Weight: uint32(r.AtMost(trust.Cap))}
		c.Basis.Weights, c.Votes = append(c.Basis.Weights, w), append(c.Votes, Verdict(r.Byte()))
	}
	for range r.AtMost(thresholdsMax) {
		c.Basis.Thresholds = append(c.Basis.Thresholds, r.fraction())
	}
	c.Tally = Tally{Approved: r.Number(), Refused: r.Number(), Total: r.Number(), Needed: r.Number()}
	return c
}

func (r *reader) fraction() policy.Fraction {
	return policy.Fraction{Num: uint32(r.AtMost(math.MaxUint32)), Den: uint32(r.AtMost(math.MaxUint32))}
}
