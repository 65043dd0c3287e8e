package line

import (
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anchormesh/anchormesh"
)

// forever is above every revision.
const forever anchormesh.Revision = math.MaxInt64

// bars are the barriers of one segment, a Holder's other half.
//
//	take --> patient --> gathering --> inRound --> settling --> passed
//	          |  as long as a  ^
//	          +--write is owed-+
//
// A barrier bars when it begins to gather: no stamp at or below it is put on a
// write any more. Bars are never lifted: a stamp that a bar refuses is always an
// old one, for stamps asked for after T are above it.
type bars struct {
	barred  anchormesh.Revision   // the largest T that bars
	settled anchormesh.Revision   // the largest T passed in this seat
	held    []anchormesh.Revision // prepared stamps, ascending

	// owed: a bar threw stamps away. The barriers that come next wait until their
	// writes got others, or else readers could starve writers for ever.
	owed    bool
	patient []patient

	round     uint64 // the last one started, over all terms
	gathering []Barrier
	inRound   []Barrier
	settling  []Barrier // confirmed, by T
}

type patient struct {
	Barrier
	until time.Time
}

// enter starts a seat in which no barrier waits.
func (b *bars) enter(held []anchormesh.Revision) {
	b.held = append(b.held[:0], held...)
	slices.Sort(b.held)
	b.settled, b.owed = 0, false
}

func (b *bars) len() int {
	return len(b.patient) + len(b.gathering) + len(b.inRound) + len(b.settling)
}

// take lets a barrier in, or lets it wait until then.
func (b *bars) take(barrier Barrier, until time.Time) {
	if b.owed {
		b.patient = append(b.patient, patient{barrier, until})
		return
	}
	b.begin(barrier)
}

// begin bars.
func (b *bars) begin(barrier Barrier) {
	b.barred = max(b.barred, barrier.T)
	b.gathering = append(b.gathering, barrier)
}

// stamped says that a grant came, and whether some of it was thrown away. If none
// was, nothing is owed any more.
func (b *bars) stamped(thrown bool) {
	b.owed = thrown
	if !thrown {
		b.admit(len(b.patient))
	}
}

// tick admits those who have waited long enough. What was owed to the writes they
// waited for is not owed any longer; the next stamp thrown away starts anew.
func (b *bars) tick(now time.Time) {
	n := 0
	for n < len(b.patient) && !now.Before(b.patient[n].until) {
		n++
	}
	if n > 0 {
		b.owed = false
		b.admit(len(b.patient))
	}
}

func (b *bars) admit(n int) {
	for i := range n {
		b.begin(b.patient[i].Barrier)
	}
	b.patient = slices.Delete(b.patient, 0, n)
}

func (b *bars) next() time.Time {
	if len(b.patient) == 0 {
		return time.Time{}
	}
	return b.patient[0].until
}

// startRound begins a round for all barriers that have gathered, if none is under
// way, and returns its number or 0.
func (b *bars) startRound() uint64 {
	if len(b.inRound) > 0 || len(b.gathering) == 0 {
		return 0
	}
	b.inRound, b.gathering = b.gathering, b.inRound
	b.round++
	return b.round
}

// confirmed moves the barriers of the round on.
func (b *bars) confirmed() {
	for _, barrier := range b.inRound {
		i := sort.Search(len(b.settling), func(i int) bool { return b.settling[i].T > barrier.T })
		b.settling = slices.Insert(b.settling, i, barrier)
	}
	b.inRound = b.inRound[:0]
}

// pass answers the confirmed barriers below all that is open: below the stamps on
// entries, the first of which is open, and below what is held.
func (b *bars) pass(out []Passed, open anchormesh.Revision) []Passed {
	if len(b.held) > 0 {
		open = min(open, b.held[0])
	}
	n := 0
	for n < len(b.settling) && b.settling[n].T < open {
		b.settled = max(b.settled, b.settling[n].T)
		out = append(out, Passed{Token: b.settling[n].Token})
		n++
	}
	b.settling = slices.Delete(b.settling, 0, n)
	return out
}

// fail ends every barrier.
func (b *bars) fail(out []Passed, err error) []Passed {
	b.admit(len(b.patient))
	for _, list := range []*[]Barrier{&b.gathering, &b.inRound, &b.settling} {
		out = refuse(out, *list, err)
		*list = (*list)[:0]
	}
	return out
}

func refuse(out []Passed, list []Barrier, err error) []Passed {
	for _, b := range list {
		out = append(out, Passed{Token: b.Token, Err: err})
	}
	return out
}
