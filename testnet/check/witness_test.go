package check

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"
)

// made is a correct history of one line with the place of each write: operations on
// three keys and a lease take effect one after the other, and a few are under way at a
// time. Some writes have no answer.
func made(rng *rand.Rand, count int) []Op {
	s, ops := initial(), make([]Op, 0, count)
	for i := range count {
		op := Op{Request: drawn(rng, i), Call: int64(10*i) - rng.Int64N(40), Return: int64(10*i+1) + rng.Int64N(40)}
		d := s.draft()
		res := d.run(&op.Request)
		next := d.done()
		op.Result = &res
		if op.Kind != Range {
			op.Place = int64(i + 1)
			if rng.IntN(6) == 0 {
				op.Result, op.RevMin, op.RevMax = nil, s.rev, next.rev
			}
		}
		s, ops = next, append(ops, op)
	}
	rng.Shuffle(count, func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	return ops
}

func drawn(rng *rand.Rand, i int) Request {
	key := string(rune('a' + rng.IntN(3)))
	switch rng.IntN(8) {
	case 0, 1, 2:
		return Request{Kind: Put, Key: key, Value: fmt.Sprint(i), Prev: rng.IntN(2) == 0}
	case 3:
		return Request{Kind: Delete, Key: key}
	case 4:
		return Request{Kind: Txn, If: []Compare{{Key: key, Target: "version", Result: ">", Int: 1}},
			Then: []Request{{Kind: Put, Key: key, Value: fmt.Sprint(i)}}, Else: []Request{{Kind: Range, Key: key}}}
	case 5:
		return Request{Kind: []Kind{Grant, Revoke}[rng.IntN(2)], Lease: 7}
	}
	return Request{Kind: Range, Key: "a", End: "z"}
}

// spoil breaks a history in one place, perhaps so that nobody can see it.
func spoil(rng *rand.Rand, ops []Op) {
	op, other := &ops[rng.IntN(len(ops))], &ops[rng.IntN(len(ops))]
	switch rng.IntN(5) {
	case 0:
		op.Place, other.Place = other.Place, op.Place
	case 1:
		op.Call, op.Return = op.Call+60, op.Return+60
	case 2:
		if op.Kind == other.Kind {
			op.Result, other.Result = other.Result, op.Result
		}
	case 3:
		if op.Result != nil {
			op.Result.Rev += 1 - 2*rng.Int64N(2)
		}
	case 4:
		op.Value += "?"
	}
}

// lineOf is what Linearizable makes of a line.
func lineOf(ops []Op) (out []porcupine.Operation) {
	for i := range ops {
		if ops[i].Kind != Range || ops[i].Result != nil {
			out = append(out, porcupine.Operation{ClientId: i, Input: input{&ops[i], true}, Call: ops[i].Call, Return: ops[i].Return})
		}
	}
	return out
}

// Places and revisions of a correct history prove it; those of a spoilt one prove nothing
// that porcupine would not find.
func TestAnOrderProvesNoMoreThanASearch(t *testing.T) {
	proved, refused := 0, 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ops := made(rng, 2+rng.IntN(16))
		if line := lineOf(ops); !inPlaces(line) {
			t.Fatalf("seed %d: the order of places is refused: %s", seed, furthest(line))
		}
		for key, list := range byKey(ops) {
			if !inRevisions(list) && search(registerOf(list), list, 0) != porcupine.Ok {
				t.Fatalf("seed %d: key %s is refused", seed, key.key)
			}
		}
		spoil(rng, ops)
		line := lineOf(ops)
		legal := search(modelOf(line), line, 0) == porcupine.Ok
		if inPlaces(line) {
			proved++
			if !legal {
				t.Fatalf("seed %d: what porcupine refuses is proved: %s", seed, furthest(line))
			}
		}
		if !legal {
			refused++
		}
		for key, list := range byKey(ops) {
			if inRevisions(list) && search(registerOf(list), list, 0) != porcupine.Ok {
				t.Fatalf("seed %d: of key %s is proved what porcupine refuses", seed, key.key)
			}
		}
	}
	if proved < 300 || refused < 300 {
		t.Errorf("of 3000 spoilt histories %d were proved and %d refused", proved, refused)
	}
}

// Wrong places cost a search; they neither spoil a verdict nor mend one.
func TestWrongPlaces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	ops := made(rng, 60)
	for i := range ops {
		ops[i].Place = rng.Int64N(60)
	}
	if err := Linearizable(ops, 0); err != nil {
		t.Error(err)
	}
	last := &ops[slices.IndexFunc(ops, func(op Op) bool { return op.Kind == Put && op.Result != nil })]
	last.Result.Rev += 20
	if err := Linearizable(ops, 0); !errors.Is(err, ErrNotLinearizable) {
		t.Errorf("got %v, want %v", err, ErrNotLinearizable)
	}
}

// A search is given up after so many steps, which are the same each time.
func TestASearchIsGivenUp(t *testing.T) {
	ops := made(rand.New(rand.NewPCG(1, 1)), 60)
	for i := range ops {
		ops[i].Place = 0
	}
	if err := Linearizable(ops, 30); !errors.Is(err, ErrUndecided) {
		t.Errorf("got %v, want %v", err, ErrUndecided)
	}
	if err := LinearizableKeys(ops, 3); err != nil {
		t.Errorf("revisions need no search: %v", err)
	}
	for i := range ops {
		if ops[i].Result != nil {
			ops[i].Result.Rev = 1 + int64(i%2) // reads and writes of any order
		}
	}
	if err := LinearizableKeys(ops, 3); !errors.Is(err, ErrUndecided) {
		t.Errorf("got %v, want %v", err, ErrUndecided)
	}
}
