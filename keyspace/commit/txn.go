package commit

import (
	"bytes"
	"encoding/hex"
	"errors"

	"github.com/anchormesh/anchormesh"
)

// Outcomes that changed nothing. All are known: what was refused may be tried again
// under another TxnID.
var (
	// ErrConflict: a key is locked by another transaction.
	ErrConflict = errors.New("commit: locked by another transaction")
	// ErrLockLost: the lock behind a prepare is gone, or was granted in another
	// term, generation or scope.
	ErrLockLost = errors.New("commit: the lock is gone")
	// ErrStampOrder: a prepare's stamp is not above what the segment has seen, or a
	// commit's revision not above its prepare's stamp.
	ErrStampOrder = errors.New("commit: stamp out of order")
	// ErrDecided: the transaction was decided against before it was prepared here.
	ErrDecided = errors.New("commit: the transaction was aborted")
	// ErrNotPrepared: a commit was to be decided where nothing is prepared: it was
	// aborted, or decided, finished and forgotten.
	ErrNotPrepared = errors.New("commit: the transaction is not prepared here")
	// ErrTooMany: a table is full.
	ErrTooMany = errors.New("commit: too many transactions under way")
	// ErrTooLarge: the transaction names more than may be locked at once.
	ErrTooLarge = errors.New("commit: the transaction spans too much")
	// ErrMalformed: bytes are not what this package writes.
	ErrMalformed = errors.New("commit: malformed record")
)

// TxnID names one attempt at a transaction over several segments. The coordinator
// draws it at random; it is never used again, not for the second try either.
type TxnID [16]byte

// String is the form used in logs and tables: 32 hex digits.
func (id TxnID) String() string { return hex.EncodeToString(id[:]) }

func (id TxnID) compare(o TxnID) int { return bytes.Compare(id[:], o[:]) }

// Place is where a lock was granted and where a prepare is applied: the two must be
// the same, because locks live in a leader's memory.
type Place struct {
	Term       uint64
	Generation anchormesh.Generation
	Scope      string // its prefix
}

// Lock is a key range that a transaction needs left alone: shared for what it
// reads, exclusive for what it writes. A range locks against inserts, too.
type Lock struct {
	Range     anchormesh.KeyRange
	Exclusive bool
}

func (l Lock) conflicts(o Lock) bool {
	return (l.Exclusive || o.Exclusive) && l.Range.Overlaps(o.Range)
}

func conflict(a, b []Lock) bool {
	for _, x := range a {
		for _, y := range b {
			if x.conflicts(y) {
				return true
			}
		}
	}
	return false
}

// Write is one change of one key, final: values and leases that the request left
// to what was there are filled in. Sub is its place in the revision, counted over
// all segments in the order of the request.
type Write struct {
	Sub    uint32
	Delete bool
	Key    []byte
	Value  []byte
	Lease  int64
}

// Verdict is what was decided of a transaction.
type Verdict struct {
	Commit   bool
	Revision int64 // C; zero if aborted
}
