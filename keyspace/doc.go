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
// # Stamps
//
// Where revisions are given out by the scope's home, a command carries its own:
//
//	+-----------+------------------------+----+---------+
//	| OpStamped | revision, 8 big-endian | Op | request |
//	+-----------+------------------------+----+---------+
//
// It must be above the segment's revision, or the command changes nothing and its
// outcome is ErrStampOrder. Revisions below it are history to its reads. What writes
// nothing answers with its stamp and leaves the segment's revision. A compaction may
// go up to its stamp, which says that nothing at or below can come here any more, and
// raises the segment to where it compacts. Commands without stamp count by one.
//
// Reads at a T (RangeAt, ReadTxnAt, RangeStreamAt) show T in the header and nothing
// newer; codec.RangeMerge makes one answer of several segments'.
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
//	bucket "lease"        key: ID, 8 bytes big-endian
//	                      value: version 1, then uvarint TTL, remaining, epoch
//	bucket "lease-spread" key: ID
//	bucket "lease-mark"   key: ID; 0 is the floor
//	                      both: version 1, 1 if ending, uvarint since, changed, then
//	                      ranges: start and end, each with its length as uvarint
//	bucket "alarm"        key: type, 4 bytes, member, 8 bytes, both big-endian; no value
//
// # Leases over several segments
//
// The segment at the beginning of the root scope is the leases' home. Keys elsewhere
// hang on a lease where its mark says that it is open, which is less than the segment
// if that grew by an absorb. A node whose put is answered with ErrLeaseNotFound
//
//	home       OpLeaseRegister{ID, range}         the answer is the next command
//	elsewhere  OpLeaseOpen{ID, since, at, range}  then the put again
//
// and a leader of the home that ends a lease with registered ranges (LeaseSpread;
// OpLeaseRevoke and OpLeaseExpire are ErrLeaseSpread then)
//
//	home       OpLeaseEnding{ID}                  no registration any more; keys here go
//	elsewhere  OpLeaseEnd{ID, since, range}       to whoever owns each part of each range:
//	                                              keys there go, puts are refused
//	home       OpLeaseFinish{ID, since, at}       ErrLeaseSpread: look again, a range came
//	elsewhere  OpLeaseForget{ID, since, at}       any time later; the answer of finish
//
// Each deletes its keys in a revision of its own; of etcd's one revision there are
// several. All may come late, twice, or after a cut or absorb. An open that comes after
// the end finds the mark; one that comes after the mark was forgotten was registered
// at a log index of the home at or below the floor, which forgetting raises:
// ErrLeaseStale, register again. "since" tells leases of one ID apart that were granted
// one after the other. A new leader of the home goes on with EndingLeases.
//
// A cut registers and opens what hangs on leases in the child's range, and clips marks
// to both sides; an absorb unites marks.
//
// # Transactions over several segments
//
// Package commit decides; here its commands are applied. What can refuse refuses at
// OpPrepare: leases, alarms, keys outside of the range. From then on until the decision
// ordinary commands that touch what is locked, ends of leases that the writes name and
// compactions above the prepare's stamp are ErrLocked, which changes nothing. OpCommit
// may write below the newest revision; reads that name no revision stay at the smallest
// prepared stamp, and OnHold tells those who show things in order.
//
//	buckets "commit-prepared", "commit-decision", "commit-floor": see package commit
//
// # Governance
//
// What a scope's policy says of writes ([Space.Govern]) is judged here by package rules. Every key that a put, a
// deletion of a range or the taken branch of a transaction touches is judged, in order,
// each as the ones before it have left it, before anything is written; of a transaction
// over several segments at its prepare, and never again. The first refusal refuses the
// command. What etcd refuses by itself (leases, missing keys) comes first. Not judged is what the
// system deletes: the keys of a lease that ends, whether it expired or was revoked. So a scope whose keys
// must never go needs a rule against leases.
//
// Who gave a command stands in front of it (OpBy) where the rules ask: see [Origin]. A
// signed write is one whose signature was verified here, in apply (package signed). Over
// several segments there is none: each would see its share only.
//
//	bucket "signer"       key: ed25519 key, or none for the floor; value: see package signed
//	bucket "quota-share"  key: none; value: version 1, then AppendShare's uvarints
//
// The scope's quota bounds keys and bytes that are alive, keys' and values' bytes,
// history not included. It refuses what would make them more than the quota
// (ErrScopeFull), and nothing that does not grow. What is prepared has its room reserved. A
// segment that was cut has a share of the quota, by OpShare; without one, the whole. At a cut each side keeps what it
// holds and half of what is free, an absorb adds up. The figures are counted once when the quota
// comes into force or the segment is opened, and at a cut for the child: some hundred
// nanoseconds for each key.
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
// proposer), give out stamps or know what is complete (package line), map errors to gRPC codes, check users, or apply structural commands.
// A Space belongs to one opened segment: after a snapshot was installed a new one
// is made of the new segment, and a child that was cut off gets one of its own.
package keyspace
