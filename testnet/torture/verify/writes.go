package verify

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

var (
	// ErrLost: an acknowledged write is not among the events.
	ErrLost = errors.New("acknowledged write is lost")
	// ErrReplaced: an answer shows another previous version than there was.
	ErrReplaced = errors.New("answer shows a wrong previous version")
	// ErrRealTime: an answer is older than one that came before it was asked for.
	ErrRealTime = errors.New("answer is older than one that ended before it began")
	// ErrVerdict: a transaction took the wrong branch.
	ErrVerdict = errors.New("transaction took the wrong branch")
	// ErrRevoked: a key of a revoked lease was there after the answer.
	ErrRevoked = errors.New("key outlives its revoked lease")
)

// acknowledged looks up every answered write.
func acknowledged(h *check.History) (int, error) {
	t := newTimeline(h.Events)
	judged := 0
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Result == nil || op.Result.NoLease {
			continue
		}
		var puts []check.Request
		switch {
		case op.Kind == check.Put:
			puts = []check.Request{op.Request}
		case op.Kind == check.Txn && op.Result.Succeeded:
			puts = op.Then
		case op.Kind == check.Delete && op.Result.Count > 0:
			judged++
			if e := t.at[place{op.Key, op.Result.Rev}]; e == nil || !e.Delete {
				return judged, fmt.Errorf("%w: %s, at revision %d there is %+v", ErrLost, describe(op), op.Result.Rev, e)
			}
		}
		for _, put := range puts {
			judged++
			e := t.at[place{put.Key, op.Result.Rev}]
			if e == nil || e.Delete || e.KV.Value != put.Value {
				return judged, fmt.Errorf("%w: %s, at revision %d there is %+v", ErrLost, describe(op), op.Result.Rev, e)
			}
		}
		if op.Kind == check.Put && op.Prev {
			if err := replaced(t, op); err != nil {
				return judged, err
			}
		}
	}
	return judged, nil
}

func replaced(t *timeline, op *check.Op) error {
	var want []check.KV
	if kv := t.before(op.Key, op.Result.Rev); kv != nil {
		want = []check.KV{*kv}
	}
	if !slices.Equal(want, op.Result.KVs) {
		return fmt.Errorf("%w: %s answered %+v, it was %+v", ErrReplaced, describe(op), op.Result.KVs, want)
	}
	return nil
}

func describe(op *check.Op) string {
	return fmt.Sprintf("client %d from %v to %v: %+v", op.Client, time.Duration(op.Call), time.Duration(op.Return), op.Request)
}

// changes reports whether an answered operation took a revision of its own.
func changes(op *check.Op) bool {
	switch op.Kind {
	case check.Put:
		return true
	case check.Delete:
		return op.Result.Count > 0
	case check.Txn:
		return op.Result.Succeeded
	}
	return false
}

// realTime compares each answer's revision with the largest one that had been
// answered before it was asked for: reads are not below it, writes above it. With
// reads equal to the keys at their revision, this is strict serializability.
func realTime(h *check.History) (int, error) {
	var ops []*check.Op
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Result != nil && op.Result.Rev != 0 && !op.Serializable && op.Rev == 0 && op.Kind != check.Revoke {
			ops = append(ops, op)
		}
	}
	byCall := slices.SortedFunc(slices.Values(ops), func(a, b *check.Op) int { return cmp.Compare(a.Call, b.Call) })
	byReturn := slices.SortedFunc(slices.Values(ops), func(a, b *check.Op) int { return cmp.Compare(a.Return, b.Return) })
	var newest *check.Op
	done := 0
	for _, op := range byCall {
		for ; byReturn[done].Return < op.Call; done++ { // stops at the latest at op itself
			if newest == nil || byReturn[done].Result.Rev > newest.Result.Rev {
				newest = byReturn[done]
			}
		}
		if newest == nil {
			continue
		}
		if op.Result.Rev < newest.Result.Rev || changes(op) && op.Result.Rev == newest.Result.Rev {
			return len(ops), fmt.Errorf("%w: %s has revision %d, and before it %s had %d",
				ErrRealTime, describe(op), op.Result.Rev, describe(newest), newest.Result.Rev)
		}
	}
	return len(ops), nil
}

// transactions judges the branch that each took. A compare is of "mod" and "=".
func transactions(h *check.History) (int, error) {
	t := newTimeline(h.Events)
	judged := 0
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Kind != check.Txn || op.Result == nil {
			continue
		}
		judged++
		rev := op.Result.Rev // what it compared is below its own revision, if it took one
		if !changes(op) {
			rev++
		}
		holds := true
		for _, c := range op.If {
			mod := int64(0)
			if kv := t.before(c.Key, rev); kv != nil {
				mod = kv.Mod
			}
			holds = holds && mod == c.Int
		}
		if holds != op.Result.Succeeded {
			return judged, fmt.Errorf("%w: %s: at revision %d the compares are %v, the answer says %v", ErrVerdict, describe(op), rev, holds, op.Result.Succeeded)
		}
	}
	return judged, nil
}

// reads gives check.Reads one group of keys after the other, which saves it the
// others; a transaction's reads are reads at its revision.
func reads(h *check.History) (int, error) {
	ops := map[string][]check.Op{}
	events := map[string][]check.Event{}
	for _, e := range h.Events {
		g := traffic.Group(e.KV.Key)
		events[g] = append(events[g], e)
	}
	judged := 0
	for _, op := range h.Ops {
		for _, r := range readsOf(op) {
			g := traffic.Group(r.Key)
			ops[g] = append(ops[g], r)
			judged++
		}
	}
	for g := range ops {
		if err := check.Reads(ops[g], events[g]); err != nil {
			return judged, err
		}
	}
	return judged, nil
}

// readsOf returns an operation's answered ranges.
func readsOf(op check.Op) []check.Op {
	switch {
	case op.Result == nil:
		return nil
	case op.Kind == check.Range:
		return []check.Op{op}
	case op.Kind != check.Txn || op.Result.Succeeded || len(op.Result.Sub) != len(op.Else):
		return nil
	}
	var out []check.Op
	for i, r := range op.Else {
		if r.Kind == check.Range {
			out = append(out, check.Op{Client: op.Client, Line: op.Line, Request: r, Call: op.Call, Return: op.Return, Result: &op.Result.Sub[i]})
		}
	}
	return out
}

// revokes makes sure that nothing holds a lease after its revoke was answered.
func revokes(h *check.History) (int, error) {
	gone := map[int64]int64{} // lease to revision
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Kind == check.Revoke && op.Result != nil && !op.Result.NoLease {
			gone[op.Lease] = op.Result.Rev
		}
	}
	for _, list := range newTimeline(h.Events).keys {
		for i, e := range list {
			rev, revoked := gone[e.KV.Lease]
			if e.Delete || !revoked {
				continue
			}
			until := int64(math.MaxInt64)
			if i+1 < len(list) {
				until = list[i+1].Rev
			}
			if until > rev {
				return len(gone), fmt.Errorf("%w: %+v, the revoke was answered at revision %d", ErrRevoked, e.KV, rev)
			}
		}
	}
	return len(gone), nil
}
