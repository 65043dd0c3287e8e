package txns

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// attemptKey finds an attempt's TxnID in the context of its effects.
type attemptKey struct{}

// Do answers a Txn or a DeleteRange whose keys lie in several segments. It tries until
// ctx ends as long as nothing took effect. The error is the client's, or that of ctx.
func (x *Txns) Do(ctx context.Context, call *etcdapi.Call) (codec.Chunks, error) {
	divide, err := divider(call)
	if err != nil {
		return nil, err
	}
	var last error = etcdapi.ErrNoLeader
	for try := 0; ; try++ {
		if list, parts := x.spans(call.Keys); list != nil {
			home := parts[0]
			division, err := divide(list)
			if err != nil {
				return nil, clients(err)
			}
			if mixed(touched(parts, division)) {
				return nil, etcdapi.ErrLightTxn
			}
			a := x.attempt(ctx, &call.From, division, try > 0)
			switch a.Outcome {
			case commit.Committed:
				return codec.Chunks{a.Plan.Answer(x.header(home, a.Revision))}, nil
			case commit.Again:
				last = a.Err
			default:
				return nil, a.Err
			}
		}
		if !pause(ctx, try) {
			return nil, ended(ctx, last)
		}
	}
}

// divider parses a request once.
func divider(call *etcdapi.Call) (func([]commit.Segment) (*commit.Division, error), error) {
	if call.Method == etcdapi.MethodDeleteRange {
		var r codec.DeleteRangeRequest
		if err := codec.ParseDeleteRange(call.Raw(), &r); err != nil {
			return nil, err
		}
		return func(s []commit.Segment) (*commit.Division, error) { return commit.DivideDelete(&r, s) }, nil
	}
	var r codec.TxnRequest
	if err := codec.ParseTxn(call.Raw(), &r); err != nil {
		return nil, err
	}
	return func(s []commit.Segment) (*commit.Division, error) { return commit.Divide(&r, s) }, nil
}

// clients words the errors of package commit that are for the client.
func clients(err error) error {
	switch {
	case errors.Is(err, commit.ErrTooLarge):
		return etcdapi.ErrTooLarge
	case errors.Is(err, commit.ErrKeyNotFound):
		return keyspace.ErrKeyNotFound
	}
	return err
}

// pause waits a little longer after each attempt, at random so that those who were in
// each other's way do not meet again.
func pause(ctx context.Context, try int) bool {
	most := min(100*time.Millisecond, 2*time.Millisecond<<min(try, 6))
	timer := time.NewTimer(time.Millisecond + time.Duration(mathrand.Int64N(int64(most))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ended words the end of a request that took effect nowhere.
func ended(ctx context.Context, last error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(last, etcdapi.ErrNoLeader):
		return etcdapi.ErrTimeoutLeaderFail
	}
	return etcdapi.ErrTimeout
}

// attempt runs one Coordinator. It returns with the answer; what is left to do goes on.
func (x *Txns) attempt(ctx context.Context, from *keyspace.Origin, d *commit.Division, ordered bool) commit.Answer {
	select {
	case x.attempts <- struct{}{}:
	default:
		return commit.Answer{Outcome: commit.Refused, Err: etcdapi.ErrTooManyRequests}
	}
	var id commit.TxnID
	if _, err := rand.Read(id[:]); err != nil {
		panic("txns: no random numbers: " + err.Error())
	}
	answer := make(chan commit.Answer, 1)
	x.running.Go(func() {
		defer func() { <-x.attempts }()
		r := run{x: x, from: *from, id: id, answer: answer}
		r.drive(ctx, commit.NewCoordinator(id, d, ordered))
	})
	a := <-answer
	switch {
	case a.Outcome == commit.Unknown && ctx.Err() != nil:
		a.Err = ctx.Err()
	case a.Outcome == commit.Unknown && x.life.Err() != nil:
		a.Err = etcdapi.ErrStopped
	case a.Outcome == commit.Unknown:
		a.Err = etcdapi.ErrTimeoutLeaderFail
	default:
		a.Err = clients(a.Err)
	}
	return a
}

// core is a Coordinator or a Recoverer.
type core interface {
	Start() []commit.Effect
	Step(e commit.Event) []commit.Effect
	Ended() bool
}

// run drives one core.
type run struct {
	x      *Txns
	from   keyspace.Origin
	id     commit.TxnID
	answer chan commit.Answer // nil: nobody waits for one
	events chan commit.Event
	ctx    context.Context
	// places are where the locks are, by participant: a prepare is refused elsewhere, so
	// these are the lines of what is prepared.
	places map[int]commit.Place
}

// drive runs the core until it has ended, the node stops, or finishMax behind the
// answer. When client ends it is told so.
func (r *run) drive(client context.Context, c core) {
	ctx, cancel := context.WithCancel(context.WithValue(r.x.life, attemptKey{}, r.id))
	defer cancel()
	r.ctx, r.events, r.places = ctx, make(chan commit.Event), make(map[int]commit.Place)
	left := client.Done()
	limit := time.NewTimer(finishMax)
	defer limit.Stop()
	answered := r.answer == nil
	for fx := c.Start(); ; {
		if r.launch(fx) {
			answered = true
			limit.Reset(finishMax)
		}
		if c.Ended() {
			return
		}
		fx = nil
		select {
		case e := <-r.events:
			if got, ok := e.(commit.Acquired); ok {
				r.places[got.Part] = got.Grant.Place
			}
			fx = c.Step(e)
		case <-left:
			left = nil
			if !answered {
				fx = c.Step(commit.GiveUp{Err: client.Err()})
				limit.Reset(finishMax)
			}
		case <-limit.C:
			if answered {
				return // the segments' leaders end it
			}
			limit.Reset(finishMax)
		case <-ctx.Done():
			if !answered {
				r.answer <- commit.Answer{Outcome: commit.Unknown, Err: etcdapi.ErrStopped}
			}
			return
		}
	}
}

// launch begins effects and reports whether one was the answer.
func (r *run) launch(list []commit.Effect) (answered bool) {
	for _, fx := range list {
		switch fx := fx.(type) {
		case commit.Answer:
			answered = true
			if r.answer != nil {
				r.answer <- fx
			}
		case commit.ReleaseAt:
			r.x.running.Go(func() { r.x.release(fx) })
		default:
			lines := r.lines()
			r.x.running.Go(func() {
				e := r.do(lines, fx)
				select {
				case r.events <- e:
				case <-r.ctx.Done():
				}
			})
		}
	}
	return answered
}

// lines names the lines of those that are locked, each once.
func (r *run) lines() (out [][]byte) {
	for _, p := range r.places {
		out = append(out, []byte(p.Scope))
	}
	slices.SortFunc(out, bytes.Compare)
	return slices.CompactFunc(out, bytes.Equal)
}

// touched returns those of a request's segments that it names keys of: between its first
// key and its last there may be others.
func touched(parts []*anchormesh.Descriptor, d *commit.Division) (out []*anchormesh.Descriptor) {
	for _, p := range parts {
		if slices.ContainsFunc(d.Spans, func(span anchormesh.KeyRange) bool { return p.Range.Contains(span.Start) }) {
			out = append(out, p)
		}
	}
	return out
}

// mixed reports whether segments are of a light scope and of another: what the one
// forgets with its memory the other may have been told.
func mixed(parts []*anchormesh.Descriptor) bool {
	light := func(d *anchormesh.Descriptor) bool { return d.Class == anchormesh.Light }
	return slices.ContainsFunc(parts, light) &&
		slices.ContainsFunc(parts, func(d *anchormesh.Descriptor) bool { return !bytes.Equal(d.Scope, parts[0].Scope) })
}

// release is not waited for: a lock that is not released ends by itself.
func (x *Txns) release(fx commit.ReleaseAt) {
	ctx, cancel := context.WithTimeout(x.life, commit.LockMax)
	defer cancel()
	_, _ = x.send(ctx, fx.Key, askRelease, fx.Txn[:])
}
