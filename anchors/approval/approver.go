package approval

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
)

// Approver is what a voter remembers of one segment, so that it never signs two batches
// for one place of the log. What a crash takes with it is safe: the sequence counts
// within a term, and one leader gives it.
type Approver struct {
	term, sequence uint64
	digest         anchormesh.Hash
}

// May reports whether the voter may sign, and remembers it.
func (a *Approver) May(q *Question) error {
	switch {
	case q.Term < a.term:
		return fmt.Errorf("%w: term %d, this voter has answered in %d", ErrStale, q.Term, a.term)
	case q.Term == a.term && q.Sequence < a.sequence:
		return fmt.Errorf("%w: sequence %d, this voter has answered %d", ErrStale, q.Sequence, a.sequence)
	case q.Term == a.term && q.Sequence == a.sequence && q.Digest != a.digest:
		return fmt.Errorf("%w: sequence %d names another batch than before", ErrForged, q.Sequence)
	}
	a.term, a.sequence, a.digest = q.Term, q.Sequence, q.Digest
	return nil
}
