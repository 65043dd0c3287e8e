package check

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

var (
	// ErrNotLinearizable: no order of the operations that keeps to real time gives
	// the answers that clients got.
	ErrNotLinearizable = errors.New("history is not linearizable")
	// ErrUndecided: the search for such an order took too many steps.
	ErrUndecided = errors.New("linearizability was not decided")
)

// input is an operation as porcupine sees it.
type input struct {
	*Op
	sure bool // it took effect
}

// etcd is the sequential model. An operation of unknown outcome took effect or did
// not, so a step may lead to two states.
var etcd = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{initial()} },
	Step: func(st, in, _ any) []any {
		s, op := st.(*state), in.(input)
		next := s.step(&op)
		if next == nil {
			return nil
		}
		if op.Result == nil && !op.sure && !next.equal(s) {
			return []any{s, next}
		}
		return []any{next}
	},
	Equal:             func(a, b any) bool { return a.(*state).equal(b.(*state)) },
	Hash:              func(s any) uint64 { return s.(*state).sum },
	DescribeOperation: describe,
}).ToModel()

// certain is the same model for histories in which every operation took effect: there
// a step leads to one state, which is much cheaper to search.
var certain = porcupine.Model{
	Init: func() any { return initial() },
	Step: func(st, in, _ any) (bool, any) {
		op := in.(input)
		next := st.(*state).step(&op)
		return next != nil, next
	},
	Equal:             func(a, b any) bool { return a.(*state).equal(b.(*state)) },
	Hash:              func(s any) uint64 { return s.(*state).sum },
	DescribeOperation: describe,
}

func describe(in, _ any) string { return fmt.Sprintf("%+v", in.(input).Request) }

// modelOf is the cheapest model that can judge a history.
func modelOf(ops []porcupine.Operation) porcupine.Model {
	if slices.ContainsFunc(ops, func(op porcupine.Operation) bool { return !op.Input.(input).sure }) {
		return etcd
	}
	return certain
}

// step is the state behind an operation that takes effect on s, nil if its answer
// does not fit.
func (s *state) step(op *input) *state {
	if op.RevMax != 0 && (s.rev < op.RevMin || s.rev > op.RevMax) || !s.near(op) {
		return nil
	}
	d := s.draft()
	res := d.run(&op.Request)
	if op.Result == nil {
		return d.done()
	}
	if !fits(&op.Request, &res, op.Result) {
		return nil
	}
	if !d.wrote && len(d.leases) == len(s.leases) {
		return s
	}
	return d.done()
}

// near tells at once, by its revision alone, most answers that cannot fit: an
// operation answers with the revision that it finds, or with the next one.
func (s *state) near(op *input) bool {
	if op.Result == nil || op.Kind == Expire || op.Result.NoLease {
		return true
	}
	return op.Result.Rev == s.rev || op.Kind != Range && op.Result.Rev == s.rev+1
}

// Linearizable judges the operations of every line. Serializable reads and reads at
// a revision are left to Reads. Of each line the order that the operations' places
// tell is tried first; if it is none, or does not fit, porcupine searches for one in
// so many steps of the model. A limit of zero is no limit.
func Linearizable(ops []Op, limit int) error {
	lines := make(map[string][]porcupine.Operation)
	for i := range ops {
		op := &ops[i]
		if op.Kind == Range && (op.Serializable || op.Rev != 0) {
			continue
		}
		end := op.Return
		if op.Result == nil && op.Kind == Range {
			continue
		}
		sure := op.Return != 0
		if !sure {
			end = math.MaxInt64
		}
		lines[op.Line] = append(lines[op.Line], porcupine.Operation{
			ClientId: len(lines[op.Line]), Input: input{op, sure}, Call: op.Call, Return: end,
		})
	}
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		if inPlaces(lines[line]) {
			continue
		}
		switch search(modelOf(lines[line]), lines[line], limit) {
		case porcupine.Illegal:
			return fmt.Errorf("line %q: %w: %s", line, ErrNotLinearizable, furthest(lines[line]))
		case porcupine.Unknown:
			return fmt.Errorf("line %q: %w: %d operations in %d steps; %s", line, ErrUndecided, len(lines[line]), limit, furthest(lines[line]))
		}
	}
	return nil
}

// search is porcupine's, given up after so many steps. They are counted, and no clock is
// asked, so that a history gets the same verdict on every machine.
func search(model porcupine.Model, ops []porcupine.Operation, limit int) porcupine.CheckResult {
	model, over := bounded(model, limit)
	switch {
	case porcupine.CheckOperations(model, ops):
		return porcupine.Ok
	case *over:
		return porcupine.Unknown
	}
	return porcupine.Illegal
}

// bounded is a model that nothing fits any more after so many steps, so that a search
// ends, and whether one came to that.
func bounded(model porcupine.Model, limit int) (porcupine.Model, *bool) {
	step, taken, over := model.Step, 0, new(bool)
	model.StepContext = nil // that of a nondeterministic model would be preferred
	model.Step = func(s, in, out any) (bool, any) {
		if *over = *over || limit > 0 && taken == limit; *over {
			return false, nil
		}
		taken++
		return step(s, in, out)
	}
	return model, over
}

// furthestSteps bounds the search that a report tells of.
const furthestSteps = 300_000

// furthest says where the longest order found gets stuck: the first operation by
// return that is in none of the longest orders.
func furthest(ops []porcupine.Operation) string {
	model, _ := bounded(modelOf(ops), furthestSteps)
	_, info := porcupine.CheckOperationsVerbose(model, ops, 0)
	partial := info.PartialLinearizationsOperations()
	if len(partial) == 0 || len(partial[0]) == 0 {
		return "nothing fits"
	}
	longest := slices.MaxFunc(partial[0], func(a, b []porcupine.Operation) int { return len(a) - len(b) })
	in := make(map[int]bool, len(longest))
	for _, op := range longest {
		in[op.ClientId] = true
	}
	var stuck *porcupine.Operation
	for i := range ops {
		if !in[ops[i].ClientId] && (stuck == nil || ops[i].Return < stuck.Return) {
			stuck = &ops[i]
		}
	}
	if stuck == nil {
		return "nothing is left"
	}
	op := stuck.Input.(input)
	return fmt.Sprintf("after %d of %d operations, %+v from %v to %v with answer %+v fits nowhere",
		len(longest), len(ops), op.Request, time.Duration(stuck.Call), time.Duration(stuck.Return), op.Result)
}
