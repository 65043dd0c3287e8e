package txns

import (
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// gate is what a segment's leader keeps in memory: the locks of transactions that are
// not prepared yet, and which ordinary writes are under way. It is there before and
// after this node leads; the locks are those of one place.
type gate struct {
	mu    sync.Mutex
	place commit.Place // of the locks; Term 0: there are none
	locks *commit.Locks

	// Writes are counted by epochs. A lock begins a new one and waits until the
	// epochs before are empty: then all that came before it is applied.
	first   uint64 // the epoch of flying[0]
	flying  []int
	waiting []waiting

	prepares map[commit.TxnID]*flight // on their way into the log
	// over are transactions that were released, as long as a request of theirs for locks
	// may still be on its way.
	over map[commit.TxnID]time.Duration
}

// flight is the prepares of one transaction: one for each of its parts here. There are
// several if its coordinator does not know yet that their segments were merged.
type flight struct {
	prepares int
	done     chan struct{} // closed when there are none any more
}

type waiting struct {
	before uint64 // epochs below this one
	done   chan struct{}
}

func newGate() *gate {
	return &gate{
		locks: commit.NewLocks(commit.Place{}), flying: make([]int, 1),
		prepares: make(map[commit.TxnID]*flight), over: make(map[commit.TxnID]time.Duration),
	}
}

// enter admits an ordinary write, which must leave with the ticket when it has ended.
// The error wraps keyspace.ErrLocked. What a lease's end deletes is not known while a write
// of before a lock may still attach the key that is locked: it waits for that.
func (g *gate) enter(space *keyspace.Space, command []byte) (ticket uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
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
	g.flying[len(g.flying)-1]++
	return g.first + uint64(len(g.flying)-1), nil
}

func (g *gate) leave(ticket uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flying[ticket-g.first]--
	for len(g.flying) > 1 && g.flying[0] == 0 {
		g.flying, g.first = g.flying[1:], g.first+1
	}
	for len(g.waiting) > 0 && g.waiting[0].before <= g.first {
		close(g.waiting[0].done)
		g.waiting = g.waiting[1:]
	}
}

// at makes place the one of the locks, if it is a later one. What was locked before is
// not locked any more.
func (g *gate) at(place commit.Place) (already bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.place == place
}

func (g *gate) move(place commit.Place) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.place.Term > place.Term || g.place.Generation > place.Generation {
		return false
	}
	if g.place != place {
		g.place, g.locks = place, commit.NewLocks(place)
	}
	return true
}

// acquire locks. What is read under the locks must wait for applied to be closed; nil
// is closed already.
func (g *gate) acquire(now time.Duration, w *wanted, space *keyspace.Space) (grant commit.Grant, applied chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, over := g.over[w.txn]; over {
		return grant, nil, commit.ErrLockLost
	}
	space.Participant(func(p *commit.Participant) { grant, err = g.locks.Acquire(now, w.txn, w.locks, p) })
	if err != nil {
		return grant, nil, err
	}
	if len(g.flying) == 1 && g.flying[0] == 0 {
		return grant, nil, nil
	}
	g.flying = append(g.flying, 0)
	applied = make(chan struct{})
	g.waiting = append(g.waiting, waiting{g.first + uint64(len(g.flying)-1), applied})
	return grant, applied, nil
}

// propose lets a prepare into the log. It must be ended.
func (g *gate) propose(c *commit.Prepare) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.locks.Propose(c.Txn, c.Grant); err != nil {
		return err
	}
	f := g.prepares[c.Txn]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		g.prepares[c.Txn] = f
	}
	f.prepares++
	return nil
}

// prepared ends a prepare: what it locked is in the log now, or free.
func (g *gate) prepared(c *commit.Prepare) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.locks.Prepared(c.Txn, c.Grant)
	if f := g.prepares[c.Txn]; f.prepares > 1 {
		f.prepares--
	} else {
		close(f.done)
		delete(g.prepares, c.Txn)
	}
}

// release ends the locks of a transaction and returns what to wait for if a prepare of
// it is on its way into the log, or nil.
func (g *gate) release(now time.Duration, id commit.TxnID) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.locks.Release(id)
	g.over[id] = now
	if f := g.prepares[id]; f != nil {
		return f.done
	}
	return nil
}

// expire ends the locks that no prepare followed in time.
func (g *gate) expire(now time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.locks.Expire(now)
	for id, since := range g.over {
		if now-since > 2*commit.LockMax {
			delete(g.over, id)
		}
	}
}
