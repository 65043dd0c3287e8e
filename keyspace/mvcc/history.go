package mvcc

import (
	"bytes"
	"fmt"

	"github.com/anchormesh/anchormesh"
)

// historyVisits bounds the records that one History call looks at, matching or not:
// some milliseconds.
const historyVisits = 1 << 16

// History lists the writes to keys of rng with main revisions from..to, both
// inclusive, in revision order; a to of zero or below, or above the current
// revision, is the current one. It stops at the end of a revision once maxBytes of
// events or a fixed number of visited records is reached, so it may return nothing
// and not be done. next is the revision to go on from: the call is done when next
// is above to. A from below the compacted revision is ErrCompacted. The events stay
// valid; their bytes must not be modified.
func (g *Segment) History(from, to int64, rng anchormesh.KeyRange, maxBytes int) (events []Event, next int64, err error) {
	v := g.Read()
	defer v.Close()
	switch {
	case v.gone:
		return nil, 0, ErrGone
	case from < v.compacted:
		return nil, 0, ErrCompacted
	}
	if to <= 0 || to > v.rev {
		to = v.rev
	}
	h := history{src: &v.src, from: max(from, 1), to: to, rng: rng.Intersect(v.rng), maxBytes: maxBytes}
	if from > to {
		return nil, from, nil
	}
	if singleKey(h.rng) && h.fromIndex(v) {
		return h.events, h.next(), nil
	}
	h.scan()
	return h.events, h.next(), nil
}

func singleKey(r anchormesh.KeyRange) bool {
	n := len(r.Start)
	return n > 0 && len(r.End) == n+1 && r.End[n] == 0 && bytes.Equal(r.End[:n], r.Start)
}

// history is one call of History.
type history struct {
	src      *source
	from, to int64
	rng      anchormesh.KeyRange
	maxBytes int

	events  []Event
	slab    slab
	bytes   int
	visited int
	last    int64 // main revision looked at last
	cut     int64 // where it stopped early, or zero
}

func (h *history) next() int64 {
	if h.cut != 0 {
		return h.cut
	}
	return h.to + 1
}

// stop reports whether the call ends before the record at main. It ends between
// revisions only: a transaction's events belong together.
func (h *history) stop(main int64) bool {
	if main != h.last && (h.bytes >= h.maxBytes || h.visited >= historyVisits) && h.visited > 0 {
		h.cut = main
		return true
	}
	h.last = main
	h.visited++
	return false
}

// indexHistoryMax is the most versions of one key that are gathered and sorted.
const indexHistoryMax = 4096

// fromIndex serves a single key from the index, which names its revisions: a watch
// of one key that fell far behind does not read everybody's writes. It reports
// false if there are too many.
func (h *history) fromIndex(v *View) bool {
	g := v.holder(h.rng.Start)
	changes, ok := g.index.Since(nil, h.rng.Start, h.rng.End, h.from, h.to, indexHistoryMax)
	g.mu.RUnlock()
	if !ok {
		return false
	}
	for _, c := range changes {
		if h.stop(c.Mod.Main) {
			break
		}
		if c.Tombstone() {
			h.addDelete([]byte(c.Key), c.Mod.Main, subOf(c.Mod.Sub))
			continue
		}
		raw, stable := h.src.fetch(c.Mod)
		h.addPut(raw, stable, c.Mod.Main, subOf(c.Mod.Sub))
	}
	return true
}

// scan walks everything in revision order, other segments' records included.
func (h *history) scan() {
	w := h.src.walk(h.from, h.to)
	for r, ok := w.next(); ok; r, ok = w.next() {
		if h.stop(r.main) {
			return
		}
		key, _, ok := parseKey(r.raw)
		switch {
		case !ok:
			panic(fmt.Sprintf("mvcc: segment %s: bad record at %d.%d", h.src.g.id, r.main, r.sub))
		case !h.rng.Contains(key):
		case r.tomb:
			h.addDelete(key, r.main, r.sub)
		default:
			h.addPut(r.raw, r.stable, r.main, r.sub)
		}
	}
}

func (h *history) addPut(raw []byte, stable bool, main, sub int64) {
	if !stable {
		raw = h.slab.clone(raw)
	}
	h.add(Event{KV: h.src.parse(raw), Main: main, Sub: sub})
}

func (h *history) addDelete(key []byte, main, sub int64) {
	raw, _ := appendKV(h.slab.room(sizeKV(key, nil)), key, nil, 0, main, 0, 0)
	h.add(Event{Delete: true, KV: h.src.parse(h.slab.take(raw)), Main: main, Sub: sub})
}

func (h *history) add(e Event) {
	h.events = append(h.events, e)
	h.bytes += len(e.KV.Raw)
}

// PrevKV is the version of key just before main revision main: what a watch calls
// the previous value. There is none if the key was not alive or a compaction took
// it. The KV stays valid.
func (g *Segment) PrevKV(key []byte, main int64) (KV, bool) {
	v := g.Read()
	defer v.Close()
	if v.gone || main-1 < v.compacted || main-1 < 1 {
		return KV{}, false
	}
	ver, ok := v.version(key, min(main-1, v.rev))
	if !ok {
		return KV{}, false
	}
	return v.src.own(ver.Mod), true
}
