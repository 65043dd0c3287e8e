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
		if op.RevMax != 0 && (s.rev < op.RevMin || s.rev > op.RevMax) {
			return nil
		}
		d := s.draft()
		res := d.run(&op.Request)
		if op.Result == nil {
			next := d.done()
			if op.sure || next.equal(s) {
				return []any{next}
			}
			return []any{s, next}
		}
		if !fits(&op.Request, &res, op.Result) {
			return nil
		}
		if !d.wrote && len(d.leases) == len(s.leases) {
			return []any{s}
		}
		return []any{d.done()}
	},
	Equal: func(a, b any) bool { return a.(*state).equal(b.(*state)) },
	DescribeOperation: func(in, _ any) string {
		return fmt.Sprintf("%+v", in.(input).Request)
	},
}).ToModel()

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
		switch porcupine.CheckOperationsTimeout(etcd, lines[line], limit) {
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
	_, info := porcupine.CheckOperationsVerbose(etcd, ops, 10*time.Second)
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
