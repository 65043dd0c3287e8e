package commit

import "errors"

type phase uint8

const (
	locking   phase = iota + 1
	preparing       // some participants may be prepared
	numbering       // all are
	deciding        // the commit may be decided: the outcome is no longer ours
	asking          // the decision's answer was lost: what stands there?
	finishing
	ended
)

// errUnknown is the Err of an unknown outcome.
var errUnknown = errors.New("commit: the decision's answer was lost")

// Coordinator drives one attempt at a transaction, on any node. It is the only one
// who may ever write Commit, once; everybody may write Abort.
type Coordinator struct {
	id       TxnID
	division *Division
	ordered  bool
	phase    phase
	parts    []part
	plan     *Plan
	answered bool
	finish   finisher
}

// part is what is known of one participant.
type part struct {
	granted, prepared bool
	grant             Grant
	stamp             int64
	values            []Got
}

// NewCoordinator returns the core for one attempt. ordered is false for the first
// one, which locks everywhere at once, and true for those after a conflict: these
// lock in the order of keys, so that two of them do not refuse each other for ever.
func NewCoordinator(id TxnID, d *Division, ordered bool) *Coordinator {
	return &Coordinator{id: id, division: d, ordered: ordered, parts: make([]part, len(d.Parts))}
}

// Ended reports whether nothing is left to do.
func (c *Coordinator) Ended() bool { return c.phase == ended }

// Start returns the first effects.
func (c *Coordinator) Start() []Effect {
	c.phase = locking
	var out []Effect
	for i := range c.parts {
		if i == 0 || !c.ordered {
			out = append(out, c.acquire(i))
		}
	}
	return out
}

func (c *Coordinator) acquire(i int) Effect {
	p := &c.division.Parts[i]
	return Acquire{Part: i, Key: p.Key(), Locks: p.Locks, Reads: p.Reads}
}

// Step takes in one event. What comes too late for its phase is ignored.
func (c *Coordinator) Step(e Event) []Effect {
	switch c.phase {
	case locking:
		return c.stepLocking(e)
	case preparing:
		return c.stepPreparing(e)
	case numbering:
		return c.stepNumbering(e)
	case deciding:
		return c.stepDeciding(e)
	case asking:
		return c.stepAsking(e)
	case finishing:
		out, done := c.finish.step(e)
		if done {
			c.phase = ended
		}
		return out
	}
	return nil
}

func (c *Coordinator) stepLocking(e Event) []Effect {
	switch e := e.(type) {
	case Acquired:
		p := &c.parts[e.Part]
		if p.granted {
			return nil
		}
		p.granted, p.grant, p.values = true, e.Grant, e.Values
		if e.Part+1 < len(c.parts) && c.ordered {
			return []Effect{c.acquire(e.Part + 1)}
		}
		return c.maybePrepare()
	case Failed:
		return c.unlock(e.Err, e.Final)
	case Lost:
		return c.unlock(errUnknown, false)
	case GiveUp:
		return c.unlock(e.Err, true)
	}
	return nil
}

// maybePrepare evaluates the transaction once everything is locked and read.
func (c *Coordinator) maybePrepare() []Effect {
	read := make([][]Got, len(c.parts))
	for i := range c.parts {
		if !c.parts[i].granted {
			return nil
		}
		read[i] = c.parts[i].values
	}
	plan, err := c.division.Join(read)
	if err != nil {
		return c.unlock(err, true)
	}
	c.plan, c.phase = plan, preparing
	var out []Effect
	for i := range c.parts {
		p := &c.division.Parts[i]
		out = append(out, PrepareAt{Part: i, Key: p.Key(), Command: &Prepare{
			Txn: c.id, Grant: c.parts[i].grant, Decision: c.division.Decision, Spans: c.division.Spans,
			Locks: p.Locks, Writes: plan.Writes[i],
		}})
		c.parts[i].values = nil
	}
	return out
}

// unlock ends an attempt of which nothing is prepared.
func (c *Coordinator) unlock(err error, final bool) []Effect {
	c.phase = ended
	var out []Effect
	for i := range c.division.Parts {
		out = append(out, ReleaseAt{Key: c.division.Parts[i].Key(), Txn: c.id})
	}
	return append(out, c.deny(err, final)...)
}

func (c *Coordinator) stepPreparing(e Event) []Effect {
	switch e := e.(type) {
	case Prepared:
		c.parts[e.Part].prepared, c.parts[e.Part].stamp = true, e.Stamp
		for i := range c.parts {
			if !c.parts[i].prepared {
				return nil
			}
		}
		c.phase = numbering
		return []Effect{AskRevision{}}
	case Failed, Lost, GiveUp:
		return c.abort(e)
	}
	return nil
}

func (c *Coordinator) stepNumbering(e Event) []Effect {
	switch e := e.(type) {
	case Numbered:
		for i := range c.parts {
			if e.Revision <= c.parts[i].stamp {
				return c.abort(Failed{Err: ErrStampOrder})
			}
		}
		c.phase = deciding
		return []Effect{c.decide(Verdict{Commit: true, Revision: e.Revision})}
	case Failed, Lost, GiveUp:
		return c.abort(e)
	}
	return nil
}

func (c *Coordinator) decide(v Verdict) Effect {
	return DecideAt{Command: &Decide{Txn: c.id, Verdict: v, Key: c.division.Decision, Spans: c.division.Spans}}
}

// abort ends an attempt of which something may be prepared. No decision is needed:
// the only one who could have written Commit never will.
func (c *Coordinator) abort(e Event) []Effect {
	c.finish = finisher{id: c.id, key: c.division.Decision}
	c.phase = finishing
	out := c.finish.start(c.division.Spans)
	switch e := e.(type) {
	case Failed:
		return append(c.deny(e.Err, e.Final), out...)
	case GiveUp:
		return append(c.deny(e.Err, true), out...)
	}
	return append(c.deny(errUnknown, false), out...)
}

func (c *Coordinator) stepDeciding(e Event) []Effect {
	switch e := e.(type) {
	case Decided:
		return c.decided(e, Answer{Outcome: Again, Err: ErrDecided})
	case Failed:
		return c.abort(e)
	case Lost:
		c.phase = asking
		return []Effect{c.decide(Verdict{})}
	case GiveUp:
		return c.answer(Answer{Outcome: Unknown, Err: e.Err})
	}
	return nil
}

// stepAsking believes a commit only. An abort may be the one that the question
// itself wrote, after the commit had been finished by others and forgotten.
func (c *Coordinator) stepAsking(e Event) []Effect {
	switch e := e.(type) {
	case Decided:
		return c.decided(e, Answer{Outcome: Unknown, Err: errUnknown})
	case Failed, Lost:
		c.phase = ended
		return c.answer(Answer{Outcome: Unknown, Err: errUnknown})
	case GiveUp:
		return c.answer(Answer{Outcome: Unknown, Err: e.Err})
	}
	return nil
}

// decided answers and tells the participants.
func (c *Coordinator) decided(d Decided, otherwise Answer) []Effect {
	a := otherwise
	if d.Commit {
		a = Answer{Outcome: Committed, Revision: d.Revision, Plan: c.plan}
	}
	out := c.answer(a)
	c.finish = finisher{id: c.id, verdict: d.Verdict, key: c.division.Decision, forget: true}
	c.phase = finishing
	return append(out, c.finish.start(c.division.Spans)...)
}

func (c *Coordinator) deny(err error, final bool) []Effect {
	if final {
		return c.answer(Answer{Outcome: Refused, Err: err})
	}
	return c.answer(Answer{Outcome: Again, Err: err})
}

func (c *Coordinator) answer(a Answer) []Effect {
	if c.answered {
		return nil
	}
	c.answered = true
	return []Effect{a}
}
