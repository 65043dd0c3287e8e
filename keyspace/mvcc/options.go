package mvcc

import "errors"

// Options are a store's limits.
type Options struct {
	// CommitBytes of pending writes raise Store.Wanted, in bytes. Bigger commits
	// cost less per write and make recovery replay more of the log.
	CommitBytes int
	// MaxPendingBytes is where Segment.Begin waits for a commit to finish, in
	// bytes: a disk that falls behind slows apply down and does not fill memory.
	// Whoever applies must not be the one who commits.
	MaxPendingBytes int
}

// DefaultOptions suits a node's scope.
func DefaultOptions() Options {
	return Options{CommitBytes: 8 << 20, MaxPendingBytes: 256 << 20}
}

// Validate refuses what cannot work.
func (o Options) Validate() error {
	if o.CommitBytes <= 0 {
		return errors.New("mvcc: CommitBytes must be positive")
	}
	if o.MaxPendingBytes < o.CommitBytes {
		return errors.New("mvcc: MaxPendingBytes must be at least CommitBytes")
	}
	return nil
}
