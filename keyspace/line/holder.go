package line

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Holder puts stamps on the writes of one segment, beside its leader, and answers
// barriers. W is the caller's write. Its methods are called by one goroutine at a
// time; what follows from them is gathered by Take. Writes, asks and grants go
// through the Collector of the node.
//
//	Write --> waiting --Ask--> asked --Grant--> flying (on an entry) --Ended-->
//	             ^               |
//	             +--thrown away--+   a stamp at or below a bar; the write stays
type Holder[W any] struct {
	cfg  Config
	seat Seat // Term 0: leads nowhere
	keys anchormesh.KeyRange

	waiting fifo[W]
	seq     uint64 // of the last ask, over all terms
	asked   int    // the first so many of waiting are asked for by seq; 0: none is
	flying  flights
	used    anchormesh.Revision // the largest stamp put on a write

	bars bars
	out  HolderEffects[W]

	queued bool // in the Collector's list
}

// Stamped is a write with its revision.
type Stamped[W any] struct {
	Write W
	Stamp anchormesh.Revision
}

// HolderEffects is what the caller does after its calls. The slices are the
// caller's.
type HolderEffects[W any] struct {
	// Stamped are to be proposed at once, in this order, for Seat's generation and
	// in Seat's term or not at all.
	Stamped []Stamped[W]
	Seat    Seat
	// Back are writes that took effect nowhere, because of BackErr.
	Back    []W
	BackErr error
	// Passed ends barriers.
	Passed []Passed
	// Round is a round to start; 0 none. One is under way at a time.
	Round uint64
	// Next is when Tick would do something; zero: never.
	Next time.Time
}

// NewHolder returns a core that does not lead. The configuration is taken as valid.
func NewHolder[W any](cfg Config) *Holder[W] { return &Holder[W]{cfg: cfg} }

// Lead starts a term: this replica leads and has applied an entry of it. held are
// the stamps of the transactions prepared in the segment and not yet decided.
func (h *Holder[W]) Lead(seat Seat, keys anchormesh.KeyRange, held []anchormesh.Revision) {
	h.giveBack(ErrNotLeader)
	h.seat, h.keys = seat, keys
	h.bars.enter(held)
}

// Deposed ends it. What waits is given back; what is on entries is the log's.
func (h *Holder[W]) Deposed() {
	h.giveBack(ErrNotLeader)
	h.seat = Seat{}
}

// Structure says that an entry of term was applied behind which the segment is of
// another generation and range. What waits is given back, for it may belong elsewhere. What
// is on entries has been applied, or is a no-op, as it names the old generation.
func (h *Holder[W]) Structure(term uint64, generation anchormesh.Generation, keys anchormesh.KeyRange, held []anchormesh.Revision) {
	if h.seat.Term != term {
		h.Deposed() // a later leader's entry: this one was replaced and does not know it yet
		return
	}
	h.giveBack(ErrGeneration)
	h.seat.Generation, h.keys = generation, keys
	h.bars.enter(held)
}

// giveBack forgets all that waits and all that was asked for. Stamps that nobody
// has taken are on no entry: their writes go back, too.
func (h *Holder[W]) giveBack(err error) {
	for _, s := range h.out.Stamped {
		h.out.Back = append(h.out.Back, s.Write)
	}
	h.out.Stamped = nil
	for h.waiting.len() > 0 {
		h.out.Back = append(h.out.Back, h.waiting.pop())
	}
	h.out.BackErr = err
	h.asked = 0
	h.flying = flights{}
	h.out.Passed = h.bars.fail(h.out.Passed, err)
}

// write takes a write that is ready to be proposed.
func (h *Holder[W]) write(w W) error {
	switch {
	case h.seat.Term == 0:
		return ErrNotLeader
	case h.waiting.len()+h.flying.len() >= h.cfg.WritesMax:
		return ErrOverloaded
	}
	h.waiting.push(w)
	return nil
}

// wants reports whether writes wait and no ask is under way.
func (h *Holder[W]) wants() bool {
	return h.asked == 0 && h.waiting.len() > 0
}

// ask asks for all writes that wait.
func (h *Holder[W]) ask() Ask {
	h.asked = min(h.waiting.len(), h.cfg.CountMax)
	h.seq++
	return Ask{Segment: h.seat.Segment, Generation: h.seat.Generation, Term: h.seat.Term, Seq: h.seq, Range: h.keys, Count: h.asked}
}

// unask says that no answer will come, or none that is wanted.
func (h *Holder[W]) unask(seq uint64) {
	if seq == h.seq {
		h.asked = 0
	}
}

// grant puts stamps on the writes they were asked for. Those of another seat or
// ask are thrown away, and so are those at or below a bar: their writes ask again.
func (h *Holder[W]) grant(g Grant) {
	if g.Segment != h.seat.Segment || g.Generation != h.seat.Generation || g.Term != h.seat.Term || g.Seq != h.seq || h.asked == 0 {
		return
	}
	count := min(g.Count, h.asked)
	h.asked = 0
	first := max(g.First, h.bars.barred+1, h.used+1)
	h.out.Stamped = slices.Grow(h.out.Stamped, count)
	for stamp := first; stamp < g.First+anchormesh.Revision(count); stamp++ {
		h.out.Stamped = append(h.out.Stamped, Stamped[W]{Write: h.waiting.pop(), Stamp: stamp})
		h.flying.push(flight{stamp: stamp})
		h.used = stamp
	}
	h.bars.stamped(first > g.First)
}

// Ended says that an entry's stamp has been applied, or certainly never will be.
func (h *Holder[W]) Ended(stamp anchormesh.Revision) {
	if h.flying.end(stamp) {
		h.settle()
	}
}

// Hold says that a transaction prepared at stamp was applied; Ended of it comes
// afterwards. Until Release, barriers at or above it wait.
func (h *Holder[W]) Hold(stamp anchormesh.Revision) {
	i, _ := slices.BinarySearch(h.bars.held, stamp)
	h.bars.held = slices.Insert(h.bars.held, i, stamp)
}

// Release says that the transaction's decision was applied here.
func (h *Holder[W]) Release(stamp anchormesh.Revision) {
	if i, ok := slices.BinarySearch(h.bars.held, stamp); ok {
		h.bars.held = slices.Delete(h.bars.held, i, i+1)
		h.settle()
	}
}

// settle lets the barriers pass that nothing stands in the way of.
func (h *Holder[W]) settle() {
	if h.flying.len() == 0 {
		h.out.Passed = h.bars.pass(h.out.Passed, forever)
		return
	}
	h.out.Passed = h.bars.pass(h.out.Passed, h.flying.at(0).stamp)
}

// Barrier takes a barrier. It is answered in the effects exactly once.
func (h *Holder[W]) Barrier(now time.Time, b Barrier) {
	var err error
	switch {
	case h.seat.Term == 0:
		err = ErrNotLeader
	case b.Line != h.seat.Line:
		err = ErrLine
	case b.Segment != h.seat.Segment || b.Generation != h.seat.Generation:
		err = ErrGeneration
	case b.T <= h.bars.settled:
		// Answered before, for good: no round can say more.
	case h.bars.len() >= h.cfg.BarriersMax:
		err = ErrOverloaded
	default:
		h.bars.take(b, now.Add(h.cfg.Patience))
		return
	}
	h.out.Passed = append(h.out.Passed, Passed{Token: b.Token, Err: err})
}

// RoundDone ends a round: its index is applied, and this replica led in term when
// the round was confirmed (0: it did not).
func (h *Holder[W]) RoundDone(round, term uint64) {
	switch {
	case round != h.bars.round || len(h.bars.inRound) == 0: // of an earlier seat
	case term != h.seat.Term:
		h.Deposed()
	default:
		h.bars.confirmed()
		h.settle()
	}
}

// RoundFailed ends a round that nobody confirmed. The bars stay: they cost
// stamps, never an answer.
func (h *Holder[W]) RoundFailed(round uint64) {
	if round == h.bars.round {
		h.out.Passed = refuse(h.out.Passed, h.bars.inRound, ErrRound)
		h.bars.inRound = h.bars.inRound[:0]
	}
}

// Tick lets the barriers go on whose patience has ended.
func (h *Holder[W]) Tick(now time.Time) { h.bars.tick(now) }

// Seat returns where the core leads; Term 0 if nowhere.
func (h *Holder[W]) Seat() Seat { return h.seat }

// Take returns what is to be done since the last call.
func (h *Holder[W]) Take() HolderEffects[W] {
	out := h.out
	out.Seat, out.Round, out.Next = h.seat, h.bars.startRound(), h.bars.next()
	h.out = HolderEffects[W]{}
	return out
}
