package entropy

import (
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Action is what should be done with a segment.
type Action uint8

const (
	// None: leave it as it is.
	None Action = iota
	// Split: cut it at Decision.At.
	Split
	// Cool: a split would not help; move leadership, or shed.
	Cool
	// Sleep: stop its messages until somebody asks.
	Sleep
	// Merge: join it to its neighbour, if that agrees.
	Merge
)

// String is the word used in tables and logs.
func (a Action) String() string {
	return [...]string{"none", "split", "cool", "sleep", "merge"}[a]
}

// Decision is what Decide says.
type Decision struct {
	Action  Action
	Reason  string // one sentence
	At      []byte // Split: the first key of the right child
	Numbers Numbers
}

// Birth is what a segment inherits, so that a change of its range is not the end
// of its memory.
type Birth struct {
	Cause     Action // Split or Merge if it came from one, else None
	Reversals uint8  // how often its forebears went back and forth
}

// Judge judges one segment. It is pure: what it knows comes from Decide and Did.
type Judge struct {
	config Config
	rng    anchormesh.KeyRange
	rates  rates
	sketch sketch

	last      Action    // last structural change
	changed   time.Time // when
	calm      time.Time // since then neither a change nor something forgotten
	reversals uint8
	pressed   time.Time // pressure has been high since; zero: it is not
	busy      time.Time // pressure was last above Low
	used      time.Time // an operation was last seen
	asleep    bool
	hot, edge bool // the last judgement under pressure was that
}

// New returns a Judge of a segment born at now; config must be valid.
func New(config Config, rng anchormesh.KeyRange, birth Birth, now time.Time) *Judge {
	return &Judge{
		config: config, rng: rng, last: birth.Cause, reversals: birth.Reversals,
		changed: now, calm: now, busy: now, used: now,
	}
}

// maxReversals bounds the back-off: MinAge << maxReversals.
const maxReversals = 6

// Did records that an action was carried out on the segment and it lives on (a
// merge's left side, a split's). The returned Birth is for segments made by it.
func (j *Judge) Did(now time.Time, a Action) Birth {
	switch a {
	case Sleep:
		j.asleep = true
	case Split, Merge:
		if j.last != None && j.last != a {
			j.reversals = min(j.reversals+1, maxReversals)
		}
		j.last, j.changed, j.calm = a, now, now
		j.pressed, j.busy, j.used = time.Time{}, now, now
	}
	return Birth{Cause: j.last, Reversals: j.reversals}
}

// Resize tells that the segment's range changed.
func (j *Judge) Resize(rng anchormesh.KeyRange) { j.rng, j.sketch = rng, sketch{} }

// Decide takes a window and judges.
func (j *Judge) Decide(now time.Time, w Window) Decision {
	j.rates.observe(j.config.Memory, &w)
	j.sketch.observe(j.config.Memory, w.Length, w.Samples)
	n := j.rates.numbers(&j.config.Thresholds)
	n.Spread = j.sketch.spread()
	_, n.HotKey = j.sketch.hot()
	n.Edge, _ = j.sketch.moving()
	j.remember(now, &w, n)
	return j.judge(now, w.Degraded, n)
}

// remember keeps since when what is so.
func (j *Judge) remember(now time.Time, w *Window, n Numbers) {
	if n.Pressure < 1000 {
		j.pressed = time.Time{}
	} else if j.pressed.IsZero() {
		j.pressed = now
	}
	if n.Pressure > j.config.Low {
		j.busy = now
	}
	if w.Totals.Writes+w.Totals.Reads > 0 {
		j.used, j.asleep = now, false
	}
	if now.Sub(j.calm) >= forgetAfter*j.rest() {
		j.calm = now
		if j.reversals > 0 {
			j.reversals--
		} else {
			j.last = None
		}
	}
}

// forgetAfter is how many rests without a change make one reversal forgotten.
const forgetAfter = 8

// rest is how long the segment is left alone after a change.
func (j *Judge) rest() time.Duration { return j.config.MinAge << j.reversals }

func (j *Judge) judge(now time.Time, degraded bool, n Numbers) Decision {
	say := func(a Action, format string, args ...any) Decision {
		return Decision{Action: a, Reason: fmt.Sprintf(format, args...), Numbers: n}
	}
	high := !j.pressed.IsZero() && now.Sub(j.pressed) >= j.config.SplitAfter
	low, unused := now.Sub(j.busy), now.Sub(j.used)
	young := j.rest() - now.Sub(j.changed)
	switch {
	case high && n.Load < 1000:
		return say(Cool, "%s is at %d ‰ of its threshold while the load is at %d ‰: a split divides load, not %s",
			n.Pressing, n.Pressure, n.Load, n.Pressing)
	case high:
		return j.relieve(degraded, young, n, say)
	case degraded:
		return say(None, "an anchor is missing or lags: nothing optional happens")
	case unused >= j.config.SleepAfter && !j.asleep:
		return say(Sleep, "no operation for %v", unused.Round(time.Second))
	case low >= j.config.MergeAfter && young > 0:
		return say(None, "dormant, but changed less than %v ago", j.rest())
	case low >= j.config.MergeAfter:
		return say(Merge, "pressure was at most %d ‰ for %v", j.config.Low, low.Round(time.Second))
	case !j.pressed.IsZero():
		return say(None, "%s has been at its threshold for %v of %v", n.Pressing, now.Sub(j.pressed).Round(time.Second), j.config.SplitAfter)
	}
	return say(None, "pressure is %d ‰", n.Pressure)
}

const (
	// hotKey is the share of one key, and edgeShare that of a moving edge, in
	// thousandths, from which on a split would leave the load on one side. Once
	// reached, half of it is enough: what is borderline must not flap.
	hotKey, edgeShare = 400, 800
)

// relieve judges a segment whose load is too high.
func (j *Judge) relieve(degraded bool, young time.Duration, n Numbers, say func(Action, string, ...any) Decision) Decision {
	key, _ := j.sketch.hot()
	_, edge := j.sketch.moving()
	stick := func(was *bool, value, limit uint64) bool {
		if *was {
			limit /= 2
		}
		*was = value >= limit
		return *was
	}
	at, left := j.sketch.splitKey(j.rng)
	switch {
	case j.sketch.total < enough:
		return say(None, "%s is at %d ‰ of its threshold, but too few keys were sampled", n.Pressing, n.Pressure)
	case stick(&j.hot, n.HotKey, hotKey):
		return say(Cool, "one key, %q, takes %d ‰ of the load", key, n.HotKey)
	case stick(&j.edge, n.Edge, edgeShare):
		return say(Cool, "%d ‰ of the load is new keys behind %q, a moving edge: a split would leave it on one side", n.Edge, edge)
	case n.Spread < j.config.Spread || at == nil:
		return say(Cool, "the load falls on few keys: spread is %d ‰, the busiest takes %d ‰", n.Spread, n.HotKey)
	case degraded:
		return say(None, "a split would help, but an anchor is missing or lags")
	case young > 0:
		return say(None, "a split would help, but the segment changed less than %v ago", j.rest())
	}
	n.Left = left
	d := say(Split, "%s has been at its threshold for %v, spread is %d ‰", n.Pressing, j.config.SplitAfter, n.Spread)
	d.At, d.Numbers = at, n
	return d
}
