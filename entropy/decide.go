package entropy

import (
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Decision is what Decide says.
type Decision struct {
	Action Action
	Cause  Cause
	Reason string // one sentence
	At     []byte // Split: the first key of the right child
	// Seek: what is kept is too much, and the next window should name the Marks
	// at which it may be cut.
	Seek      bool
	Reversals uint8 // as the segment's forebears left it, this action included
	Numbers   Numbers
}

// Evidence is the decision for the log.
func (d Decision) Evidence() Evidence {
	return Evidence{Action: d.Action, Cause: d.Cause, Reversals: d.Reversals, Numbers: d.Numbers}
}

// Birth is what a segment inherits, so that a change of its range or its leader
// is not the end of its memory.
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
	peaks  peaks

	last      Action    // last structural change
	changed   time.Time // when
	calm      time.Time // since then neither a change nor something forgotten
	reversals uint8
	pressed   time.Time // pressure has been high since; zero: it is not
	busy      time.Time // pressure was last above Low
	used      time.Time // an operation was last seen
	stuck     time.Time // no split has helped since; zero: one would, or none is needed
	asleep    bool
	hot, edge bool      // the last judgement under pressure was that
	shed      bool      // so was this
	marks     [][]byte  // last offered
	marked    time.Time // when
}

// New returns a Judge of a segment born at now, or led from now on; config must
// be valid.
func New(config Config, rng anchormesh.KeyRange, birth Birth, now time.Time) *Judge {
	return &Judge{
		config: config, rng: rng, last: birth.Cause, reversals: min(birth.Reversals, maxReversals),
		changed: now, calm: now, busy: now, used: now,
	}
}

const (
	// maxReversals bounds how often waits double before a merge, ...
	maxReversals = 6
	// ... and this before a split: load that is there must be carried soon.
	maxHaste = 3
)

// Did records that an action was carried out on the segment and it lives on (a
// merge's left side, a split's). The returned Birth is for segments made by it.
func (j *Judge) Did(now time.Time, a Action) Birth {
	switch a {
	case Sleep:
		j.asleep = true
	case Split, Merge:
		j.reversals = j.reversed(a)
		j.last, j.changed, j.calm = a, now, now
		j.pressed, j.stuck, j.busy, j.used = time.Time{}, time.Time{}, now, now
	}
	return Birth{Cause: j.last, Reversals: j.reversals}
}

// reversed is the number of reversals once a has been done.
func (j *Judge) reversed(a Action) uint8 {
	if j.last != None && j.last != a && (a == Split || a == Merge) {
		return min(j.reversals+1, maxReversals)
	}
	return j.reversals
}

// Resize tells that the segment's range changed. Load that fell outside is not
// the segment's any more.
func (j *Judge) Resize(rng anchormesh.KeyRange) {
	j.rng, j.marks = rng, nil
	j.rates.scale(j.sketch.clip(rng))
}

// Retune gives the judge other thresholds and times; what it measured stays.
func (j *Judge) Retune(c Config) { j.config = c }

// Decide takes a window and judges.
func (j *Judge) Decide(now time.Time, w Window) Decision {
	j.rates.observe(j.config.Memory, &w)
	j.sketch.observe(j.config.Memory, w.Length, w.Samples)
	n := j.rates.numbers(&j.config.Thresholds)
	n.Spread = j.sketch.spread()
	_, n.HotKey = j.sketch.hot()
	n.Edge, _ = j.sketch.moving()
	n.Peak = j.peaks.observe(now, j.config.MergeAfter, n.Pressure)
	full := n.weigh(&j.config.Thresholds, &w)
	j.remember(now, &w, n)
	c := &call{j: j, now: now, w: &w, n: n, full: full}
	d := c.judge()
	d.Reversals = j.reversed(d.Action)
	return d
}

// remember keeps since when what is so.
func (j *Judge) remember(now time.Time, w *Window, n Numbers) {
	if n.Pressure < 1000 {
		j.pressed, j.stuck, j.shed = time.Time{}, time.Time{}, false
	} else if j.pressed.IsZero() {
		j.pressed = now
	}
	if n.Pressure > j.config.Low {
		j.busy = now
	}
	if len(w.Marks) > 0 {
		j.marks, j.marked = w.Marks, now
	} else if n.Fill < 1000 || now.Sub(j.marked) >= marksAge*j.config.MinAge {
		j.marks = nil
	}
	if w.Totals.Writes+w.Totals.Reads > 0 {
		j.used, j.asleep = now, false
	}
	if now.Sub(j.calm) >= forgetAfter*j.patience() {
		j.calm = now
		if j.reversals > 0 {
			j.reversals--
		} else {
			j.last = None
		}
	}
}

// marksAge is how many MinAges marks are used: what is kept grows slowly, and to
// look for them costs a walk over it.
const marksAge = 5

// forgetAfter is how many times a merge's wait without a change make one reversal
// forgotten.
const forgetAfter = 4

// rest is how long the segment is left alone after a change.
func (j *Judge) rest() time.Duration { return j.config.MinAge << min(j.reversals, maxHaste) }

// patience is how long pressure must have been low for a merge.
func (j *Judge) patience() time.Duration { return j.config.MergeAfter << j.reversals }

// call is one judgement.
type call struct {
	j    *Judge
	now  time.Time
	w    *Window
	n    Numbers
	full Cause // which of size and keys is nearer to its threshold
}

func (c *call) say(a Action, cause Cause, format string, args ...any) Decision {
	return Decision{Action: a, Cause: cause, Reason: fmt.Sprintf(format, args...), Numbers: c.n}
}

// judge goes from the urgent to the idle.
func (c *call) judge() Decision {
	j, n := c.j, &c.n
	high := !j.pressed.IsZero() && c.now.Sub(j.pressed) >= j.config.SplitAfter
	var d Decision
	if high {
		d = c.relieve()
	}
	if n.Fill >= 1000 && d.Action != Split {
		if cut := c.cut(); cut.Action == Split || cut.Seek || !high {
			return cut
		}
	}
	if high {
		return d
	}
	return c.settle()
}

// settle judges a segment under no pressure.
func (c *call) settle() Decision {
	j, n := c.j, &c.n
	low, unused := c.now.Sub(j.busy), c.now.Sub(j.used)
	held, why := c.held()
	switch {
	case held:
		return c.say(None, n.Pressing, "%s: nothing optional happens", why)
	case low >= j.patience() && c.young() <= 0 && 2*n.Fill <= 1000:
		return c.say(Merge, ByRest, "dormant: pressure was at most %d ‰ for %v", j.config.Low, low.Round(time.Second))
	case unused >= j.config.SleepAfter && !j.asleep:
		return c.say(Sleep, ByRest, "no operation for %v", unused.Round(time.Second))
	case low >= j.patience() && 2*n.Fill > 1000:
		return c.say(None, c.full, "dormant, but it keeps %d ‰ of the most: merged it would be split again", n.Fill)
	case low >= j.patience():
		return c.say(None, ByRest, "dormant, but changed less than %v ago", j.rest())
	case !j.pressed.IsZero():
		return c.say(None, n.Pressing, "%s has been at its threshold for %v of %v", n.Pressing, c.now.Sub(j.pressed).Round(time.Second), j.config.SplitAfter)
	}
	return c.say(None, n.Pressing, "pressure is %d ‰", n.Pressure)
}

// young is how long the segment is still left alone.
func (c *call) young() time.Duration { return c.j.rest() - c.now.Sub(c.j.changed) }

// held says why nothing optional may begin.
func (c *call) held() (bool, string) {
	switch {
	case c.w.Degraded:
		return true, "an anchor is missing or lags"
	case c.w.Changing:
		return true, "a change is under way"
	}
	return false, ""
}

// cut judges a segment that keeps too much.
func (c *call) cut() Decision {
	held, why := c.held()
	switch {
	case held:
		return c.say(None, c.full, "it keeps %d ‰ of the most, but %s", c.n.Fill, why)
	case c.young() > 0:
		return c.say(None, c.full, "it keeps %d ‰ of the most, but changed less than %v ago", c.n.Fill, c.j.rest())
	case len(c.j.marks) == 0:
		d := c.say(None, c.full, "it keeps %d ‰ of the most: looking for its middle", c.n.Fill)
		d.Seek = true
		return d
	}
	at, left := parts(c.j.marks).splitKey(c.j.rng)
	if at == nil {
		return c.say(None, c.full, "it keeps %d ‰ of the most, but nearly all of it in one key", c.n.Fill)
	}
	c.n.Left = left
	d := c.say(Split, c.full, "it keeps %d bytes in %d keys, %d ‰ of the most", c.n.Size, c.n.Keys, c.n.Fill)
	d.At = at
	return d
}

const (
	// hotKey is the share of one key, and edgeShare that of a moving edge, in
	// thousandths, from which on a split would leave the load on one side. Once
	// reached, half of it is enough: what is borderline must not flap.
	hotKey, edgeShare = 400, 800
)

// stick is value >= limit, and half of it if it was so before.
func stick(was *bool, value, limit uint64) bool {
	if *was {
		limit /= 2
	}
	*was = value >= limit
	return *was
}

// relieve judges a segment whose pressure is too high.
func (c *call) relieve() Decision {
	j, n := c.j, &c.n
	if n.Load < 1000 {
		return c.cool(n.Pressing, "%s is at %d ‰ of its threshold while the load is at %d ‰: a split divides load, not %s",
			n.Pressing, n.Pressure, n.Load, n.Pressing)
	}
	key, _ := j.sketch.hot()
	_, edge := j.sketch.moving()
	at, left := j.sketch.splitKey(j.rng)
	held, why := c.held()
	switch {
	case j.sketch.total < j.config.Samples*unit:
		return c.say(None, n.Pressing, "%s is at %d ‰ of its threshold, but too few keys were sampled", n.Pressing, n.Pressure)
	case stick(&j.hot, n.HotKey, hotKey):
		return c.cool(ByHotKey, "one key, %q, takes %d ‰ of the load", key, n.HotKey)
	case stick(&j.edge, n.Edge, edgeShare):
		return c.cool(ByEdge, "%d ‰ of the load is new keys behind %q, a moving edge: a split would leave it on one side", n.Edge, edge)
	case n.Spread < j.config.Spread || at == nil:
		return c.cool(ByFew, "the load falls on few keys: spread is %d ‰, the busiest takes %d ‰", n.Spread, n.HotKey)
	}
	j.stuck = time.Time{}
	switch {
	case held:
		return c.say(None, n.Pressing, "a split would help, but %s", why)
	case c.young() > 0:
		return c.say(None, n.Pressing, "a split would help, but the segment changed less than %v ago", j.rest())
	case c.w.Alone:
		return c.say(None, n.Pressing, "a split would help if there were another node to lead a part")
	}
	n.Left = left
	d := c.say(Split, n.Pressing, "%s has been at its threshold for %v, spread is %d ‰", n.Pressing, j.config.SplitAfter, n.Spread)
	d.At = at
	return d
}

// cool says that no split helps: first to move leadership, and if that has not
// helped either while the pressure is far too high, to shed.
func (c *call) cool(cause Cause, format string, args ...any) Decision {
	j := c.j
	if j.stuck.IsZero() {
		j.stuck = c.now
	}
	if c.now.Sub(j.stuck) >= j.config.SplitAfter && stick(&j.shed, c.n.Pressure-1000, j.config.Shed-1000) {
		return c.say(Shed, cause, format, args...)
	}
	return c.say(Cool, cause, format, args...)
}
