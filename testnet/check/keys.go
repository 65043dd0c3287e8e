package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// touch is what an operation did to one key, or saw of it.
type touch struct {
	kind  Kind // Put, Delete or Range
	value string
	rev   int64 // at which it wrote, or at which what it saw was written; 0: not known
	at    int64 // revision of the line behind it; 0: not known
	place int64 // as Op.Place
	idle  bool  // it changed nothing, and had no answer
	sure  bool
}

// cell is a key's value, or none, and the revision of its last write.
type cell struct {
	value string
	rev   int64
	loose bool // rev is at least that: the last write's is not known
}

// register is the sequential model of one key. Values are unique, so they say which
// write a read saw. Revisions only grow; that spares most of the search.
var register = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{cell{}} },
	Step: func(st, in, _ any) []any {
		s, t := st.(cell), in.(touch)
		next, fits := s.step(&t)
		switch {
		case !fits:
			return nil
		case t.sure || t.kind == Range || next == s:
			return []any{next}
		}
		return []any{s, next}
	},
	Equal:             func(a, b any) bool { return a.(cell) == b.(cell) },
	DescribeOperation: describeTouch,
}).ToModel()

// certainRegister is the same model for histories in which everything took effect: a
// step leads to one state, and to no new one if nothing changes.
var certainRegister = porcupine.Model{
	Init: func() any { return cell{} },
	Step: func(st, in, _ any) (bool, any) {
		s, t := st.(cell), in.(touch)
		next, fits := s.step(&t)
		if !fits || next == s {
			return fits, st
		}
		return true, next
	},
	Equal:             func(a, b any) bool { return a.(cell) == b.(cell) },
	DescribeOperation: describeTouch,
}

func describeTouch(in, _ any) string {
	t := in.(touch)
	return fmt.Sprintf("%s %q", t.kind, t.value)
}

// registerOf is the cheapest model that can judge a history of one key.
func registerOf(ops []porcupine.Operation) porcupine.Model {
	if slices.ContainsFunc(ops, func(op porcupine.Operation) bool { return !op.Input.(touch).sure }) {
		return register
	}
	return certainRegister
}

// step is what a key is after an operation that took effect, and whether it can have.
func (s cell) step(t *touch) (next cell, fits bool) {
	if t.kind == Range {
		switch {
		case t.value != s.value || s.value != "" && t.rev < s.rev || s.value != "" && !s.loose && t.rev != s.rev:
			return s, false
		case s.value == "":
			return s, true
		}
		return cell{value: s.value, rev: t.rev}, true
	}
	switch late := t.rev != 0 && t.rev <= s.rev; {
	case t.kind == Delete && s.value == "":
		return s, true // nothing to delete
	case late:
		return s, !t.sure
	}
	return cell{t.value, max(t.rev, s.rev), t.rev == 0}, true
}

// LinearizableKeys judges every key for itself: a range
// over several keys reads each of them, a transaction does to each what its answer
// says. It is weaker than Linearizable, and holds for a line of several segments too.
// The order of revisions is tried first, then porcupine, for so many steps with a key.
// Values must be unique and not empty. Keys that leases end, and keys that one
// transaction both reads and writes, are judged by Serial and Reads alone.
func LinearizableKeys(ops []Op, limit int) error {
	parts := byKey(ops)
	order := slices.SortedFunc(maps.Keys(parts), func(a, b keyOf) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.key, b.key))
	})
	for _, part := range order {
		list := parts[part]
		if inRevisions(list) {
			continue
		}
		switch search(registerOf(list), list, limit) {
		case porcupine.Illegal:
			return fmt.Errorf("line %q, key %q: %w: %d operations", part.line, part.key, ErrNotLinearizable, len(list))
		case porcupine.Unknown:
			return fmt.Errorf("line %q, key %q: %w: %d operations in %d steps", part.line, part.key, ErrUndecided, len(list), limit)
		}
	}
	return nil
}

// keyOf is a key of a line.
type keyOf struct{ line, key string }

// byKey tells of each key that LinearizableKeys judges what operations did to it.
func byKey(ops []Op) map[keyOf][]porcupine.Operation {
	keys := judged(ops)
	parts := make(map[keyOf][]porcupine.Operation)
	for i := range ops {
		op := &ops[i]
		if op.Kind == Range && (op.Serializable || op.Rev != 0 || op.Result == nil) || op.Result != nil && op.Result.NoLease {
			continue
		}
		for _, key := range keys {
			t, touches := op.touches(&op.Request, op.Result, key)
			if !touches {
				continue
			}
			end := op.Return
			t.at, t.place = op.newest(), op.Place
			t.idle = op.Result == nil && t.at != 0 && op.RevMin == op.RevMax
			if end == 0 {
				end, t.sure = math.MaxInt64, false
			}
			part := keyOf{op.Line, key}
			parts[part] = append(parts[part], porcupine.Operation{ClientId: len(parts[part]), Input: t, Call: op.Call, Return: end})
		}
	}
	return parts
}

// judged are the keys that were written, but for those that a lease may end.
func judged(ops []Op) []string {
	keys := make(map[string]bool)
	leased := make(map[string]bool)
	for i := range ops {
		ops[i].named(func(r *Request) {
			keys[r.Key] = keys[r.Key] || r.Kind == Put
			leased[r.Key] = leased[r.Key] || r.Lease != 0
		})
	}
	maps.DeleteFunc(keys, func(key string, written bool) bool { return !written || leased[key] })
	return slices.Sorted(maps.Keys(keys))
}

// named calls f with an operation and everything in it.
func (op *Op) named(f func(*Request)) {
	f(&op.Request)
	for _, list := range [][]Request{op.Then, op.Else} {
		for i := range list {
			f(&list[i])
		}
	}
}

// touches says what an operation did to a key, or saw of it. A write comes before a
// read of the same transaction. Without an answer of a transaction nothing is sure.
func (op *Op) touches(r *Request, res *Result, key string) (t touch, ok bool) {
	switch {
	case r.Kind == Txn:
		return op.branch(r, res, key)
	case !within(key, r.Key, r.End):
		return touch{}, false
	}
	switch r.Kind {
	case Put:
		return touch{kind: Put, value: r.Value, rev: op.wroteAt(res), sure: true}, true
	case Delete:
		if res != nil && res.Count == 0 {
			return touch{kind: Range, sure: true}, true
		}
		return touch{kind: Delete, rev: op.wroteAt(res), sure: true}, true
	case Range:
		if res == nil {
			return touch{}, false
		}
		for i := range res.KVs {
			if res.KVs[i].Key == key {
				return touch{kind: Range, value: res.KVs[i].Value, rev: res.KVs[i].Mod, sure: true}, true
			}
		}
		return touch{kind: Range, sure: true}, r.Limit == 0 || res.Count <= r.Limit
	}
	return touch{}, false
}

func (op *Op) branch(r *Request, res *Result, key string) (t touch, ok bool) {
	list := r.Else
	if res == nil || res.Succeeded {
		list = r.Then
	}
	for i := range list {
		var sub *Result
		if res != nil {
			sub = &res.Sub[i]
		}
		if one, touches := op.touches(&list[i], sub, key); touches && (!ok || one.kind != Range) {
			t, ok = one, true
		}
	}
	t.sure = t.sure && (res != nil || len(r.If) == 0 && len(leasesOf(r)) == 0)
	return t, ok
}

// newest is the line's revision behind an operation, as well as it is known.
func (op *Op) newest() int64 {
	if op.Result != nil {
		return op.Result.Rev
	}
	return op.RevMax
}

// wroteAt is the revision of an operation that wrote, if it is known.
func (op *Op) wroteAt(res *Result) int64 {
	switch {
	case res != nil:
		return res.Rev
	case op.RevMax != 0 && op.RevMax == op.RevMin+1:
		return op.RevMax
	}
	return 0
}
