package txns

import (
	"time"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// gate is what a segment's leader keeps in memory: locks that are not prepared yet, and
// which ordinary writes are under way. The locks are those of one place.
type gate struct {
	place commit.Place // Term 0: there are none
	locks *commit.Locks

	// Writes are counted by epochs. A lock begins a new one and waits until those before
	// are empty: then all that came before it is applied.
	first   uint64 // the epoch of flying[0]
	flying  []int
	waiting []waiting

	prepares map[commit.TxnID]*flight
	over     map[commit.TxnID]time.Duration // released; requests for locks may be on their way
}

// flight is the prepares of one transaction that are on their way into the log, and who
// waits for their end.
type flight struct {
	prepares int
	done     []func()
}

type waiting struct {
	before  uint64
	applied func()
}

func newGate() *gate {
	return &gate{locks: commit.NewLocks(commit.Place{}), flying: make([]int, 1),
		prepares: make(map[commit.TxnID]*flight), over: make(map[commit.TxnID]time.Duration)}
}

// enter admits an ordinary write, which must leave with the ticket. A lease's end waits for
// writes of before a lock, which may attach what is locked.
func (g *gate) enter(space *keyspace.Space, command []byte) (ticket uint64, err error) {
	if !g.locks.Idle() || space.Unsettled() {
		if len(g.waiting) > 0 && keyspace.EndsLease(command) {
			return 0, keyspace.ErrLocked
		}
		locks := space.Locks(command)
		space.Participant(func(p *commit.Participant) { err = g.locks.Admit(locks, p) })
		if err != nil {
			return 0, keyspace.ErrLocked
		}
	}
	last := len(g.flying) - 1
	g.flying[last]++
	return g.first + uint64(last), nil
}

func (g *gate) leave(ticket uint64) {
	g.flying[ticket-g.first]--
	for len(g.flying) > 1 && g.flying[0] == 0 {
		g.flying, g.first = g.flying[1:], g.first+1
	}
	for len(g.waiting) > 0 && g.waiting[0].before <= g.first {
		w := g.waiting[0]
		g.waiting = g.waiting[1:]
		w.applied()
	}
}

// move makes place the one of the locks, unless it is an earlier one. What was locked
// before is not locked any more.
func (g *gate) move(place commit.Place) bool {
	if g.place.Term > place.Term || g.place.Generation > place.Generation {
		return false
	}
	if g.place != place {
		g.place, g.locks = place, commit.NewLocks(place)
	}
	return true
}

// acquire locks; applied is called when all that was taken in before is applied.
func (g *gate) acquire(now time.Duration, w *wanted, space *keyspace.Space, applied func()) (grant commit.Grant, err error) {
	if _, over := g.over[w.txn]; over {
		return grant, commit.ErrLockLost
	}
	space.Participant(func(p *commit.Participant) { grant, err = g.locks.Acquire(now, w.txn, w.locks, p) })
	switch {
	case err != nil:
	case len(g.flying) == 1 && g.flying[0] == 0:
		applied()
	default:
		g.flying = append(g.flying, 0)
		g.waiting = append(g.waiting, waiting{g.first + uint64(len(g.flying)-1), applied})
	}
	return grant, err
}

// propose lets a prepare into the log. It must be ended.
func (g *gate) propose(c *commit.Prepare) error {
	if err := g.locks.Propose(c.Txn, c.Grant); err != nil {
		return err
	}
	if g.prepares[c.Txn] == nil {
		g.prepares[c.Txn] = &flight{}
	}
	g.prepares[c.Txn].prepares++
	return nil
}

// prepared ends a prepare: what it locked is in the log now, or free.
func (g *gate) prepared(c *commit.Prepare) {
	g.locks.Prepared(c.Txn, c.Grant)
	f := g.prepares[c.Txn]
	if f.prepares--; f.prepares == 0 {
		delete(g.prepares, c.Txn)
		for _, done := range f.done {
			done()
		}
	}
}

// release ends the locks of a transaction; done is called when no prepare of it is on its
// way into the log.
func (g *gate) release(now time.Duration, id commit.TxnID, done func()) {
	g.locks.Release(id)
	g.over[id] = now
	if f := g.prepares[id]; f != nil {
		f.done = append(f.done, done)
		return
	}
	done()
}

// expire ends the locks that no prepare followed in time.
func (g *gate) expire(now time.Duration) {
	g.locks.Expire(now)
	for id, since := range g.over {
		if now-since > 2*commit.LockMax {
			delete(g.over, id)
		}
	}
}
