package txns

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/stamps"
)

var (
	// ErrGivenUp ends an attempt whose client waits no longer.
	ErrGivenUp = errors.New("sim: the client has given up")
	// ErrLight refuses keys of a light scope and of another.
	ErrLight = errors.New("sim: the transaction's keys are in a light scope and another")
	// errLines refuses keys of several lines.
	errLines = errors.New("sim: the transaction's keys are on several lines")
)

// core is a Coordinator or a Recoverer.
type core interface {
	Start() []commit.Effect
	Step(e commit.Event) []commit.Effect
	Ended() bool
}

// run drives one core.
type run struct {
	*Txns
	id     commit.TxnID
	core   core
	answer func(commit.Answer) // nil: nobody waits for one, or it was given
	ended  func()              // nil: nobody wants to know
	places map[int]commit.Place
	over   bool
}

func (r *run) begin() {
	if r.answer == nil {
		r.limit()
	}
	r.launch(r.core.Start())
}

// limit leaves what is to be done behind the answer to the segments' leaders, after a while.
func (r *run) limit() { r.After(finishMax, r.end) }

func (r *run) end() {
	if !r.over && r.ended != nil {
		r.ended()
	}
	r.over = true
}

func (r *run) step(e commit.Event) {
	if r.over {
		return
	}
	if got, ok := e.(commit.Acquired); ok {
		r.places[got.Part] = got.Grant.Place
	}
	r.launch(r.core.Step(e))
}

// launch begins effects.
func (r *run) launch(list []commit.Effect) {
	for _, fx := range list {
		switch fx := fx.(type) {
		case commit.Answer:
			if answer := r.answer; answer != nil {
				r.answer = nil
				r.limit()
				answer(fx)
			}
		case commit.ReleaseAt:
			r.release(fx)
		default:
			r.do(fx)
		}
	}
	if r.core.Ended() {
		r.end()
	}
}

// do carries out one effect; what comes of it is an event of its own.
func (r *run) do(fx commit.Effect) {
	switch fx := fx.(type) {
	case commit.Acquire:
		w := &wanted{txn: r.id, locks: fx.Locks, reads: fx.Reads}
		r.send(fx.Key, &request{kind: askLocks, wanted: w}, func(answer any, err error) {
			if err != nil {
				r.step(fault(err, anchormesh.KeyRange{}))
				return
			}
			g := answer.(*got)
			r.step(commit.Acquired{Part: fx.Part, Grant: g.grant, Values: g.values})
		})
	case commit.PrepareAt:
		r.command(fx.Key, &request{kind: askPrepare, prepare: fx.Command}, func(reply *commit.Reply, err error) {
			if err != nil {
				r.step(fault(err, anchormesh.KeyRange{}))
				return
			}
			r.step(commit.Prepared{Part: fx.Part, Stamp: reply.Stamp})
		})
	case commit.AskRevision:
		r.number(r.now() + numberWait)
	case commit.DecideAt:
		r.decide(fx)
	case commit.TellAt:
		kind, op := askAbort, keyspace.OpAbort
		if fx.Command.Commit {
			kind, op = askCommit, keyspace.OpCommit
		}
		q := &request{kind: kind, txn: fx.Command.Txn, command: command(op, fx.Command.Encode())}
		r.command(fx.Span.Start, q, func(reply *commit.Reply, err error) {
			if err != nil {
				r.later(commit.Lost{Span: fx.Span})
				return
			}
			r.step(commit.Told{Span: fx.Span, Range: reply.Range})
		})
	case commit.ForgetAt:
		q := &request{kind: askForget, command: command(keyspace.OpForget, commit.EncodeID(fx.Txn))}
		r.command(fx.Key, q, func(_ *commit.Reply, err error) {
			if err != nil {
				r.later(commit.Lost{})
				return
			}
			r.step(commit.Forgot{})
		})
	default:
		panic("sim: an effect of an unknown kind")
	}
}

func (r *run) decide(fx commit.DecideAt) {
	q := &request{kind: askDecide, command: command(keyspace.OpDecide, fx.Command.Encode())}
	if r.Mesh.Cfg.Plant == plan.PlantEarlyAnswer && fx.Command.Commit {
		told := r.core.Step(commit.Decided{Verdict: fx.Command.Verdict}) // the answer, and the rest
		r.launch(told[:1])
		r.After(time.Duration(r.Rng.Int64N(int64(2*time.Second))), func() {
			r.command(fx.Command.Key, q, func(reply *commit.Reply, err error) {
				if err == nil && reply.Commit {
					r.launch(told[1:])
				}
			})
		})
		return
	}
	r.command(fx.Command.Key, q, func(reply *commit.Reply, err error) {
		if err != nil {
			r.step(fault(err, anchormesh.KeyRange{}))
			return
		}
		r.step(commit.Decided{Verdict: reply.Verdict, Range: reply.Range})
	})
}

// number asks for the revision. A number that nobody hears of is nobody's. The attempt
// fails if none comes in time.
func (r *run) number(until time.Duration) {
	line := r.places[0].Scope
	for _, p := range r.places {
		if p.Scope != line {
			r.step(commit.Failed{Err: errLines})
			return
		}
	}
	stamps.LinesAt(r.Process).Number([]byte(line), func(at anchormesh.Revision, err error) {
		switch {
		case r.over:
		case err != nil:
			r.After(tellWait, func() {
				if r.now() >= until {
					r.step(commit.Failed{Err: err})
					return
				}
				r.number(until)
			})
		default:
			r.step(commit.Numbered{Revision: at})
		}
	})
}

// later is an event after a pause, so that nothing is asked again at once.
func (r *run) later(e commit.Event) { r.After(tellWait, func() { r.step(e) }) }

// fault is the event for a request that failed.
func fault(err error, span anchormesh.KeyRange) commit.Event {
	switch {
	case errors.Is(err, errLost):
		return commit.Lost{Span: span}
	case errors.Is(err, errNowhere), refusal(err):
		return commit.Failed{Err: err}
	}
	return commit.Failed{Err: err, Final: true}
}
