package check

import (
	"cmp"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// An order of operations proves a history linearizable: carried out one after the
// other each gives the answer that its client got, and each fits between its call and
// its return. To judge a given one takes a step per operation, where a search may take
// any number. Who names the order need not be trusted: one that is wrong proves
// nothing, and the history is searched.

// moment is the earliest time at which the operations so far can have taken effect,
// one after the other.
type moment int64

// pass moves on to an operation; false: it had returned by then.
func (m *moment) pass(op *porcupine.Operation) bool {
	*m = max(*m, moment(op.Call))
	return *m <= moment(op.Return)
}

// inPlaces reports whether the operations of a line are linearizable in the order of
// their places. Reads have none: each comes as soon as the line is at its revision and it
// was called, and changes nothing for others. What may have had no effect, and has no
// place, is left out.
func inPlaces(ops []porcupine.Operation) bool {
	placed, reads, ok := byPlace(ops)
	if !ok {
		return false
	}
	s, now := initial(), moment(math.MinInt64)
	for i := range placed {
		next := stepOf(s, &placed[i])
		if next == nil {
			return false
		}
		for ; len(reads) > 0 && readOf(&reads[0]) == s.rev; reads = reads[1:] {
			if next.rev == s.rev && moment(reads[0].Call) > max(now, moment(placed[i].Call)) {
				break // there is time for it behind this one, too
			}
			if !now.pass(&reads[0]) || stepOf(s, &reads[0]) == nil {
				return false
			}
		}
		if !now.pass(&placed[i]) {
			return false
		}
		s = next
	}
	for i := range reads {
		if !now.pass(&reads[i]) || stepOf(s, &reads[i]) == nil {
			return false
		}
	}
	return true
}

// byPlace parts a line's operations into those with a place, in that order, and reads,
// by revision. It is not ok if one that took effect is neither.
func byPlace(ops []porcupine.Operation) (placed, reads []porcupine.Operation, ok bool) {
	for i := range ops {
		switch op := ops[i].Input.(input); {
		case op.Kind == Range:
			reads = append(reads, ops[i])
		case op.Place != 0:
			placed = append(placed, ops[i])
		case op.sure:
			return nil, nil, false
		}
	}
	slices.SortFunc(placed, func(a, b porcupine.Operation) int {
		return cmp.Or(cmp.Compare(a.Input.(input).Place, b.Input.(input).Place), cmp.Compare(a.Call, b.Call))
	})
	slices.SortFunc(reads, func(a, b porcupine.Operation) int {
		return cmp.Or(cmp.Compare(readOf(&a), readOf(&b)), cmp.Compare(a.Call, b.Call))
	})
	return placed, reads, true
}

func readOf(op *porcupine.Operation) int64 { return op.Input.(input).Result.Rev }

func stepOf(s *state, op *porcupine.Operation) *state {
	in := op.Input.(input)
	return s.step(&in)
}

// inRevisions reports whether the operations on a key are linearizable in the order of
// their revisions, of which reads see all. What may have had no effect, and whose revision
// is not known, is left out.
func inRevisions(ops []porcupine.Operation) bool {
	order := make([]porcupine.Operation, 0, len(ops))
	for i := range ops {
		switch t := ops[i].Input.(touch); {
		case t.at != 0:
			order = append(order, ops[i])
		case t.sure:
			return false
		}
	}
	bound(order)
	slices.SortStableFunc(order, func(a, b porcupine.Operation) int {
		x, y := a.Input.(touch), b.Input.(touch)
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.saw(), y.saw()), cmp.Compare(x.written(), y.written()), cmp.Compare(a.Call, b.Call))
	})
	model, now := registerOf(order), moment(math.MinInt64)
	s, fits := model.Init(), true
	for i := range order {
		if fits, s = model.Step(s, order[i].Input, nil); !fits || !now.pass(&order[i]) {
			return false
		}
	}
	return true
}

// bound lowers the revisions of writes of which only the last one of their log entry is
// known: they are below those of the writes behind them.
func bound(ops []porcupine.Operation) {
	var writes []*porcupine.Operation
	for i := range ops {
		if t := ops[i].Input.(touch); t.written() != 0 {
			writes = append(writes, &ops[i])
		}
	}
	slices.SortFunc(writes, func(a, b *porcupine.Operation) int {
		return cmp.Compare(b.Input.(touch).place, a.Input.(touch).place)
	})
	below := int64(math.MaxInt64)
	for _, op := range writes {
		t := op.Input.(touch)
		if t.rev != 0 {
			below = t.rev - 1
			continue
		}
		t.at = min(t.at, below)
		op.Input, below = t, t.at
	}
}

// saw is 1 of what changed nothing at its revision, and comes behind what did.
func (t *touch) saw() int {
	if t.idle || t.kind == Range || t.place == 0 && t.rev != t.at {
		return 1
	}
	return 0
}

// written is the place of what wrote; 0: it has none, or saw only.
func (t *touch) written() int64 {
	if t.saw() == 0 {
		return t.place
	}
	return 0
}
