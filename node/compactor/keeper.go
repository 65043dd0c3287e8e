package compactor

import "time"

const (
	// keepInterval is how often the segments of scopes with a retention are looked at.
	keepInterval = 2 * time.Second
	// notesPer is how many notes are taken over what is kept: so much more than it is kept
	// at most, one part of notesPer.
	notesPer = 16
)

// Retention is what a scope's policy keeps of its history. Zero does not bound.
type Retention struct {
	Period time.Duration
	Writes int64 // newest ones, of each segment
}

// Position is where a segment stands.
type Position struct {
	Revision  int64 // of the newest write
	Compacted int64
	Writes    int64 // a count that grows with each write; whence does not matter
}

// Keeper decides for one segment of a scope that says what it keeps. It notes where the
// segment stood when, only if that changed: a segment to which nothing happens is
// compacted once more and then left alone.
type Keeper struct {
	keep  Retention
	notes []placed // oldest first
}

type placed struct {
	at time.Time
	Position
}

// NewKeeper returns a Keeper that has noted nothing yet.
func NewKeeper(r Retention) *Keeper { return &Keeper{keep: r} }

// Retention returns what it was made with.
func (k *Keeper) Retention() Retention { return k.keep }

// Step returns the revision to compact to, or zero. Writes are counted, and not told from
// revisions, which on a line of several segments leap.
func (k *Keeper) Step(now time.Time, at Position) int64 {
	k.note(now, at)
	last := -1
	for i, n := range k.notes {
		aged := k.keep.Period > 0 && now.Sub(n.at) >= k.keep.Period
		many := k.keep.Writes > 0 && at.Writes-n.Writes >= k.keep.Writes
		if aged || many {
			last = i
		}
	}
	if last < 0 {
		return 0
	}
	to := k.notes[last].Revision
	k.notes = k.notes[last:] // it stays, so that where the segment still stands is not noted anew
	if to <= at.Compacted || to <= 0 {
		return 0
	}
	return to
}

// note takes a note if the segment has moved far enough since the last one. A count that
// went back is that of another replica: everything begins anew.
func (k *Keeper) note(now time.Time, at Position) {
	if len(k.notes) > 0 {
		last := k.notes[len(k.notes)-1]
		if at.Writes < last.Writes || at.Revision < last.Revision {
			k.notes = nil
		} else if at.Revision == last.Revision || !k.far(now, at, last) {
			return
		}
	}
	k.notes = append(k.notes, placed{now, at})
}

func (k *Keeper) far(now time.Time, at Position, last placed) bool {
	return k.keep.Period > 0 && now.Sub(last.at) >= k.keep.Period/notesPer ||
		k.keep.Writes > 0 && at.Writes-last.Writes >= max(1, k.keep.Writes/notesPer)
}
