// Package keyspace gives a segment etcd's semantics: puts, deletes, ranges,
// transactions, leases, alarms and compaction over the multi-version state of
// package mvcc.
//
// # How a command travels
//
// A command in the log is one byte that names the operation and its format, then
// the request as the client encoded it:
//
//	+----+----------------------------------+
//	| Op | protobuf request, byte for byte  |
//	+----+----------------------------------+
//
// [Space.Apply] applies all commands of one log entry as one mvcc.Batch. Readers
// see all of them or none. Each command that writes gets one revision; answers
// are encoded, header included, only if somebody waits for them.
//
// # Guarantees
//
//   - Deterministic: the same entries give the same state on every replica,
//     whether answers were wanted or not, however the commits fell and whatever
//     was restarted in between. Nothing here reads a clock, a map's order, a
//     float or a random number.
//   - Answers are etcd 3.7.3's, to the field: revisions, count and more, the
//     bare headers inside a transaction, keys-only answers without leases. Where
//     etcd would panic (a transaction that deletes a key and puts it again with
//     ignore_value) the put keeps what the key had before the transaction.
//   - Every check that can refuse is made before anything is written, so a
//     transaction takes effect as a whole or not at all.
//   - A malformed request, or one that breaks a rule, is a known outcome. A
//     command with an unknown operation means that this program is older than the
//     log: it panics, because skipping it would let replicas differ.
//
// # Leases
//
// A lease is a row of the segment's side table "lease"; which keys hang on it is
// told by the keys themselves and rebuilt when a segment is opened. Who decides
// when a lease ends is package lease, on the leader; here an expiry is a command
// like any other, checked against term and epoch.
//
//	bucket "lease"   key: ID, 8 bytes big-endian
//	                 value: version 1, then uvarint TTL, remaining, epoch
//	bucket "alarm"   key: type, 4 bytes, member, 8 bytes, both big-endian; no value
//
// # Quota
//
// As in etcd the size of a node's file never decides in apply: a node that finds
// it too large ([Limits.OverQuota]) refuses the request and proposes the NOSPACE
// alarm, and while that stands in the log every replica answers puts, grants and
// transactions with puts with ErrNoSpace. Deletes and compactions go on.
//
// # Concurrency
//
// Apply is called by one goroutine; everything else by any. Readers of keys work
// on snapshots. Readers of leases and alarms share a lock with Apply, which holds
// it for one log entry; their longest section copies the keys of one lease. A
// mvcc.Publisher is called inside Apply and must not call back into the Space.
//
// # What this package does not do
//
// It does not judge what etcd judges before proposing (empty keys, too many or
// overlapping operations: node/etcdapi), choose lease IDs or minimum TTLs (the
// proposer), map errors to gRPC codes, check users, or apply structural commands.
// A Space belongs to one opened segment: after a snapshot was installed a new one
// is made of the new segment.
package keyspace
