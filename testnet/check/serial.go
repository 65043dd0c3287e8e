package check

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
)

var (
	// ErrRealTime: revisions go against real time. A write got one at or below what had
	// been answered before it was asked for, or a read was answered at one that lacks
	// what had been acknowledged before.
	ErrRealTime = errors.New("revisions go against real time")
	// ErrAnswer: a write was answered otherwise than the keys below its revision say.
	ErrAnswer = errors.New("answer does not fit its revision")
)

// Serial judges the operations of lines whose writes bear their place in the order:
// each takes effect at the revision that its answer names, and no two writes at one.
// Then the order needs no search. It must agree with real time, and every write's
// answer with the events below its revision; what reads show is judged by Reads. All
// answered ranges but serializable ones and those at a revision are reads at the
// revision of their header, however many segments they cover. Together that is strict
// serializability.
//
// Grants and keep-alives write no keys and take no revision; nor does what ended
// without an answer, or with "no such lease".
func Serial(ops []Op, events []Event) error {
	lines, err := truths(events)
	if err != nil {
		return err
	}
	byLine := make(map[string][]*Op)
	var names []string
	for i := range ops {
		op := &ops[i]
		if op.Result == nil || op.Result.NoLease || op.Kind == Grant || op.Kind == Expire ||
			op.Kind == Range && (op.Serializable || op.Rev != 0) {
			continue
		}
		if byLine[op.Line] == nil {
			names = append(names, op.Line)
		}
		byLine[op.Line] = append(byLine[op.Line], op)
	}
	slices.Sort(names)
	for _, name := range names {
		t := lines[name]
		if t == nil {
			t = &truth{}
		}
		if err := realTime(byLine[name]); err != nil {
			return fmt.Errorf("line %q: %w", name, err)
		}
		for _, op := range byLine[name] {
			if err := t.answers(op); err != nil {
				return fmt.Errorf("line %q: %w", name, err)
			}
		}
	}
	return nil
}

// wrote reports whether an operation changed a key, as its answer says.
func wrote(r *Request, res *Result) bool {
	switch r.Kind {
	case Put:
		return true
	case Delete:
		return res.Count > 0
	case Txn:
		list := r.Else
		if res.Succeeded {
			list = r.Then
		}
		for i := range min(len(list), len(res.Sub)) {
			if wrote(&list[i], &res.Sub[i]) {
				return true
			}
		}
	}
	return false
}

// realTime goes through the operations in the order of their calls. Whatever was
// answered before an operation was called has a lower revision if the operation
// writes, else one at or below its own.
func realTime(ops []*Op) error {
	byCall := slices.Clone(ops)
	sort.SliceStable(byCall, func(i, j int) bool { return byCall[i].Call < byCall[j].Call })
	byReturn := slices.Clone(ops)
	sort.SliceStable(byReturn, func(i, j int) bool { return byReturn[i].Return < byReturn[j].Return })
	var latest *Op // of the largest revision that was answered so far
	n := 0
	for _, op := range byCall {
		for n < len(byReturn) && byReturn[n].Return < op.Call {
			if r := byReturn[n]; latest == nil || r.Result.Rev > latest.Result.Rev {
				latest = r
			}
			n++
		}
		if latest == nil {
			continue
		}
		if low := latest.Result.Rev; op.Result.Rev < low || op.Result.Rev == low && wrote(&op.Request, op.Result) {
			return fmt.Errorf("%w: %+v got revision %d at %d, after %+v had got %d by %d",
				ErrRealTime, op.Request, op.Result.Rev, op.Call, latest.Request, low, latest.Return)
		}
	}
	return nil
}

// answers judges a write's answer by the keys below its revision; one that changed
// nothing may also have come behind what is at its revision.
func (t *truth) answers(op *Op) error {
	if op.Kind == Range || op.Kind == Revoke {
		return nil
	}
	rev := op.Result.Rev
	if want := t.run(op, rev-1); want != nil && same(want, op.Result) {
		if wrote(&op.Request, op.Result) {
			return t.happened(op, rev)
		}
		return nil
	}
	if want := t.run(op, rev); want != nil && !wrote(&op.Request, op.Result) && same(want, op.Result) {
		return nil
	}
	return fmt.Errorf("%w: %+v answered %+v, want %+v", ErrAnswer, op.Request, *op.Result, t.run(op, rev-1))
}

// run carries an operation out on the keys as they were at a revision.
func (t *truth) run(op *Op, rev int64) *Result {
	d := t.stateFor(op, rev).draft()
	res := d.run(&op.Request)
	if !d.wrote && op.Result.Rev == rev+1 {
		return bumped(&res) // its number was given out, and nothing was written at it
	}
	return &res
}

// stateFor is what an operation meets at a revision.
func (t *truth) stateFor(op *Op, rev int64) *state {
	return &state{rev: rev, kvs: t.at("\x00", "\x00", rev), leases: leasesOf(&op.Request)}
}

// bumped is an answer at the next revision: a command that writes nothing shows the
// number that it got. What it read in a transaction is from below.
func bumped(r *Result) *Result {
	out := *r
	out.Rev++
	return &out
}

// happened makes sure that a write is among the events, and all of it: behind its revision
// every key that it names is what it made of it.
func (t *truth) happened(op *Op, rev int64) error {
	i := sort.Search(len(t.events), func(i int) bool { return t.events[i].Rev >= rev })
	if i == len(t.events) || t.events[i].Rev != rev {
		return fmt.Errorf("%w: %+v answered %+v, but nothing happened at its revision", ErrLost, op.Request, *op.Result)
	}
	d := t.stateFor(op, rev-1).draft()
	d.run(&op.Request)
	var broken error
	op.named(func(r *Request) {
		keys := []string{r.Key}
		if r.End != "" {
			keys = slices.Sorted(maps.Keys(t.keys))
		}
		for _, key := range keys {
			if r.Kind != Put && r.Kind != Delete || !within(key, r.Key, r.End) {
				continue
			}
			at, has := d.find(key)
			got := t.before(key, rev+1)
			if has != (got != nil) || has && *got != d.kvs[at] {
				broken = fmt.Errorf("%w: %+v answered %+v, but behind its revision %q is %+v", ErrLost, op.Request, *op.Result, key, got)
			}
		}
	})
	return broken
}

// leasesOf are the leases that a request's puts name: they are taken as there.
func leasesOf(r *Request) (out []int64) {
	if r.Lease != 0 {
		out = append(out, r.Lease)
	}
	for _, list := range [][]Request{r.Then, r.Else} {
		for i := range list {
			out = append(out, leasesOf(&list[i])...)
		}
	}
	slices.Sort(out)
	return out
}
