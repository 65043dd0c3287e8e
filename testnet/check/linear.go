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
	// ErrUndecided: the search for such an order took too long.
	ErrUndecided = errors.New("linearizability was not decided in time")
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
// a revision are left to Reads. A limit of zero is no limit to the time it takes.
func Linearizable(ops []Op, limit time.Duration) error {
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
		switch porcupine.CheckOperationsTimeout(modelOf(lines[line]), lines[line], limit) {
		case porcupine.Illegal:
			return fmt.Errorf("line %q: %w: %s", line, ErrNotLinearizable, furthest(lines[line]))
		case porcupine.Unknown:
			return fmt.Errorf("line %q: %w: %d operations in %v", line, ErrUndecided, len(lines[line]), limit)
		}
	}
	return nil
}

// furthest says where the longest order found gets stuck: the first operation by
// return that is in none of the longest orders.
func furthest(ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(modelOf(ops), ops, 10*time.Second)
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
