package trust

import (
	"cmp"
	"fmt"
	"slices"
)

// Next returns the ledger behind an entry with these reports, at a place of the log.
// They are ordered by reporter; their signatures are the caller's to verify.
func (l *Ledger) Next(p *Poll, reports []Report, index, term uint64) (*Ledger, error) {
	if p.Version != l.Version() || p.Ledger != l.Digest() {
		return nil, fmt.Errorf("%w: %d (%.12s), it is %d (%.12s)", ErrVersion, p.Version, p.Ledger, l.Version(), l.Digest())
	}
	if err := p.check(reports); err != nil {
		return nil, err
	}
	var weights []Weight
	if l != nil {
		weights = l.weights
	}
	step := Step{Version: l.Version() + 1, Index: index, Term: term, Opinions: p.opinions(reports), Evidence: p.evidence(reports)}
	next := advance(weights, step.Opinions)
	if slices.Equal(weigh(next, p.Voters), weigh(weights, p.Voters)) {
		return nil, ErrUnchanged
	}
	now := l.past()
	out := &past{base: now.base, before: now.before, history: append(slices.Clone(now.history), step), poll: p, last: reports}
	for len(out.history) > HistoryMax {
		old := &out.history[0]
		out.before = behind(checkpoint(out.before, out.base), old)
		out.base = advance(out.base, old.Opinions)
		out.history = slices.Clone(out.history[1:])
	}
	return &Ledger{version: step.Version, weights: next, digest: checkpoint(behind(l.Digest(), &step), next), made: out}, nil
}

// advance returns the weights behind an entry with these opinions, which are ordered
// by node.
func advance(weights []Weight, opinions []Opinion) []Weight {
	next, below := make([]Weight, len(opinions)), 0
	for i, o := range opinions {
		w := weightIn(weights, o.Node)
		if o.Points > 0 {
			w = min(w+uint32(min(o.Points, StepMax)), Cap)
		}
		if w < Floor {
			below++
		}
		next[i] = Weight{o.Node, w}
	}
	for _, i := range losing(opinions) {
		w, loss := &next[i].Weight, uint32(min(-opinions[i].Points, StepMax))
		was := *w
		*w = max(was, loss+Least) - loss
		if was >= Floor && *w < Floor {
			if below > 0 {
				*w = Floor // one at a time
			} else {
				below++
			}
		}
	}
	return remember(next, weights)
}

// losing orders those who lose weight: who loses most comes first.
func losing(opinions []Opinion) (out []int) {
	for i := range opinions {
		if opinions[i].Points < 0 {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(opinions[a].Points, opinions[b].Points) })
	return out
}

// remember adds to the voters' weights what is kept of other nodes: the most telling.
func remember(voters, old []Weight) []Weight {
	var absent []Weight
	for _, w := range old {
		if _, votes := slices.BinarySearchFunc(voters, w.Node, byNode); votes {
			continue
		}
		if w.Weight > Newcomer {
			w.Weight--
		} else if w.Weight < Newcomer {
			w.Weight++
		}
		if w.Weight != Newcomer { // else it is as if it were not known
			absent = append(absent, w)
		}
	}
	slices.SortStableFunc(absent, func(a, b Weight) int { return cmp.Compare(telling(b.Weight), telling(a.Weight)) })
	out := append(slices.Clone(voters), absent[:min(len(absent), AbsentMax)]...)
	slices.SortFunc(out, func(a, b Weight) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// telling is how far a weight is from a newcomer's.
func telling(w uint32) uint32 { return max(w, Newcomer) - min(w, Newcomer) }
