package commit

import "github.com/anchormesh/anchormesh"

// finisher tells the participants what was decided, until each has confirmed from
// its log, and then has the decision forgotten. Participants are found by key: a
// segment that was split confirms a part, and the rest is told again.
type finisher struct {
	id      TxnID
	verdict Verdict
	key     []byte
	forget  bool                  // there is a decision to forget
	left    []anchormesh.KeyRange // told, not confirmed
}

func (f *finisher) start(spans []anchormesh.KeyRange) []Effect {
	f.left = spans
	return f.tell(spans)
}

func (f *finisher) tell(spans []anchormesh.KeyRange) []Effect {
	var out []Effect
	for _, s := range spans {
		out = append(out, TellAt{Span: s, Command: &Finish{Txn: f.id, Verdict: f.verdict}})
	}
	return out
}

// step takes in one event and says whether everything is done.
func (f *finisher) step(e Event) (out []Effect, done bool) {
	switch e := e.(type) {
	case Told:
		return f.told(e)
	case Lost:
		if len(f.left) == 0 {
			return []Effect{ForgetAt{Key: f.key, Txn: f.id}}, false
		}
		for _, s := range f.left {
			if s.Equal(e.Span) {
				return f.tell([]anchormesh.KeyRange{s}), false
			}
		}
	case Forgot, GiveUp:
		return nil, true
	}
	return nil, false
}

func (f *finisher) told(e Told) ([]Effect, bool) {
	for i, s := range f.left {
		if !s.Equal(e.Span) {
			continue
		}
		rest := subtract([]anchormesh.KeyRange{s}, e.Range)
		left := append([]anchormesh.KeyRange{}, f.left[:i]...)
		f.left = append(append(left, rest...), f.left[i+1:]...)
		switch {
		case len(f.left) > 0:
			return f.tell(rest), false
		case f.forget:
			return []Effect{ForgetAt{Key: f.key, Txn: f.id}}, false
		}
		return nil, true
	}
	return nil, false
}

// Recoverer ends a transaction whose coordinator does not: it writes Abort where
// the decision belongs, which is refused if a commit stands there, and makes the
// participants do what stands there. Any number of them, and the coordinator, may
// be at it at once.
type Recoverer struct {
	decide *Decide // nil: known
	ended  bool
	finish finisher
}

// Recover returns the core for a transaction that somebody has been blocked by for
// a second.
func Recover(r *Record) *Recoverer {
	return &Recoverer{
		decide: &Decide{Txn: r.Txn, Key: r.Decision, Spans: r.Spans},
		finish: finisher{id: r.Txn, key: r.Decision, forget: true},
	}
}

// Resume returns the core for a decision that has been kept for long: who was to
// finish it is gone.
func Resume(d *Decision) *Recoverer {
	return &Recoverer{finish: finisher{id: d.Txn, verdict: d.Verdict, key: d.Key, forget: true, left: d.Spans}}
}

// Ended reports whether nothing is left to do.
func (r *Recoverer) Ended() bool { return r.ended }

// Start returns the first effects.
func (r *Recoverer) Start() []Effect {
	if r.decide != nil {
		return []Effect{DecideAt{Command: r.decide}}
	}
	return r.finish.start(r.finish.left)
}

// Step takes in one event. Nothing here is lost for good: what got no answer is
// asked again.
func (r *Recoverer) Step(e Event) (out []Effect) {
	if r.decide == nil {
		out, r.ended = r.finish.step(e)
		return out
	}
	switch e := e.(type) {
	case Decided:
		spans := r.decide.Spans
		r.decide, r.finish.verdict = nil, e.Verdict
		return r.finish.start(spans)
	case Lost, Failed:
		return r.Start()
	case GiveUp:
		r.ended = true
	}
	return nil
}
