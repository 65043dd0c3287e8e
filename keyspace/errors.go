package keyspace

import (
	"errors"

	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Outcomes other than success. All are known: the command changed nothing.
var (
	// ErrCompacted: the revision asked for lies below the compacted one.
	ErrCompacted = mvcc.ErrCompacted
	// ErrFutureRev: the revision asked for has not been reached.
	ErrFutureRev = mvcc.ErrFutureRev
	// ErrKeyNotFound: a put that keeps value or lease found no key.
	ErrKeyNotFound = errors.New("keyspace: key not found")
	// ErrLeaseNotFound: there is no such lease.
	ErrLeaseNotFound = errors.New("keyspace: lease not found")
	// ErrLeaseSpread: the lease's keys may lie in other ranges, too, or in more than
	// the command knew of. Look at LeaseRanges again.
	ErrLeaseSpread = errors.New("keyspace: lease has keys in other segments")
	// ErrLeaseStale: a lease was to be opened on the word of a registration from
	// before another lease was forgotten here. Register it again.
	ErrLeaseStale = errors.New("keyspace: registration of the lease is too old")
	// ErrLeaseExists: a grant named an ID that is taken.
	ErrLeaseExists = errors.New("keyspace: lease already exists")
	// ErrLeaseTTLTooLarge: a grant asked for more than LeaseTTLMax seconds.
	ErrLeaseTTLTooLarge = errors.New("keyspace: too large lease TTL")
	// ErrLeaseExpiryStale: an expiry was judged in another term, or before the
	// lease was renewed through the log. Only the proposing core sees it.
	ErrLeaseExpiryStale = errors.New("keyspace: lease expiry is stale")
	// ErrWrongSegment: the request names keys outside of the segment's range. Its
	// sender routed by a stale descriptor.
	ErrWrongSegment = errors.New("keyspace: key outside of the segment's range")
	// ErrStampOrder: the revision that came with the command is not above the
	// segment's current one. The command may be tried again with a new one.
	ErrStampOrder = errors.New("keyspace: stamp is not above the segment's revision")
	// ErrLocked: a transaction over several segments that is not decided yet holds
	// keys of the command. The command may be tried again.
	ErrLocked = errors.New("keyspace: keys are held by a transaction over several segments")
	// ErrOvertaken: the revision to read at, which the client did not choose, lies
	// below the compacted one by now. The read may be tried again at a new one.
	ErrOvertaken = errors.New("keyspace: revision to read at has been compacted meanwhile")
	// ErrNoSpace: the NOSPACE alarm stands and the command would add data.
	ErrNoSpace = errors.New("keyspace: no space")
	// ErrScopeFull: the command would make the scope larger than its quota.
	ErrScopeFull = errors.New("keyspace: the scope's quota is used up")
	// ErrShareStale: the share of the quota has changed since it was looked at.
	ErrShareStale = errors.New("keyspace: the segment's share of its scope's quota is another by now")
	// ErrCorrupt: the CORRUPT alarm stands.
	ErrCorrupt = errors.New("keyspace: corrupt cluster")
)
