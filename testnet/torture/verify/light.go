package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

var (
	// ErrForgotten: what a light scope acknowledged is gone, and no lineage says that it may be.
	ErrForgotten = errors.New("acknowledged writes are lost")
	// ErrWatched: a watch went on over a loss as if nothing were missing.
	ErrWatched = errors.New("a watch that showed what was lost was not cancelled")
)

// Light judges the contract of the class by what was read at the end: a light scope
// loses what it acknowledged only if a new generation is stated in the lineage, anew
// times, and then whoever was shown what is lost is cancelled before being shown more.
// lost reports whether anything is: the other promises are those of a whole history.
func Light(log *traffic.Log, anew int) (v Verdict, lost bool) {
	v = Verdict{Name: "light: nothing is lost but with a generation that says so"}
	gone := missing(log)
	for _, op := range log.Ops {
		if op.Result != nil && wroteKey(&op) {
			v.Judged++
		}
	}
	if len(gone) == 0 {
		return v, false
	}
	first := slices.SortedFunc(maps.Keys(gone), func(a, b place) int { return int(a.rev - b.rev) })[0]
	if anew == 0 {
		v.Err = fmt.Errorf("%w: %d, the first is %q at revision %d", ErrForgotten, len(gone), first.key, first.rev)
		return v, true
	}
	for i := range log.Watches {
		if err := cancelledAt(&log.Watches[i], gone); err != nil {
			v.Err = err
		}
	}
	return v, true
}

func wroteKey(op *check.Op) bool {
	return op.Kind == check.Put || op.Kind == check.Txn && op.Result.Succeeded && len(op.Then) > 0
}

// missing returns the newest versions that were shown and are not there at the end.
func missing(log *traffic.Log) map[place]bool {
	out := make(map[place]bool)
	last := lastReads(log.Ops)
	for key, list := range newTimeline(log.Events).keys {
		e := list[len(list)-1]
		res := last[traffic.Group(key)]
		if e.Delete || res == nil || res.Rev < e.Rev { // it may have come later
			continue
		}
		if !slices.ContainsFunc(res.KVs, func(kv check.KV) bool { return kv.Key == key && kv.Mod == e.Rev }) {
			out[place{key, e.Rev}] = true
		}
	}
	return out
}

// cancelledAt looks for events behind a lost one.
func cancelledAt(w *check.Watch, gone map[place]bool) error {
	shown := place{}
	for _, r := range w.Responses {
		if shown.key != "" && len(r.Events) > 0 && !slices.ContainsFunc(r.Events, func(e check.Event) bool { return gone[place{e.KV.Key, e.Rev}] }) {
			return fmt.Errorf("%w: of %q, which showed %q at revision %d and then revision %d", ErrWatched, w.Key, shown.key, shown.rev, r.Rev)
		}
		for _, e := range r.Events {
			if at := (place{e.KV.Key, e.Rev}); gone[at] {
				shown = at
			}
		}
	}
	return nil
}
