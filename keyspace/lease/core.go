package lease

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// phase says what a lease waits for.
type phase uint8

const (
	counting phase = iota // for its deadline
	clearing              // for the log to clear the persisted remaining time
	expiring              // for the log to revoke it
)

// entry is one lease of the leader. Times are the core's own, see Core.clock.
type entry struct {
	Lease
	phase      phase
	floating   bool          // a checkpoint was proposed and is not known to be applied
	deadline   time.Duration // when the lease runs out
	checkpoint time.Duration // when to persist the remaining time; 0 never
	wake       time.Duration // when a tick looks at it next
	waiting    []uint64      // tokens of renewals that wait for the log
	index      int           // in the queue
}

// Core holds the deadlines of one leader's leases. Its methods are called by one
// goroutine at a time.
type Core struct {
	cfg     Config
	leading bool
	term    uint64
	clock   time.Duration // time believed to have passed since the first step
	last    time.Time     // of the last step
	leases  map[int64]*entry
	queue   queue
	waiting int // tokens over all entries
}

// New returns a core that does not lead. The configuration is taken as valid.
func New(cfg Config) *Core {
	return &Core{cfg: cfg, leases: make(map[int64]*entry)}
}

// Step takes one event at time now and returns what follows from it. Renewals and
// expiries are judged at now; a Tick alone makes the rest fall due.
func (c *Core) Step(now time.Time, ev Event) Effects {
	c.advance(now)
	var fx Effects
	switch ev := ev.(type) {
	case Lead:
		c.demote(&fx)
		c.lead(ev)
	case Demote:
		c.demote(&fx)
	case Granted:
		c.granted(ev.Lease)
	case Revoked:
		c.revoked(ev.ID, &fx)
	case Checkpointed:
		c.checkpointed(ev.Lease, &fx)
	case Renew:
		for _, r := range ev.Renewals {
			c.renew(r, &fx)
		}
	case Tick:
		c.tick(&fx)
	}
	if len(c.queue) > 0 {
		fx.Next = max(c.queue[0].wake-c.clock, time.Millisecond)
	}
	return fx
}

// Remaining returns the time a lease has left, never below 0, and whether this
// core leads and knows the lease.
func (c *Core) Remaining(now time.Time, id int64) (time.Duration, bool) {
	c.advance(now)
	e := c.leases[id]
	if e == nil {
		return 0, false
	}
	return max(e.deadline-c.clock, 0), true
}

// Leading reports whether the core leads, and in which term.
func (c *Core) Leading() (term uint64, ok bool) { return c.term, c.leading }

// Len returns the number of leases the core counts.
func (c *Core) Len() int { return len(c.leases) }

// advance moves the core's clock. A jump of the caller's clock moves it by
// nothing or by StepMax.
func (c *Core) advance(now time.Time) {
	if !c.last.IsZero() {
		c.clock += min(max(now.Sub(c.last), 0), c.cfg.StepMax)
	}
	c.last = now
}

// secondsMax is the longest time counted: etcd's longest TTL, 285 years, which
// leaves a Duration seven years for the clock.
const secondsMax = 9_000_000_000

func seconds(s int64) time.Duration {
	return time.Duration(min(s, secondsMax)) * time.Second
}

func (c *Core) lead(ev Lead) {
	c.leading, c.term = true, ev.Term
	entries := make([]*entry, 0, len(ev.Leases))
	for _, l := range ev.Leases {
		left := l.TTL
		if l.Remaining > 0 {
			left = l.Remaining
		}
		entries = append(entries, &entry{Lease: l, deadline: c.clock + c.cfg.Extend + seconds(left)})
	}
	slices.SortFunc(entries, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.ID, b.ID))
	})
	for i, e := range entries {
		// Spread: the deadline ExpireRate places before is a second away.
		if i >= c.cfg.ExpireRate {
			e.deadline = max(e.deadline, entries[i-c.cfg.ExpireRate].deadline+time.Second)
		}
		c.planCheckpoint(e)
		c.add(e)
	}
}

// demote forgets everything; whoever waits is told to ask the new leader.
func (c *Core) demote(fx *Effects) {
	for _, e := range c.queue {
		c.answer(e, NotLeader, fx)
	}
	c.leading, c.term = false, 0
	c.queue = nil
	clear(c.leases)
}

func (c *Core) granted(l Lease) {
	if !c.leading || c.leases[l.ID] != nil {
		return
	}
	e := &entry{Lease: l, deadline: c.clock + seconds(l.TTL)}
	c.planCheckpoint(e)
	c.add(e)
}

func (c *Core) revoked(id int64, fx *Effects) {
	e := c.leases[id]
	if e == nil {
		return
	}
	delete(c.leases, id)
	heap.Remove(&c.queue, e.index)
	c.answer(e, NotFound, fx)
}

func (c *Core) checkpointed(l Lease, fx *Effects) {
	e := c.leases[l.ID]
	if e == nil {
		return
	}
	e.Remaining, e.Epoch = l.Remaining, l.Epoch
	e.floating = false
	if l.Remaining == 0 {
		// Somebody renewed. An expiry on its way carries the old epoch.
		c.restart(e)
		c.answer(e, Renewed, fx)
	}
}

// restart gives the lease its whole time again.
func (c *Core) restart(e *entry) {
	e.phase = counting
	e.deadline = c.clock + seconds(e.TTL)
	c.planCheckpoint(e)
	c.fix(e)
}

func (c *Core) renew(r Renewal, fx *Effects) {
	e := c.leases[r.ID]
	switch {
	case !c.leading:
		fx.Answers = append(fx.Answers, Answer{Renewal: r, Verdict: NotLeader})
	case e == nil:
		fx.Answers = append(fx.Answers, Answer{Renewal: r, Verdict: NotFound})
	case e.phase == counting && e.Remaining == 0 && !e.floating:
		c.restart(e)
		fx.Answers = append(fx.Answers, Answer{Renewal: r, Verdict: Renewed, TTL: e.TTL})
	case c.waiting >= c.cfg.WaitingMax:
		fx.Answers = append(fx.Answers, Answer{Renewal: r, Verdict: Overloaded})
	default:
		c.waiting++
		e.waiting = append(e.waiting, r.Token)
		if e.phase == counting {
			c.propose(e, fx)
		}
	}
}

// propose asks the log to clear e's remaining time.
func (c *Core) propose(e *entry, fx *Effects) {
	e.phase = clearing
	e.wake = c.clock + c.cfg.RetryInterval
	heap.Fix(&c.queue, e.index)
	fx.Clear = append(fx.Clear, codec.LeaseCheckpoint{ID: e.ID})
}

// tick proposes what is due, up to the limits. It stops at the first limit it
// meets, so that what is left over stays in order.
func (c *Core) tick(fx *Effects) {
	for len(c.queue) > 0 && c.queue[0].wake <= c.clock {
		e := c.queue[0]
		switch {
		case e.phase == clearing:
			if len(fx.Clear) == c.cfg.CheckpointMax {
				return
			}
			c.propose(e, fx)
		case e.deadline <= c.clock:
			if len(fx.Expire) == c.cfg.ExpireMax {
				return
			}
			e.phase = expiring
			e.wake = c.clock + c.cfg.RetryInterval
			heap.Fix(&c.queue, e.index)
			fx.Expire = append(fx.Expire, codec.LeaseExpiry{ID: e.ID, Epoch: e.Epoch, Term: c.term})
		default:
			if len(fx.Checkpoint) == c.cfg.CheckpointMax {
				return
			}
			c.persist(e, fx)
		}
	}
}

// persist proposes e's remaining time, unless that is no less than the TTL.
func (c *Core) persist(e *entry, fx *Effects) {
	left := int64((e.deadline - c.clock + time.Second - 1) / time.Second)
	c.planCheckpoint(e)
	c.fix(e)
	if left >= e.TTL {
		return
	}
	e.floating = true
	fx.Checkpoint = append(fx.Checkpoint, codec.LeaseCheckpoint{ID: e.ID, Remaining: left, Epoch: e.Epoch, Term: c.term})
}

// planCheckpoint sets the time of the next checkpoint, if the lease lives that
// long.
func (c *Core) planCheckpoint(e *entry) {
	e.checkpoint = 0
	if e.deadline-c.clock > c.cfg.CheckpointInterval {
		e.checkpoint = c.clock + c.cfg.CheckpointInterval
	}
	e.wake = e.deadline
	if e.checkpoint != 0 {
		e.wake = min(e.wake, e.checkpoint)
	}
}

// answer ends every renewal that waits on e.
func (c *Core) answer(e *entry, v Verdict, fx *Effects) {
	for _, token := range e.waiting {
		a := Answer{Renewal: Renewal{ID: e.ID, Token: token}, Verdict: v}
		if v == Renewed {
			a.TTL = e.TTL
		}
		fx.Answers = append(fx.Answers, a)
	}
	c.waiting -= len(e.waiting)
	e.waiting = nil
}

func (c *Core) add(e *entry) {
	c.leases[e.ID] = e
	heap.Push(&c.queue, e)
}

func (c *Core) fix(e *entry) { heap.Fix(&c.queue, e.index) }

// queue is a heap of leases by the time of their next look, then ID.
type queue []*entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].wake < q[j].wake || q[i].wake == q[j].wake && q[i].ID < q[j].ID
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
