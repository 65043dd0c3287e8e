package node

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// Hub drives the real watch hub of one replica. Hub.Run is a loop that ends each
// round by waiting for its wake-up or its context; as a coroutine whose context
// hands control back where it would wait, it runs exactly when the simulation says.
type hub struct {
	p    *Process
	Line string
	Hub  *watch.Hub
	due  bool
	next func() (struct{}, bool)
	Stop func()
	over bool
}

func newHub(p *Process, segment *mvcc.Segment) (*hub, error) {
	limits := watch.DefaultLimits()
	size := p.Mesh.Cfg.Mesh.WatchBytes
	limits.QueueBytes, limits.StepBytes, limits.StreamBytes, limits.ResponseBytes = size, size, size, size/2
	limits.ProgressInterval = time.Hour // real time, which must not show
	h, err := watch.NewHub(segment, limits)
	if err != nil {
		return nil, err
	}
	out := &hub{p: p, Line: p.Mesh.LineOf(segment.ID()), Hub: h}
	out.next, out.Stop = iter.Pull(func(yield func(struct{}) bool) {
		ctx := &turn{Context: context.Background(), yield: yield}
		err := h.Run(ctx)
		if ctx.err == nil {
			p.Mesh.Fail(err)
		}
	})
	return out, nil
}

// turn is the context of a hub's coroutine.
type turn struct {
	context.Context
	yield func(struct{}) bool
	err   error
}

var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done is asked for when the hub is about to wait.
func (t *turn) Done() <-chan struct{} {
	if !t.yield(struct{}{}) {
		t.err = context.Canceled
	}
	return always
}

func (t *turn) Err() error { return t.err }

// Publish implements mvcc.Publisher: the simulation sees every event, too.
func (h *hub) Publish(events []mvcc.Event, rev int64) {
	for i := range events {
		h.p.Mesh.Published(h.Line, &events[i])
	}
	if h.p.Mesh.Cfg.Plant == plan.PlantSkipEvent && h.p.Rng.IntN(20) == 0 {
		events = slices.Clone(events[:len(events)-1])
	}
	h.Hub.Publish(events, rev)
	h.Kick()
}

// Kick lets the hub run soon; sometimes it is late, so that watches lag.
func (h *hub) Kick() {
	if h.due || h.over {
		return
	}
	h.due = true
	wait := h.p.Moment()
	if h.p.Rng.IntN(20) == 0 {
		wait += time.Duration(h.p.Rng.Int64N(int64(time.Second)))
	}
	h.p.After(wait, func() {
		h.due = false
		h.Run()
	})
}

// Run lets the hub work until it would wait.
func (h *hub) Run() {
	if !h.over {
		h.next()
	}
}

// cut ends the watches that reach beyond what a split is about to leave.
func (h *hub) cut(left anchormesh.KeyRange) {
	if h.p.Mesh.Cfg.Plant != plan.PlantWatchPastSplit {
		h.Hub.Bound(left, ErrMoved)
		h.Kick()
	}
}

// close ends every watch as a replica does that leaves.
func (h *hub) close() {
	if !h.over {
		h.over = true
		h.Hub.Stop(ErrMoved)
		h.next()
		h.Stop()
	}
}

// Now is a context that never waits.
var Now = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// ErrMoved ends the watches of a replica that leaves.
var ErrMoved = errors.New("sim: the segment left this node")
