package commit

import (
	"slices"
	"time"
)

// Limits of a lock table.
const (
	// LocksMax is how many transactions may hold locks at one leader that are not
	// prepared yet; more are refused with ErrTooMany.
	LocksMax = 4096
	// LockMax is how long a transaction may hold locks before its prepare is
	// proposed. A coordinator that takes longer is taken for dead.
	LockMax = 2 * time.Second
)

// Grant is the proof of a lock that a prepare must show. Number tells apart locks
// that the same transaction was granted twice.
type Grant struct {
	Place  Place
	Number uint64
}

// Blocked says who is in the way. Its Unwrap is ErrConflict.
type Blocked struct {
	By TxnID
	// Prepared: whoever waits for a second may recover it (Recoverer). Otherwise
	// the lock ends by itself, with the prepare or with LockMax.
	Prepared bool
}

// Error implements error.
func (b *Blocked) Error() string { return "commit: locked by transaction " + b.By.String() }

// Unwrap makes errors.Is(b, ErrConflict) true.
func (b *Blocked) Unwrap() error { return ErrConflict }

// Locks is a leader's table of locks that are not prepared yet. It belongs to one
// place and dies with it: a leader of a new term, or of another generation, begins
// with NewLocks. Prepared locks are not in here, they are replicated: see
// Participant. Nobody ever waits in it.
type Locks struct {
	place Place
	last  uint64
	held  []holding // in order of their numbers
}

type holding struct {
	txn      TxnID
	number   uint64
	since    time.Duration
	locks    []Lock
	proposed bool
}

// NewLocks returns the empty table of a leader that has applied an entry of its own
// term, and with it every prepare it inherited.
func NewLocks(place Place) *Locks { return &Locks{place: place} }

// Idle reports whether nothing is locked.
func (l *Locks) Idle() bool { return len(l.held) == 0 }

// Acquire locks everything or nothing. The caller reads what was locked once all
// that was proposed before is applied. applied is the segment's participant.
func (l *Locks) Acquire(now time.Duration, id TxnID, locks []Lock, applied *Participant) (Grant, error) {
	if err := l.free(id, locks, applied); err != nil {
		return Grant{}, err
	}
	if len(l.held) >= LocksMax {
		return Grant{}, ErrTooMany
	}
	l.last++
	l.held = append(l.held, holding{txn: id, number: l.last, since: now, locks: locks})
	return Grant{Place: l.place, Number: l.last}, nil
}

// free returns a *Blocked if someone else than id holds one of the locks.
func (l *Locks) free(id TxnID, locks []Lock, applied *Participant) error {
	for i := range l.held {
		if h := &l.held[i]; h.txn != id && conflict(h.locks, locks) {
			return &Blocked{By: h.txn}
		}
	}
	if by, blocked := applied.Blocks(id, locks); blocked {
		return &Blocked{By: by, Prepared: true}
	}
	return nil
}

// Admit judges an ordinary command at propose that reads or writes the given keys
// and is not part of a transaction over segments: nil, or a *Blocked. A write that
// waits for the lock must ask for its stamp after the lock is gone.
func (l *Locks) Admit(locks []Lock, applied *Participant) error {
	return l.free(TxnID{}, locks, applied)
}

// Propose allows the prepare to go into the log, once: afterwards the lock stays
// until Release. Without the grant the answer is ErrLockLost.
func (l *Locks) Propose(id TxnID, g Grant) error {
	i := slices.IndexFunc(l.held, func(h holding) bool { return h.txn == id && h.number == g.Number })
	if g.Place != l.place || i < 0 || l.held[i].proposed {
		return ErrLockLost
	}
	l.held[i].proposed = true
	return nil
}

// Prepared ends the lock of one grant: its prepare was applied or dropped. What the same
// transaction was granted and has not proposed goes with it, be it the lock of a request
// that came twice. Its other prepares on their way into the log keep theirs: of segments
// that were merged a coordinator may know two still, and prepare both parts.
func (l *Locks) Prepared(id TxnID, g Grant) {
	if g.Place == l.place {
		l.held = slices.DeleteFunc(l.held, func(h holding) bool { return h.txn == id && (h.number == g.Number || !h.proposed) })
	}
}

// Release ends all locks of a transaction: its coordinator gave up, or it is told to
// abort (before OpAbort is proposed, so that no prepare can come after that in the log).
func (l *Locks) Release(id TxnID) {
	l.held = slices.DeleteFunc(l.held, func(h holding) bool { return h.txn == id })
}

// Expire ends the locks that were not followed by a prepare in time and says
// whether there were any. A prepare that comes later is refused.
func (l *Locks) Expire(now time.Duration) bool {
	n := len(l.held)
	l.held = slices.DeleteFunc(l.held, func(h holding) bool { return !h.proposed && now-h.since >= LockMax })
	return len(l.held) < n
}
