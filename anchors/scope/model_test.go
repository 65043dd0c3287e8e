package scope

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

// life is a record under random entries, with what a dumb twin remembers of it.
type life struct {
	rng       *rand.Rand
	r         *Record
	place     Place
	voters    []anchormesh.NodeID
	weights   map[anchormesh.NodeID]uint32
	threshold policy.Fraction
	cast      map[uint64]map[anchormesh.NodeID]bool // verdicts, by proposal
	ended     map[uint64]Outcome
	beside    bool // something was recovered while the scope was being deleted
	versions  []uint64
}

// TestAnyHistoryKeepsTheRules: whatever stands in the log, a version follows its
// predecessor, nothing is decided below the threshold or twice, a vote counts once and
// only from a voter in force, what has ended stays as it ended, and the record reads back.
func TestAnyHistoryKeepsTheRules(t *testing.T) {
	base := rand.Uint64()
	reached, beside := make(map[Outcome]int), false
	for i := range uint64(150) {
		seed := base + i
		l := &life{
			rng: rand.New(rand.NewPCG(seed, 9)), r: &Record{}, weights: make(map[anchormesh.NodeID]uint32),
			cast: make(map[uint64]map[anchormesh.NodeID]bool), ended: make(map[uint64]Outcome),
		}
		l.regroup()
		for range 150 {
			l.place = Place{l.place.Index + 1 + l.rng.Uint64N(2), l.place.Term + l.rng.Uint64N(2)}
			before := l.r.Encode()
			if err := l.step(); err != nil {
				t.Fatalf("seed %d at %v: %v", seed, l.place, err)
			}
			if err := l.holds(before); err != nil {
				t.Fatalf("seed %d at %v: %v", seed, l.place, err)
			}
		}
		for _, o := range l.ended {
			reached[o]++
		}
		beside = beside || l.beside
	}
	if !beside {
		t.Errorf("seeds from %d: nothing was recovered while a scope was being deleted", base)
	}
	for _, o := range []Outcome{Decided, Refused, Expired, Outdated, Withdrawn, Abandoned} {
		if reached[o] == 0 {
			t.Errorf("seeds from %d: no proposal ended as %s", base, o)
		}
	}
}

// regroup changes who votes, and how much each weighs.
func (l *life) regroup() {
	all := []anchormesh.NodeID{"a", "b", "c", "d", "e"}
	l.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	l.voters = slices.Sorted(slices.Values(all[:1+2*l.rng.IntN(3)]))
	for _, n := range all {
		l.weights[n] = 1 + l.rng.Uint32N(100)
	}
}

func (l *life) electorate() *trust.Electorate {
	var w []trust.Weight
	for _, n := range l.voters {
		w = append(w, trust.Weight{Node: n, Weight: l.weights[n]})
	}
	return trust.Elect(w, l.r.Threshold())
}

func (l *life) proposal() Proposal {
	newest := l.r.Newest().Number
	p := Proposal{Kind: Amend, Subject: []byte("/s"), Base: newest, Version: newest + 1, Policy: three(), AtMillis: int64(l.place.Index)}
	if l.rng.IntN(3) == 0 {
		p.Policy.Amend.Threshold = policy.Fraction{Num: 1 + l.rng.Uint32N(3), Den: 3}
	}
	switch l.rng.IntN(10) {
	case 8:
		p.Kind, p.Version, p.Policy, p.Segment, p.Generation, p.Key = []Kind{Split, Merge}[l.rng.IntN(2)], 0, nil, 4, 7, []byte("/s/m")
	case 9:
		p.Kind, p.Version, p.Policy, p.Segment, p.Generation, p.From, p.To = Move, 0, nil, 4, 7, "a", "b"
	case 0:
		p.Kind, p.Subject, p.Version = Create, []byte("/s/x"), 1
	case 1:
		p.Kind, p.Subject, p.Version, p.Policy, p.Segment, p.Survivor = Recover, []byte("/s/x"), 0, nil, 4, "a"
	case 2:
		p.Base += l.rng.Uint64N(2) // sometimes judged against another version
	case 3:
		if l.rng.IntN(4) == 0 {
			p.Kind, p.Subject, p.Version, p.Policy, p.Anchors = Delete, nil, 0, nil, 3
		}
	}
	return p
}

func (l *life) step() error {
	switch l.rng.IntN(12) {
	case 0:
		l.regroup()
	case 1, 2:
		p := l.proposal()
		next, err := l.r.Propose([]byte("/s"), p, l.place)
		if err == nil {
			if p.Base != l.r.Newest().Number || len(l.r.Open) >= OpenMax || l.r.Deleting() && p.Kind != Recover {
				return fmt.Errorf("taken: %+v", p)
			}
			l.r = next
		}
	case 3:
		return l.close()
	case 4:
		if next, err := l.r.Adopted(l.rng.Uint64N(l.r.Newest().Number + 2)); err == nil {
			l.r = next
		}
	default:
		return l.vote()
	}
	return nil
}

func (l *life) close() error {
	id := 1 + l.rng.Uint64N(l.r.Next+1)
	next, err := l.r.Close(id, Expired+Outcome(2*l.rng.IntN(2)), "", l.place)
	if err != nil {
		next, err = l.r.Finish(id, []Outcome{Decided, Abandoned}[l.rng.IntN(2)], "", l.place)
	}
	if err != nil {
		return nil
	}
	if o, over := l.ended[id]; over {
		return fmt.Errorf("proposal %d ended as %s, and again", id, o)
	}
	if c, ok := next.Ended(id); ok && c.Kind == Delete && c.Outcome == Decided && l.r.Recovering != nil {
		return fmt.Errorf("the scope is deleted while a segment of it is recovered")
	}
	l.r = next
	return nil
}

func (l *life) vote() error {
	id := 1 + l.rng.Uint64N(l.r.Next+1)
	if n := len(l.r.Open); n > 0 && l.rng.IntN(4) > 0 {
		id = l.r.Open[l.rng.IntN(n)].ID
	}
	v := Vote{Node: anchormesh.NodeID('a' + rune(l.rng.IntN(5))), Approve: l.rng.IntN(4) > 0}
	p, open := l.r.Proposal(id)
	open = open && p != l.r.Doing && p != l.r.Recovering
	e := l.electorate()
	next, d, err := l.r.Vote(id, v, e, l.place)
	_, voted := l.cast[id][v.Node]
	counts := open && !voted && slices.Contains(l.voters, v.Node)
	if counts != (err == nil) {
		return fmt.Errorf("vote of %s on %d: %v, it counts: %v", v.Node, id, err, counts)
	}
	if err != nil {
		if !errors.Is(err, ErrVote) && !errors.Is(err, ErrNoProposal) {
			return err
		}
		return nil
	}
	if l.cast[id] == nil {
		l.cast[id] = make(map[anchormesh.NodeID]bool)
	}
	l.cast[id][v.Node] = v.Approve
	approved := uint64(0)
	for n, yes := range l.cast[id] {
		if yes && slices.Contains(l.voters, n) {
			approved += uint64(e.Weight(n))
		}
	}
	if enough := approved >= uint64(e.Need(l.r.Threshold())); d != nil && !enough {
		return fmt.Errorf("proposal %d decided by %d of %d", id, approved, e.Sum())
	}
	if d != nil && d.Kind == Amend {
		l.versions = append(l.versions, d.Version)
	}
	l.r = next
	return nil
}

// holds checks what must be so behind every entry.
func (l *life) holds(before []byte) error {
	if _, err := Decode(before); err != nil {
		return err
	}
	again, err := Decode(l.r.Encode())
	if err != nil || !bytes.Equal(again.Encode(), l.r.Encode()) {
		return fmt.Errorf("the record does not read back: %v", err)
	}
	for i, n := range l.versions {
		if n != uint64(i+1) {
			return fmt.Errorf("versions %v", l.versions)
		}
	}
	if l.r.Newest().Number != uint64(len(l.versions)) || l.r.InForce > l.r.Newest().Number {
		return fmt.Errorf("newest %d, in force %d, decided %v", l.r.Newest().Number, l.r.InForce, l.versions)
	}
	open := make(map[uint64]bool)
	for _, p := range l.r.Open {
		open[p.ID] = true
		if p.Base != l.r.Newest().Number || l.r.Deleting() && p.Kind != Recover {
			return fmt.Errorf("proposal %d is open behind version %d: %+v", p.ID, l.r.Newest().Number, p)
		}
	}
	if p := l.r.Doing; p != nil {
		open[p.ID] = true
	}
	if p := l.r.Recovering; p != nil {
		open[p.ID] = true
		l.beside = l.beside || l.r.Deleting()
	}
	if n := len(l.r.Counts); n > 0 {
		if _, err := l.r.Counts[n-1].Again(); err != nil {
			return fmt.Errorf("proposal %d: %w", l.r.Counts[n-1].Proposal, err)
		}
	}
	for _, c := range l.r.Closed {
		if open[c.ID] {
			return fmt.Errorf("proposal %d is open, and ended as %s", c.ID, c.Outcome)
		}
		if o, over := l.ended[c.ID]; over && o != c.Outcome {
			return fmt.Errorf("proposal %d ended as %s, and then as %s", c.ID, o, c.Outcome)
		}
		l.ended[c.ID] = c.Outcome
	}
	for id := range maps.Keys(open) {
		if o, over := l.ended[id]; over {
			return fmt.Errorf("proposal %d is open again, it ended as %s", id, o)
		}
	}
	return nil
}
