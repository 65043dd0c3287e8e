package mvcc

import "errors"

var (
	// ErrCompacted: the revision asked for is below the compacted one.
	ErrCompacted = errors.New("mvcc: required revision has been compacted")
	// ErrFutureRev: the revision asked for has not been reached.
	ErrFutureRev = errors.New("mvcc: required revision is a future revision")
	// ErrRevisionOrder: an externally assigned revision is not above the current one.
	ErrRevisionOrder = errors.New("mvcc: assigned revision is not above the current revision")
	// ErrGone: the segment was removed from this store or replaced by an install.
	ErrGone = errors.New("mvcc: segment is no longer in this store")
)
