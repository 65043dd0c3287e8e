package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

var (
	// ErrList: a list lacks an acknowledged item, has one twice, or out of order.
	ErrList = errors.New("list is not what was appended to it")
	// ErrCounter: a counter is not the number of additions.
	ErrCounter = errors.New("counter is not the number of additions")
	// ErrSum: a transfer was seen half done.
	ErrSum = errors.New("accounts do not sum up to zero")
	// ErrNoFinal: keys were written and not read at the end.
	ErrNoFinal = errors.New("no read at the end")
)

// written is what is known of a key that transactions change.
type written struct {
	acked   []item
	unknown map[string]bool // last words of values
}

type item struct {
	rev  int64
	word string
}

// lastWord of a list is the item that was appended.
func lastWord(value string) string { return value[strings.LastIndexByte(value, ' ')+1:] }

// writtenIn collects the writes by transactions to keys of a family.
func writtenIn(ops []check.Op, family string) map[string]*written {
	out := map[string]*written{}
	for i := range ops {
		op := &ops[i]
		if op.Kind != check.Txn || op.Result != nil && !op.Result.Succeeded {
			continue
		}
		for _, put := range op.Then {
			if !strings.Contains(put.Key, "/"+family+"/") {
				continue
			}
			w := out[put.Key]
			if w == nil {
				w = &written{unknown: map[string]bool{}}
				out[put.Key] = w
			}
			if op.Result == nil {
				w.unknown[lastWord(put.Value)] = true
			} else {
				w.acked = append(w.acked, item{op.Result.Rev, lastWord(put.Value)})
			}
		}
	}
	for _, w := range out {
		slices.SortFunc(w.acked, func(a, b item) int { return cmp.Compare(a.rev, b.rev) })
	}
	return out
}

// lastReads returns for each group the newest answer to a linearizable range of all
// its keys.
func lastReads(ops []check.Op) map[string]*check.Result {
	out := map[string]*check.Result{}
	for i := range ops {
		op := &ops[i]
		if op.Kind != check.Range || op.End == "" || op.Serializable || op.Result == nil {
			continue
		}
		if old := out[op.Key]; old == nil || old.Rev <= op.Result.Rev {
			out[op.Key] = op.Result
		}
	}
	return out
}

// final returns the value of a key at the end of the run.
func final(last map[string]*check.Result, key string) (string, error) {
	res := last[traffic.Group(key)]
	if res == nil {
		return "", fmt.Errorf("%w of %q", ErrNoFinal, key)
	}
	for _, kv := range res.KVs {
		if kv.Key == key {
			return kv.Value, nil
		}
	}
	return "", nil
}

// finals judges lists, counters and transfers by what was read at the end.
func finals(ops []check.Op) (lists, counters, transfers Verdict) {
	last := lastReads(ops)
	lists = Verdict{Name: "lists: every acknowledged item, once, in order"}
	for key, w := range writtenIn(ops, "list") {
		lists.Judged += len(w.acked)
		value, err := final(last, key)
		if err == nil {
			err = judgeList(strings.Fields(value), w)
		}
		if err != nil {
			lists.Err = fmt.Errorf("%q: %w", key, err)
		}
	}
	counters = Verdict{Name: "counters: every acknowledged addition, once"}
	for key, w := range writtenIn(ops, "count") {
		counters.Judged += len(w.acked)
		value, err := final(last, key)
		if n := traffic.Number(value); err == nil && (n < len(w.acked) || n > len(w.acked)+len(w.unknown)) {
			err = fmt.Errorf("%w: %d, but %d were acknowledged and %d are unknown", ErrCounter, n, len(w.acked), len(w.unknown))
		}
		if err != nil {
			counters.Err = fmt.Errorf("%q: %w", key, err)
		}
	}
	return lists, counters, sums(ops)
}

func judgeList(got []string, w *written) error {
	place := map[string]int{}
	for i, word := range got {
		if _, twice := place[word]; twice {
			return fmt.Errorf("%w: %s is in it twice", ErrList, word)
		}
		place[word] = i
	}
	before := -1
	for _, it := range w.acked {
		at, ok := place[it.word]
		if !ok {
			return fmt.Errorf("%w: %s was acknowledged at revision %d and is not in it", ErrList, it.word, it.rev)
		}
		if at < before {
			return fmt.Errorf("%w: %s, of revision %d, stands before one of a lower revision", ErrList, it.word, it.rev)
		}
		before = at
		delete(place, it.word)
	}
	for word := range place {
		if !w.unknown[word] {
			return fmt.Errorf("%w: nobody appended %s", ErrList, word)
		}
	}
	return nil
}

// sums judges every range over accounts, those of transactions too.
func sums(ops []check.Op) Verdict {
	v := Verdict{Name: "transfers: accounts sum up to zero in every read"}
	for _, op := range ops {
		for _, r := range readsOf(op) {
			if r.End == "" || !strings.Contains(r.Key, "/bank/") {
				continue
			}
			v.Judged++
			sum := 0
			for _, kv := range r.Result.KVs {
				sum += traffic.Number(kv.Value)
			}
			if sum != 0 {
				v.Err = fmt.Errorf("%w but to %d: %+v", ErrSum, sum, *r.Result)
			}
		}
	}
	return v
}
