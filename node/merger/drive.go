package merger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// ErrAborted says why an attempt was aborted; both segments are as they were.
	ErrAborted = errors.New("the merge was aborted")
	// errDeposed ends a driver with its leadership: the next leader aborts.
	errDeposed = errors.New("the left segment's leader changed")
)

// eventsMax holds every answer that an attempt can get before the driver looks.
const eventsMax = 64

// drive is the shell of one Driver.
type drive struct {
	merger *Merger
	core   *merge.Driver
	left   *host.Replica
	term   uint64
	why    lineage.Evidence
	// opening is the command that opens the attempt, with what allows it; nil: the driver
	// inherited an open one.
	opening []byte
	// boundary is where the left ends, and the right begins.
	boundary []byte

	ctx      context.Context
	begin    time.Time
	events   chan merge.Event
	failed   chan error   // the open was refused
	aborting atomic.Bool  // an abort is proposed
	reason   atomic.Value // string: what went wrong first
}

func (m *Merger) newDrive(core *merge.Driver, left *host.Replica, term uint64, why lineage.Evidence) *drive {
	return &drive{
		merger: m, core: core, left: left, term: term, why: why, boundary: left.Machine.Descriptor().Range.End,
		begin: time.Now(), events: make(chan merge.Event, eventsMax), failed: make(chan error, 1),
	}
}

// run drives the attempt to its end: nil if the segments were merged.
func (d *drive) run(fx []merge.Effect) error {
	ctx, cancel := context.WithCancel(d.merger.ctx)
	defer cancel()
	d.ctx = ctx
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		for _, e := range fx {
			d.carryOut(e)
		}
		if d.core.Over() {
			return d.outcome()
		}
		var event merge.Event = merge.Tick{}
		select {
		case event = <-d.events:
		case err := <-d.failed:
			return err
		case <-ticker.C:
			if !d.leads() {
				return errDeposed
			}
			if l := d.state().Left; l.Last == d.core.Attempt && !l.Open {
				event = merge.Ended{}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		fx = d.core.Step(time.Since(d.begin), event)
	}
}

func (d *drive) state() *machine.State { return d.left.Machine.State() }

func (d *drive) leads() bool {
	id := d.core.Pair.Left.Segment
	now, here := d.merger.host.Get(id)
	st, ok := d.merger.engine.Status(id)
	return here && now == d.left && ok && st.Leads() && st.Term == d.term
}

func (d *drive) outcome() error {
	// Whoever holds the key where the segment ended before has absorbed what began there.
	if v, ok := d.state().Judge(d.boundary, d.core.Attempt); ok && v == merge.Merged {
		d.merger.ended(causes[d.why.Reason == lineage.Operator])
		return nil
	}
	d.merger.ended("aborted")
	why, _ := d.reason.Load().(string)
	if why == "" {
		why = "not every anchor answered in time"
	}
	return fmt.Errorf("%w: %s", ErrAborted, why)
}

// causes are the words of metrics for a merge that was ordered, or not.
var causes = map[bool]string{true: "order", false: "load"}

// tell gives the core an event, from any goroutine.
func (d *drive) tell(e merge.Event) {
	select {
	case d.events <- e:
	case <-d.ctx.Done():
	}
}

// refuse gives the attempt up.
func (d *drive) refuse(err error) {
	d.reason.CompareAndSwap(nil, err.Error())
	d.tell(merge.Refused{})
}

func (d *drive) carryOut(e merge.Effect) {
	m := d.merger
	switch e {
	case merge.ProposeOpen:
		m.wg.Go(d.open)
	case merge.AskReady:
		for _, node := range d.core.Pair.Left.Nodes {
			m.wg.Go(func() { d.askReady(node) })
		}
	case merge.SendFreeze:
		m.wg.Go(d.freeze)
	case merge.ProposeAbsorb:
		m.wg.Go(func() {
			// An error says nothing: the state does.
			_, _ = m.propose(d.ctx, d.state(), d.term, machine.Absorb(d.core.Attempt, &d.why))
		})
	case merge.ProposeAbort:
		if d.aborting.CompareAndSwap(false, true) {
			m.wg.Go(func() {
				defer d.aborting.Store(false)
				_, _ = m.propose(d.ctx, d.state(), d.term, machine.Abort(d.core.Attempt))
			})
		}
	}
}

func (d *drive) open() {
	_, err := d.merger.propose(d.ctx, d.state(), d.term, d.opening)
	if err != nil {
		d.failed <- err
		return
	}
	d.tell(merge.Opened{})
}

func (d *drive) question(kind byte) *question {
	return &question{kind: kind, attempt: d.core.Attempt, pair: d.core.Pair, key: d.boundary}
}

func (d *drive) askReady(node anchormesh.NodeID) {
	ctx, cancel := context.WithTimeout(d.ctx, readyTimeout)
	defer cancel()
	if _, err := d.merger.call(ctx, node, d.question(askReady)); err != nil {
		d.refuse(fmt.Errorf("node %s: %w", node.Short(), err))
		return
	}
	d.tell(merge.Ready{Node: node})
}

// freeze has the right frozen by its leader, whoever that is, and asks all for their
// confirmation.
func (d *drive) freeze() {
	ctx, cancel := context.WithTimeout(d.ctx, merge.FreezeMax)
	defer cancel()
	q := d.question(askFreeze)
	for try := 0; ; try++ {
		answer, err := d.merger.call(ctx, d.rightLeader(try), q)
		if index, n := binary.Uvarint(answer); err == nil && n > 0 {
			for _, node := range d.core.Pair.Right.Nodes {
				d.merger.wg.Go(func() { d.confirm(node, index) })
			}
			return
		}
		if errors.Is(err, errRefused) || errors.Is(err, machine.ErrRefused) {
			d.refuse(err)
			return
		}
		if !pause(ctx) {
			return // the driver's own clock aborts
		}
	}
}

// rightLeader is who leads the right, as far as is known, or anybody in turn.
func (d *drive) rightLeader(try int) anchormesh.NodeID {
	nodes := d.core.Pair.Right.Nodes
	if leader, ok := d.merger.table.Leader(d.core.Pair.Right.Segment); ok && try%2 == 0 && slices.Contains(nodes, leader) {
		return leader
	}
	return nodes[try%len(nodes)]
}

func (d *drive) confirm(node anchormesh.NodeID, index uint64) {
	ctx, cancel := context.WithTimeout(d.ctx, merge.FreezeMax)
	defer cancel()
	q := d.question(askConfirm)
	q.number = index
	for {
		if _, err := d.merger.call(ctx, node, q); err == nil {
			d.tell(merge.Confirmed{Node: node, Attempt: d.core.Attempt})
			return
		}
		if !pause(ctx) {
			d.reason.CompareAndSwap(nil, fmt.Sprintf("node %s did not confirm the freeze", node.Short()))
			return
		}
	}
}

// pause waits between two tries; false: ctx has ended.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(tick):
		return true
	case <-ctx.Done():
		return false
	}
}
