package verify

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
)

// Verdict is what one checker says.
type Verdict struct {
	Name   string
	Judged int // operations, events, watches, whatever the checker is about
	Err    error
}

// Bounds says how exact the judgement can be.
type Bounds struct {
	Lease check.LeaseBounds
	Until time.Duration // end of the run, on the history's clock
	Limit time.Duration // for the search in one register's history
}

// All judges a log with every checker. No checker stops another.
func All(log *traffic.Log, b Bounds) []Verdict {
	h := &log.History
	h.Leases, h.Watches = expiries(h), known(h)
	lists, counters, transfers := finals(h.Ops)
	return []Verdict{
		{"explained: no event comes from nowhere or twice", len(h.Events), check.Explained(h.Ops, h.Events)},
		verdict("acknowledged: no write is lost or other than answered", h, acknowledged),
		verdict("real-time: revisions keep to the order of time", h, realTime),
		verdict("transactions: compares held at the answered revision", h, transactions),
		verdict("reads: each shows one revision's keys", h, reads),
		registersVerdict(h.Ops, b.Limit),
		lists, counters, transfers,
		{"watches: ordered, unique, reliable, atomic, resumable, bookmarkable", len(h.Watches), check.Watches(h.Watches, h.Events)},
		{"leases: kept while promised, ended afterwards", len(h.Leases), check.Leases(h.Leases, b.Until, b.Lease)},
		verdict("revokes: keys of a revoked lease are gone", h, revokes),
	}
}

func verdict(name string, h *check.History, judge func(*check.History) (int, error)) Verdict {
	n, err := judge(h)
	return Verdict{name, n, err}
}

// expiries returns what happened to leases, in order of time, without ends of leases that their holder revoked, or
// tried to: a revoke may end a lease at any time, and promises nothing. The end of a lease whose only put never was
// done shows nowhere; that none is left is asked at the end.
func expiries(h *check.History) []check.Lease {
	revoked, empty := map[int64]bool{}, map[int64]bool{}
	for i := range h.Ops {
		empty[h.Ops[i].Lease] = h.Ops[i].Kind == check.Put && h.Ops[i].Result == nil
	}
	for i := range h.Events {
		empty[h.Events[i].KV.Lease] = false
	}
	for _, l := range h.Leases {
		if l.What == check.Revoke {
			revoked[l.ID] = true
		}
	}
	var out []check.Lease
	for _, l := range h.Leases {
		if !empty[l.ID] && (l.What != check.Expire || !revoked[l.ID]) {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b check.Lease) int { return cmp.Compare(a.At, b.At) })
	return out
}

// known returns the watches without what they showed after the last event: the run
// was over, and the events, which end with it, cannot tell whether it happened.
func known(h *check.History) []check.Watch {
	if len(h.Events) == 0 {
		return h.Watches
	}
	last := h.Events[len(h.Events)-1].Rev
	out := slices.Clone(h.Watches)
	for i := range out {
		responses := slices.Clone(out[i].Responses)
		for j := range responses {
			if n := len(responses[j].Events); n > 0 && responses[j].Events[n-1].Rev > last {
				responses[j].Events = slices.DeleteFunc(slices.Clone(responses[j].Events), func(e check.Event) bool { return e.Rev > last })
			}
		}
		out[i].Responses = responses
	}
	return out
}

// place is a key at a revision.
type place struct {
	key string
	rev int64
}

// timeline is the events, found by key.
type timeline struct {
	at   map[place]*check.Event
	keys map[string][]*check.Event // in order
}

func newTimeline(events []check.Event) *timeline {
	t := &timeline{at: make(map[place]*check.Event, len(events)), keys: map[string][]*check.Event{}}
	for i := range events {
		e := &events[i]
		t.at[place{e.KV.Key, e.Rev}] = e
		t.keys[e.KV.Key] = append(t.keys[e.KV.Key], e)
	}
	return t
}

// before returns the version of a key below a revision; nil: there was none.
func (t *timeline) before(key string, rev int64) *check.KV {
	list := t.keys[key]
	low, high := 0, len(list)
	for low < high {
		if mid := (low + high) / 2; list[mid].Rev < rev {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 || list[low-1].Delete {
		return nil
	}
	return &list[low-1].KV
}

// ErrStrange: a client was told what etcd does not tell it, or not then.
var ErrStrange = errors.New("an error that no client of etcd tries again after")

// Retryable reports errors that clients had no reason to expect.
func Retryable(log *traffic.Log) error {
	var out []error
	for _, text := range slices.Sorted(maps.Keys(log.Strange)) {
		out = append(out, fmt.Errorf("%w: %d times: %s", ErrStrange, log.Strange[text], text))
	}
	return errors.Join(out...)
}

// Problems returns what the verdicts found, joined; nil if nothing.
func Problems(verdicts []Verdict) error {
	var out []error
	for _, v := range verdicts {
		if v.Err != nil {
			out = append(out, fmt.Errorf("%s: %w", v.Name, v.Err))
		}
	}
	return errors.Join(out...)
}
