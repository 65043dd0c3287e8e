package check

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

var (
	// ErrEvents: the events of a line contradict themselves.
	ErrEvents = errors.New("events of a line contradict each other")
	// ErrRead: a read is not the state at the revision that it names.
	ErrRead = errors.New("read shows what no revision held")
	// ErrUnexplained: something changed a key that nobody asked for.
	ErrUnexplained = errors.New("event comes from no operation")
)

// truth is the events of one line with what they made of each key.
type truth struct {
	events []Event
	keys   map[string][]Event // by key, in order
}

// truths sorts events by line and makes sure that they agree with themselves.
func truths(events []Event) (map[string]*truth, error) {
	out := make(map[string]*truth)
	for _, e := range events {
		t := out[e.Line]
		if t == nil {
			t = &truth{keys: make(map[string][]Event)}
			out[e.Line] = t
		}
		if n := len(t.events); n > 0 && e.Rev < t.events[n-1].Rev {
			return nil, fmt.Errorf("line %q: %w: revision %d behind %d", e.Line, ErrEvents, e.Rev, t.events[n-1].Rev)
		}
		want := KV{Key: e.KV.Key, Mod: e.Rev}
		if !e.Delete {
			want = e.KV
			want.Create, want.Mod, want.Version = e.Rev, e.Rev, 1
			if old := t.before(e.KV.Key, e.Rev); old != nil {
				want.Create, want.Version = old.Create, old.Version+1
			}
		}
		if e.KV != want {
			return nil, fmt.Errorf("line %q: %w: event %+v, want %+v", e.Line, ErrEvents, e.KV, want)
		}
		t.events = append(t.events, e)
		t.keys[e.KV.Key] = append(t.keys[e.KV.Key], e)
	}
	return out, nil
}

// before returns the key as it was below revision rev; nil: it was not there.
func (t *truth) before(key string, rev int64) *KV {
	list := t.keys[key]
	i := sort.Search(len(list), func(i int) bool { return list[i].Rev >= rev })
	if i == 0 || list[i-1].Delete {
		return nil
	}
	return &list[i-1].KV
}

// at returns the keys of a range as they were at revision rev, in key order.
func (t *truth) at(key, end string, rev int64) []KV {
	var out []KV
	for k := range t.keys {
		if within(k, key, end) {
			if kv := t.before(k, rev+1); kv != nil {
				out = append(out, *kv)
			}
		}
	}
	slices.SortFunc(out, func(a, b KV) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return out
}

// Reads judges every answered range against the events.
func Reads(ops []Op, events []Event) error {
	lines, err := truths(events)
	if err != nil {
		return err
	}
	for i := range ops {
		op := &ops[i]
		if op.Kind != Range || op.Result == nil {
			continue
		}
		t := lines[op.Line]
		if t == nil {
			t = &truth{}
		}
		rev := op.Rev
		if rev == 0 {
			rev = op.Result.Rev
		}
		if rev > op.Result.Rev {
			return fmt.Errorf("line %q: %w: asked at revision %d, answered at %d", op.Line, ErrRead, rev, op.Result.Rev)
		}
		want := t.at(op.Key, op.End, rev)
		count := int64(len(want))
		if op.Limit > 0 && op.Limit < count {
			want = want[:op.Limit]
		}
		if op.Result.Count != count || !slices.Equal(op.Result.KVs, want) {
			return fmt.Errorf("line %q: %w: %+v answered %+v, but at revision %d there were %d: %+v",
				op.Line, ErrRead, op.Request, *op.Result, rev, count, want)
		}
	}
	return nil
}

// Explained makes sure that every put among the events was asked for: its value, for
// its key, by an operation of the line. Values must be unique in a line.
func Explained(ops []Op, events []Event) error {
	type write struct{ line, key, value string }
	asked := make(map[write]bool)
	for i := range ops {
		op := &ops[i]
		for _, list := range [][]Request{{op.Request}, op.Then, op.Else} {
			for _, r := range list {
				if r.Kind == Put {
					asked[write{op.Line, r.Key, r.Value}] = true
				}
			}
		}
	}
	used := make(map[write]bool)
	for _, e := range events {
		w := write{e.Line, e.KV.Key, e.KV.Value}
		switch {
		case e.Delete:
		case !asked[w]:
			return fmt.Errorf("line %q: %w: %+v", e.Line, ErrUnexplained, e.KV)
		case used[w]:
			return fmt.Errorf("line %q: %w: written twice: %+v", e.Line, ErrUnexplained, e.KV)
		}
		used[w] = true
	}
	return nil
}
