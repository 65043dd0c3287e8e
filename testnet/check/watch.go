package check

import (
	"errors"
	"fmt"
)

// One sentinel for each guarantee that etcd documents for watches.
var (
	// ErrOrdered: events do not come in the order of their revisions.
	ErrOrdered = errors.New("watch guarantee Ordered is broken")
	// ErrUnique: an event comes twice.
	ErrUnique = errors.New("watch guarantee Unique is broken")
	// ErrReliable: an event between two others, or below a bookmark, is left out.
	ErrReliable = errors.New("watch guarantee Reliable is broken")
	// ErrAtomic: a revision is spread over several responses.
	ErrAtomic = errors.New("watch guarantee Atomic is broken")
	// ErrResumable: a watch from a revision lacks the first event from there on.
	ErrResumable = errors.New("watch guarantee Resumable is broken")
	// ErrBookmarkable: an event comes at or below a revision that was announced as
	// passed.
	ErrBookmarkable = errors.New("watch guarantee Bookmarkable is broken")
	// ErrPrevKV: the previous version is not what was there.
	ErrPrevKV = errors.New("watch guarantee PrevKV is broken")
	// ErrIsCreate: an event that creates a key does not say so, or the reverse.
	ErrIsCreate = errors.New("watch guarantee IsCreate is broken")
	// ErrFilter: an event outside of what was asked for.
	ErrFilter = errors.New("watch guarantee Filter is broken")
	// ErrFalseEvent: an event that never happened, or not so.
	ErrFalseEvent = errors.New("watch shows what did not happen")
	// ErrProtocol: responses before the first or behind the last one.
	ErrProtocol = errors.New("watch breaks the order of its responses")
)

// Watches judges every watch against the events of its line.
func Watches(watches []Watch, events []Event) error {
	lines, err := truths(events)
	if err != nil {
		return err
	}
	for i := range watches {
		w := &watches[i]
		t := lines[w.Line]
		if t == nil {
			t = &truth{}
		}
		if err := judge(w, t); err != nil {
			return fmt.Errorf("watch of [%q, %q) on line %q from revision %d: %w", w.Key, w.End, w.Line, w.Start, err)
		}
	}
	return nil
}

// wants reports whether the watch asked for an event.
func (w *Watch) wants(e *Event) bool {
	return within(e.KV.Key, w.Key, w.End) && !(e.Delete && w.NoDelete) && !(!e.Delete && w.NoPut)
}

// reader follows one watch.
type reader struct {
	w        *Watch
	t        *truth
	start    int64
	bookmark int64
	last     *Event
	got      []Event
	created  bool
	over     bool
	compact  int64
}

func judge(w *Watch, t *truth) error {
	r := &reader{w: w, t: t, start: w.Start}
	for i := range w.Responses {
		if err := r.take(&w.Responses[i]); err != nil {
			return err
		}
	}
	return r.complete()
}

func (r *reader) take(resp *Response) error {
	switch {
	case r.over:
		return fmt.Errorf("%w: %+v behind the last one", ErrProtocol, *resp)
	case resp.Created == r.created:
		return fmt.Errorf("%w: Created %v, and was created %v", ErrProtocol, resp.Created, r.created)
	case resp.Created:
		r.created = true
		if r.start == 0 {
			r.start = resp.Rev + 1
		}
		return nil
	case resp.Canceled:
		r.over, r.compact = true, resp.Compact
		return nil
	case resp.Progress:
		return r.mark(resp.Rev)
	}
	before := int64(0)
	if r.last != nil {
		before = r.last.Rev
	}
	for i := range resp.Events {
		e := &resp.Events[i]
		if i == 0 && e.Rev == before {
			if e.KV.Key == r.last.KV.Key {
				return fmt.Errorf("%w: %+v", ErrUnique, e.KV)
			}
			return fmt.Errorf("%w: revision %d in two responses", ErrAtomic, e.Rev)
		}
		if err := r.event(e); err != nil {
			return err
		}
		r.last = e
		r.got = append(r.got, *e)
	}
	return nil
}

func (r *reader) mark(rev int64) error {
	if rev < r.bookmark || r.last != nil && rev < r.last.Rev {
		return fmt.Errorf("%w: progress at %d behind %d", ErrBookmarkable, rev, max(r.bookmark, r.lastRev()))
	}
	r.bookmark = rev
	return nil
}

func (r *reader) lastRev() int64 {
	if r.last == nil {
		return 0
	}
	return r.last.Rev
}

// event judges one event by itself and against those before it.
func (r *reader) event(e *Event) error {
	for i := range r.got {
		if r.got[len(r.got)-1-i].Rev < e.Rev {
			break
		}
		if old := r.got[len(r.got)-1-i]; old.Rev == e.Rev && old.KV.Key == e.KV.Key {
			return fmt.Errorf("%w: %+v", ErrUnique, e.KV)
		}
	}
	switch {
	case r.last != nil && e.Rev < r.last.Rev:
		return fmt.Errorf("%w: %d behind %d", ErrOrdered, e.Rev, r.last.Rev)
	case e.Rev <= r.bookmark:
		return fmt.Errorf("%w: event at %d after progress at %d", ErrBookmarkable, e.Rev, r.bookmark)
	case !r.w.wants(e) || e.Rev < r.start:
		return fmt.Errorf("%w: %+v", ErrFilter, *e)
	}
	return r.true(e)
}

// true compares an event with what happened.
func (r *reader) true(e *Event) error {
	prev := r.t.before(e.KV.Key, e.Rev)
	if !e.Delete && (e.KV.Create == e.KV.Mod) != (prev == nil) {
		return fmt.Errorf("%w: %+v, and before it %+v", ErrIsCreate, e.KV, prev)
	}
	for _, real := range r.t.keys[e.KV.Key] {
		if real.Rev != e.Rev {
			continue
		}
		if real.Delete != e.Delete || real.KV != e.KV {
			return fmt.Errorf("%w: %+v, it was %+v", ErrFalseEvent, e.KV, real.KV)
		}
		// A previous version may be missing: compaction takes it.
		if e.Prev != nil && (!r.w.Prev || prev == nil || *prev != *e.Prev) {
			return fmt.Errorf("%w: %+v, it was %+v", ErrPrevKV, *e.Prev, prev)
		}
		return nil
	}
	return fmt.Errorf("%w: %+v", ErrFalseEvent, e.KV)
}

// complete looks for what was left out.
func (r *reader) complete() error {
	known := max(r.bookmark, r.lastRev())
	if !r.over {
		known = max(known, r.w.Through)
	}
	i := 0
	for j := range r.t.events {
		e := &r.t.events[j]
		switch {
		case e.Rev < r.start || !r.w.wants(e):
			continue
		case e.Rev > known:
			return nil
		case i < len(r.got) && r.got[i].Rev == e.Rev && r.got[i].KV.Key == e.KV.Key:
			i++
			continue
		case i == 0:
			return fmt.Errorf("%w: %+v at revision %d is missing", ErrResumable, e.KV, e.Rev)
		}
		return fmt.Errorf("%w: %+v at revision %d is missing", ErrReliable, e.KV, e.Rev)
	}
	return nil
}
