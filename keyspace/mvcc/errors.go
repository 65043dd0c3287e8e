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
	// ErrExists: the store has a segment, present or absent, of this ID.
	ErrExists = errors.New("mvcc: segment already exists in this store")
	// ErrUnknown: the store has no segment of this ID.
	ErrUnknown = errors.New("mvcc: segment is not in this store")
	// ErrOverlap: the range shares keys with another segment of the store.
	ErrOverlap = errors.New("mvcc: range overlaps another segment of this store")
	// ErrFormat: the store was written by a version that this one cannot read.
	ErrFormat = errors.New("mvcc: unknown store format")
	// ErrCorrupt: the store holds what no version writes; its owner must not serve from it.
	ErrCorrupt = errors.New("mvcc: store is corrupt")
	// ErrBadSnapshot: the chunks of an install are damaged, incomplete or of another segment.
	ErrBadSnapshot = errors.New("mvcc: snapshot is damaged or does not fit")
	// ErrBusy: another install into this range is running.
	ErrBusy = errors.New("mvcc: range is being installed")
)
