package check

import (
	"errors"
	"testing"
)

// stampedLine is a correct history of a line of two segments: numbers have gaps, and a
// read at T shows all at or below T, wherever it is.
func stampedLine() ([]Op, []Event) {
	kv := func(key, value string, create, mod, version int64) KV {
		return KV{Key: key, Value: value, Create: create, Mod: mod, Version: version}
	}
	a1, z1, a2 := kv("a", "1", 10, 10, 1), kv("z", "2", 25, 25, 1), kv("a", "3", 10, 40, 2)
	events := []Event{{Rev: 10, KV: a1}, {Rev: 25, KV: z1}, {Rev: 40, KV: a2}, {Rev: 60, Delete: true, KV: KV{Key: "z", Mod: 60}}}
	op := func(call, back int64, r Request, res Result) Op {
		return Op{Request: r, Call: call, Return: back, Result: &res}
	}
	return []Op{
		op(1, 2, Request{Kind: Put, Key: "a", Value: "1"}, Result{Rev: 10}),
		op(3, 4, Request{Kind: Put, Key: "z", Value: "2"}, Result{Rev: 25}),
		op(5, 6, Request{Kind: Range, Key: "a", End: "\x00"}, Result{Rev: 30, Count: 2, KVs: []KV{a1, z1}}),
		op(7, 8, Request{Kind: Put, Key: "a", Value: "3", Prev: true}, Result{Rev: 40, KVs: []KV{a1}}),
		op(9, 10, Request{Kind: Delete, Key: "nothing"}, Result{Rev: 50}),
		op(11, 12, Request{Kind: Delete, Key: "z"}, Result{Rev: 60, Count: 1}),
		op(13, 14, Request{Kind: Txn, If: []Compare{{Key: "a", Target: "mod", Result: "=", Int: 10}},
			Then: []Request{{Kind: Put, Key: "a", Value: "4"}}, Else: []Request{{Kind: Range, Key: "a"}}},
			Result{Rev: 70, Sub: []Result{{Rev: 69, Count: 1, KVs: []KV{a2}}}}),
		op(15, 16, Request{Kind: Range, Key: "a", End: "\x00"}, Result{Rev: 70, Count: 1, KVs: []KV{a2}}),
	}, events
}

// judgeLine is what the simulator asks of a line that was split.
func judgeLine(ops []Op, events []Event) error {
	return errors.Join(Serial(ops, events), Reads(ops, events), LinearizableKeys(ops, 0))
}

func TestSerial(t *testing.T) {
	if err := judgeLine(stampedLine()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(ops []Op)
		want  []error
	}{
		"a write below what was acknowledged":     {func(ops []Op) { ops[1].Result.Rev = 9 }, []error{ErrRealTime}},
		"two writes at one revision":              {func(ops []Op) { ops[3].Result.Rev = 25 }, []error{ErrRealTime}},
		"a write below a read":                    {func(ops []Op) { ops[2].Result.Rev = 45 }, []error{ErrRealTime, ErrRead}},
		"a read below an acknowledged write":      {func(ops []Op) { ops[2].Result.Rev = 24 }, []error{ErrRealTime}},
		"a read that lacks another segment":       {func(ops []Op) { ops[2].Result.Count, ops[2].Result.KVs = 1, ops[2].Result.KVs[:1] }, []error{ErrRead, ErrNotLinearizable}},
		"a read of what comes later":              {func(ops []Op) { ops[2].Result.KVs[0] = KV{Key: "a", Value: "3", Create: 10, Mod: 40, Version: 2} }, []error{ErrRead, ErrNotLinearizable}},
		"a previous version that was not":         {func(ops []Op) { ops[3].Result.KVs[0].Value = "9" }, []error{ErrAnswer}},
		"a write that nobody sees":                {func(ops []Op) { ops[3].Result.Rev, ops[3].Prev, ops[3].Result.KVs = 41, false, nil }, []error{ErrLost}},
		"a delete that says it found something":   {func(ops []Op) { ops[4].Result.Count = 1 }, []error{ErrAnswer}},
		"a compare that took the other branch":    {func(ops []Op) { ops[6].Result.Succeeded, ops[6].Result.Sub = true, []Result{{Rev: 70}} }, []error{ErrAnswer}},
		"a read that is older than a later write": {func(ops []Op) { ops[7].Result.Rev = 50 }, []error{ErrRealTime, ErrRead}},
	} {
		t.Run(name, func(t *testing.T) {
			ops, events := stampedLine()
			c.spoil(ops)
			err := judgeLine(ops, events)
			for _, want := range c.want {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
		})
	}
}

// An unknown write may have any revision; what is seen of it later says which.
func TestLinearizableKeysWithUnknownWrites(t *testing.T) {
	seen := func(rev int64) []Op {
		return []Op{
			{Request: Request{Kind: Put, Key: "a", Value: "1"}, Call: 1, Return: 2, Result: &Result{Rev: 10}},
			{Request: Request{Kind: Put, Key: "a", Value: "2"}, Call: 3},
			{Request: Request{Kind: Range, Key: "a"}, Call: 5, Return: 6, Result: &Result{Rev: 30, Count: 1, KVs: []KV{{Key: "a", Value: "2", Mod: rev}}}},
		}
	}
	if err := LinearizableKeys(seen(20), 0); err != nil {
		t.Error(err)
	}
	if err := LinearizableKeys(seen(9), 0); !errors.Is(err, ErrNotLinearizable) {
		t.Errorf("a write below an earlier one: %v", err)
	}
}

func TestOwners(t *testing.T) {
	whole := func() []Owner {
		return []Owner{
			{"n1", 1, 3, "", "g"}, {"n2", 1, 3, "", "g"}, {"n1", 2, 3, "g", "p"}, {"n2", 2, 3, "g", "p"}, {"n3", 3, 2, "p", ""},
		}
	}
	if err := Owners(whole(), "", ""); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]Owner) []Owner{
		"an overlap":                     func(o []Owner) []Owner { o[4].Start = "o"; return o },
		"a gap":                          func(o []Owner) []Owner { o[4].Start = "q"; return o },
		"a child that nobody runs":       func(o []Owner) []Owner { return append(o[:2], o[4]) },
		"a parent that did not shrink":   func(o []Owner) []Owner { o[0].End, o[1].End = "p", "p"; return o },
		"a replica of an old generation": func(o []Owner) []Owner { o[1].Generation, o[1].End = 2, ""; return o },
		"nothing at the end":             func(o []Owner) []Owner { return o[:4] },
		"two with all keys":              func(o []Owner) []Owner { return []Owner{{"n1", 1, 1, "", ""}, {"n2", 2, 1, "", ""}} },
	} {
		if err := Owners(spoil(whole()), "", ""); !errors.Is(err, ErrOwners) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Owners([]Owner{{"n1", 1, 1, "b", "c"}}, "b", "c"); err != nil {
		t.Error(err)
	}
}
