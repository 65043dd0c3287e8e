package line

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
)

// Home gives out a line's numbers beside the leader of its home segment. Its
// methods are called by one goroutine at a time; what follows from them is
// gathered by Take.
//
//	0 ------ given ------ window ------ extending
//	 given out |  to give   |  proposed, perhaps lost
//
// given never passes window, and window is what this replica has applied. The
// first thing a new leader knows is given = window: whatever its predecessor gave
// is at or below.
type Home struct {
	cfg  Config
	seat Seat // Term 0: leads nowhere
	keys anchormesh.KeyRange

	window, given anchormesh.Revision
	base          anchormesh.Revision // given at the start of the term
	extending     anchormesh.Revision // the proposal under way; 0 none
	lacking       int                 // the most that Own was refused since the last window

	round      uint64 // the last one started, over all terms
	gathering  []pending
	inRound    []pending
	starved    []pending // confirmed, but the window has not enough; first come, first served
	spots      spots
	ownRefused bool
	out        HomeEffects
}

// pending is a request on its way to its answer.
type pending struct {
	token uint64
	req   Request
	ans   Answer // T and the spreads, from the end of its round on
}

// HomeEffects is what the caller does after its calls. The slices are the
// caller's.
type HomeEffects struct {
	// Round is a round to start; 0 none. One is under way at a time.
	Round uint64
	// Window is what to propose in the home's log as the new W; 0 nothing. One is
	// under way at a time; WindowFailed says that it took effect nowhere.
	Window anchormesh.Revision
	// Answers end requests.
	Answers []Answer
	// Own: Own was refused for lack of numbers and would be granted now.
	Own bool
}

// Lead is where and from where on a home leads.
type Lead struct {
	Seat   Seat
	Range  anchormesh.KeyRange
	Window anchormesh.Revision // W, as applied
	Last   anchormesh.Revision // the segment's last revision, as applied
}

// NewHome returns a core that does not lead. The configuration is taken as valid.
func NewHome(cfg Config) *Home { return &Home{cfg: cfg} }

// Lead starts a term: this replica leads and has applied an entry of it.
func (h *Home) Lead(l Lead) {
	h.refuseAll(ErrNotLeader)
	h.seat, h.keys = l.Seat, l.Range
	h.window = max(l.Window, l.Last)
	h.given, h.base = h.window, h.window
	h.extending, h.lacking, h.ownRefused = 0, 0, false
	h.spots.reset(h.given, h.cfg.SpotsMax)
}

// Deposed ends it. Everything under way is refused.
func (h *Home) Deposed() {
	h.refuseAll(ErrNotLeader)
	h.seat = Seat{}
}

// Structure says that a split or a merge of the home was applied, by an entry of
// term: it is of another generation and range, its window is the one in force
// behind that entry. What was given out stays given out. Everything under way is
// refused.
func (h *Home) Structure(term uint64, generation anchormesh.Generation, keys anchormesh.KeyRange, window anchormesh.Revision) {
	if !h.inTerm(term) {
		return
	}
	window = max(window, h.base)
	if window < h.window {
		invariant.Broken("window of line %d falls from %d to %d", h.seat.Line, h.window, window)
	}
	h.refuseAll(ErrGeneration)
	h.seat.Generation, h.keys, h.window = generation, keys, window
	h.extending = 0 // a proposal that names the old generation is a no-op, or applied already
}

// inTerm reports whether an entry of term, applied just now, is this leader's. One of
// another term is of a later one: then this leader was replaced and does not know it
// yet, and the window that the entry brought is its successor's to give from.
func (h *Home) inTerm(term uint64) bool {
	if h.seat.Term != 0 && h.seat.Term != term {
		h.Deposed()
	}
	return h.seat.Term != 0
}

// Windowed says that an entry of term was applied after which W is window.
func (h *Home) Windowed(term uint64, window anchormesh.Revision) {
	if !h.inTerm(term) || window <= h.window {
		return
	}
	h.window, h.lacking = window, 0
	if window >= h.extending {
		h.extending = 0
	}
	h.feed()
	h.out.Own = h.ownRefused
	h.ownRefused = false
}

// WindowFailed says that the extension under way took effect nowhere.
func (h *Home) WindowFailed() { h.extending = 0 }

// Request takes what a node wants. It is answered in the effects, in any order,
// exactly once.
func (h *Home) Request(token uint64, req Request) {
	if err := h.admit(req); err != nil {
		h.out.Answers = append(h.out.Answers, Answer{Token: token, Err: err})
		return
	}
	h.gathering = append(h.gathering, pending{token: token, req: req})
}

func (h *Home) admit(req Request) error {
	switch {
	case h.seat.Term == 0:
		return ErrNotLeader
	case req.Line != h.seat.Line:
		return ErrLine
	case req.Segment != h.seat.Segment || req.Generation != h.seat.Generation:
		return ErrGeneration
	case len(h.gathering)+len(h.inRound)+len(h.starved) >= h.cfg.RequestsMax:
		return ErrOverloaded
	}
	for i := range req.Asks {
		if n := req.Asks[i].Count; n < 1 || n > h.cfg.CountMax || req.Asks[i].Segment == 0 && n != 1 {
			return ErrOverloaded
		}
	}
	return nil
}

// Own gives the home's own leader numbers at once. That needs no round: the entries
// that carry them commit only if the leader was not replaced before they came, for
// they go into this very log. ErrWindow asks to come again after Effects.Own.
func (h *Home) Own(a Ask) (Grant, error) {
	switch {
	case h.seat.Term == 0 || a.Term != h.seat.Term:
		return Grant{}, ErrNotLeader
	case a.Segment != h.seat.Segment || a.Generation != h.seat.Generation:
		return Grant{}, ErrGeneration
	case a.Count < 1 || a.Count > h.cfg.CountMax:
		return Grant{}, ErrOverloaded
	case h.window-h.given < anchormesh.Revision(a.Count):
		h.lacking = max(h.lacking, a.Count)
		h.ownRefused = true
		return Grant{}, ErrWindow
	}
	a.Range = h.keys
	return h.grant(&a), nil
}

// lift counts the numbers up to to as given, to nobody in particular.
func (h *Home) lift(to anchormesh.Revision) { h.given = max(h.given, to) }

// RoundDone ends a round: its index is applied, and this replica led in term when
// the round was confirmed (0: it did not).
func (h *Home) RoundDone(round, term uint64) {
	if round != h.round || len(h.inRound) == 0 {
		return // of an earlier seat
	}
	if term != h.seat.Term {
		h.Deposed()
		return
	}
	// T comes before all stamps: a lower T has less to wait for, and
	// spares the barriers the stamps of this very round. Who raises comes behind that.
	for i := range h.inRound {
		if p := &h.inRound[i]; p.raises() == 0 {
			h.tell(p)
		}
	}
	h.starved = append(h.starved, h.inRound...)
	clear(h.inRound)
	h.inRound = h.inRound[:0]
	h.feed()
}

// RoundFailed ends a round that nobody confirmed.
func (h *Home) RoundFailed(round uint64) {
	if round == h.round {
		h.inRound = h.refuse(h.inRound, ErrRound)
	}
}

// tell answers what a request asks of the line as it stands.
func (h *Home) tell(p *pending) {
	p.ans = Answer{Token: p.token, T: h.given}
	for _, number := range p.req.Since {
		p.ans.Spreads = append(p.ans.Spreads, h.spots.since(number, h.cfg.RangesMax))
	}
}

// feed answers the confirmed requests whose stamps the window holds, and that raise the
// line no further. One that asks for none waits for nobody.
func (h *Home) feed() {
	kept, full := h.starved[:0], false
	for i := range h.starved {
		p := h.starved[i]
		if to := p.raises(); to > 0 {
			if h.window < to {
				kept = append(kept, p)
				continue
			}
			claimed := p.req.Claim > h.given
			h.lift(to)
			h.tell(&p)
			p.ans.Claimed = claimed
			p.req.Raise, p.req.Claim = 0, 0
		}
		if n := p.count(); n > 0 {
			full = full || h.window-h.given < n
			if full {
				kept = append(kept, p)
				continue
			}
			p.ans.Grants = make([]Grant, len(p.req.Asks))
			for j := range p.req.Asks {
				p.ans.Grants[j] = h.grant(&p.req.Asks[j])
			}
		}
		h.out.Answers = append(h.out.Answers, p.ans)
	}
	clear(h.starved[len(kept):])
	h.starved = kept
}

// raises is what the line is lifted to for a request, or zero.
func (p *pending) raises() anchormesh.Revision { return max(p.req.Raise, p.req.Claim) }

func (p *pending) count() anchormesh.Revision {
	n := 0
	for i := range p.req.Asks {
		n += p.req.Asks[i].Count
	}
	return anchormesh.Revision(n)
}

// grant gives an ask its numbers and remembers where they go. A bare number goes
// nowhere: what is committed at it was prepared below it, and the prepared stamp
// holds every barrier at or above itself until then.
func (h *Home) grant(a *Ask) Grant {
	first := h.draw(a.Count)
	if a.Segment != 0 {
		h.spots.note(a.Segment, a.Generation, a.Range, h.given)
	}
	return Grant{Segment: a.Segment, Generation: a.Generation, Term: a.Term, Seq: a.Seq, First: first, Count: a.Count}
}

// draw takes the next n numbers, which the window holds. This is the one place
// where the line counts. A dated line counts here too: it begins at
// max(given+1, now in microseconds since genesis), with now as an argument.
func (h *Home) draw(n int) (first anchormesh.Revision) {
	first = h.given + 1
	h.given += anchormesh.Revision(n)
	if h.given > h.window {
		invariant.Broken("line %d gave out %d, its window ends at %d", h.seat.Line, h.given, h.window)
	}
	return first
}

// Take returns what is to be done since the last call.
func (h *Home) Take() HomeEffects {
	if h.seat.Term != 0 {
		h.startRound()
		h.extend()
	}
	out := h.out
	h.out = HomeEffects{}
	return out
}

// startRound begins a round for all that has gathered, if none is under way.
func (h *Home) startRound() {
	if len(h.inRound) > 0 || len(h.gathering) == 0 {
		return
	}
	h.inRound, h.gathering = h.gathering, h.inRound
	h.round++
	h.out.Round = h.round
}

// extend proposes a larger window when less than half of it is left, or when
// somebody waits for more.
func (h *Home) extend() {
	if h.extending != 0 {
		return
	}
	need := h.given + anchormesh.Revision(h.lacking)
	for i := range h.starved {
		need = max(need, h.starved[i].raises())
	}
	for i := range h.starved {
		need += h.starved[i].count()
	}
	if need <= h.window && h.window-need >= h.cfg.Window/2 {
		return
	}
	h.extending = need + h.cfg.Window
	h.out.Window = h.extending
}

// refuseAll ends everything that waits.
func (h *Home) refuseAll(err error) {
	h.gathering = h.refuse(h.gathering, err)
	h.inRound = h.refuse(h.inRound, err)
	h.starved = h.refuse(h.starved, err)
	h.lacking, h.ownRefused, h.out.Own = 0, false, false
}

func (h *Home) refuse(all []pending, err error) []pending {
	for i := range all {
		h.out.Answers = append(h.out.Answers, Answer{Token: all[i].token, Err: err})
	}
	clear(all)
	return all[:0]
}
