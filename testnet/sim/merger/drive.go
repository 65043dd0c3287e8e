package merger

import (
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// drive is the shell of one merge.Driver.
type drive struct {
	*Merger
	core     *merge.Driver
	left     *node.ReplicaHere
	id       anchormesh.SegmentID
	term     uint64
	opening  []byte // with the anchors' votes
	aborting bool
	over     bool
}

func (m *Merger) drive(core *merge.Driver, left *node.ReplicaHere, term uint64, opening []byte, fx []merge.Effect) {
	d := &drive{Merger: m, core: core, left: left, id: core.Pair.Left.Segment, term: term, opening: opening}
	m.drives[d.id] = d
	d.carryOut(fx)
	m.After(tick, d.tick)
}

func (d *drive) tick() {
	if d.over {
		return
	}
	r, term, ok := d.leads(d.id)
	if !ok || r != d.left || term != d.term {
		d.end() // the next leader aborts
		return
	}
	var event merge.Event = merge.Tick{}
	if l := r.Machine.State().Left; l.Last == d.core.Attempt && !l.Open {
		event = merge.Ended{}
	}
	d.step(event)
	d.After(tick, d.tick)
}

func (d *drive) end() {
	d.over = true
	if d.drives[d.id] == d {
		delete(d.drives, d.id)
	}
}

func (d *drive) step(e merge.Event) {
	if d.over {
		return
	}
	d.carryOut(d.core.Step(d.Mesh.K.Now(), e))
	if d.core.Over() {
		d.end()
	}
}

func (d *drive) state() *machine.State { return d.left.Machine.State() }

func (d *drive) carryOut(fx []merge.Effect) {
	for _, e := range fx {
		d.Mesh.K.Note("merge", d.Index, uint64(d.id), d.core.Attempt.Number, uint64(e), 0)
		switch e {
		case merge.ProposeOpen:
			d.propose(d.state(), d.term, d.opening, func(res consensus.Result) {
				if res.Err != nil {
					d.end()
					return
				}
				d.step(merge.Opened{})
			})
		case merge.AskReady:
			for _, to := range d.core.Pair.Left.Nodes {
				d.call(to, func(q *Merger, done func(merge.Verdict, error)) { q.ready(d.core.Attempt, d.core.Pair, done) },
					func(_ merge.Verdict, err error) {
						if err != nil {
							d.step(merge.Refused{})
							return
						}
						d.step(merge.Ready{Node: to})
					})
			}
		case merge.SendFreeze:
			d.freeze(0)
		case merge.ProposeAbsorb:
			d.propose(d.state(), d.term, machine.Absorb(d.core.Attempt, &lineage.Evidence{Reason: lineage.Operator, Operator: string(d.ID)}), func(consensus.Result) {})
		case merge.ProposeAbort:
			if !d.aborting {
				d.aborting = true
				d.propose(d.state(), d.term, machine.Abort(d.core.Attempt), func(consensus.Result) { d.aborting = false })
			}
		}
	}
}

// freeze has the right frozen by its leader, whoever that is, and asks all for their
// confirmation.
func (d *drive) freeze(try int) {
	if d.over {
		return
	}
	nodes := d.core.Pair.Right.Nodes
	to := nodes[try%len(nodes)]
	if leader, ok := d.Table.Leader(d.core.Pair.Right.Segment); ok && try%2 == 0 && slices.Contains(nodes, leader) {
		to = leader
	}
	var index uint64
	n, pair := d.core.Attempt, d.core.Pair
	d.call(to, func(q *Merger, done func(merge.Verdict, error)) {
		r, term, ok := q.leads(pair.Right.Segment)
		if !ok {
			done(0, node.ErrRetry)
			return
		}
		q.propose(r.Machine.State(), term, machine.Freeze(n, &pair), func(res consensus.Result) {
			index = res.Index
			done(0, res.Err)
		})
	}, func(_ merge.Verdict, err error) {
		switch {
		case errors.Is(err, machine.ErrRefused):
			d.step(merge.Refused{})
		case err != nil:
			d.After(tick, func() { d.freeze(try + 1) })
		default:
			d.Mesh.Stats.Frozen++
			for _, to := range nodes {
				if d.Mesh.Cfg.Plant == plan.PlantAbsorbUnconfirmed {
					d.step(merge.Confirmed{Node: to, Attempt: n})
					continue
				}
				d.confirm(to, index)
			}
		}
	})
}

func (d *drive) confirm(to anchormesh.NodeID, index uint64) {
	if d.over {
		return
	}
	n, segment := d.core.Attempt, d.core.Pair.Right.Segment
	d.call(to, func(q *Merger, done func(merge.Verdict, error)) {
		g := q.Groups[segment]
		if g == nil {
			done(0, node.ErrRetry)
			return
		}
		g.WhenApplied(index, func(err error) {
			if err != nil {
				done(0, err)
				return
			}
			q.Confirm(segment, n, func(err error) { done(0, err) })
		})
	}, func(_ merge.Verdict, err error) {
		if err == nil {
			d.step(merge.Confirmed{Node: to, Attempt: n})
			return
		}
		d.After(tick, func() { d.confirm(to, index) })
	})
}

// readyTimeout is how long a node's answer may take: nothing is frozen yet.
const readyTimeout = 5 * time.Second

// ready waits until this node's replicas of both sides have applied what was committed
// when the question came, and looks whether they are as the attempt says.
func (m *Merger) ready(n merge.Attempt, pair merge.Pair, done func(merge.Verdict, error)) {
	over := false
	end := func(err error) {
		if !over {
			over = true
			done(0, err)
		}
	}
	m.After(readyTimeout, func() { end(node.ErrRetry) })
	left, right := m.Host.Held[pair.Left.Segment], m.Host.Held[pair.Right.Segment]
	if left == nil || right == nil {
		end(machine.ErrRefused)
		return
	}
	m.ReadIndex(pair.Left.Segment, func(_ uint64, err error) {
		if err != nil {
			end(err)
			return
		}
		m.ReadIndex(pair.Right.Segment, func(_ uint64, err error) {
			l, r := left.Machine.State(), right.Machine.State()
			now := r.Side()
			switch {
			case err != nil:
			case !l.Left.Open || l.Left.Last != n, now.Segment != pair.Right.Segment || now.Generation != pair.Right.Generation || now.Changed != pair.Right.Changed:
				err = machine.ErrRefused
			default:
				err = r.Settled()
			}
			if err == nil {
				err = m.CommitStore()
			}
			end(err)
		})
	})
}
