// Package commit is transactions (Txn, DeleteRange) over several segments of a scope:
// two-phase commit that any node can finish. It is pure; package keyspace applies its
// commands, node carries its messages.
//
//	Divide, Join, Plan   what a request comes to, whoever holds its keys
//	Coordinator          one attempt, on the node that was asked
//	Recoverer            ends what a coordinator left behind, on any node
//	Locks                a leader's locks that are not prepared yet, in its memory
//	Participant          a segment's prepared transactions and decisions, in its log
//
// # The order of steps
//
//	coordinator            every participant            the first key's range
//	Acquire          -->   lock, then read
//	Join: compares, branch, writes, their places
//	PrepareAt        -->   prepare, at a stamp p of its own
//	AskRevision      -->   (the scope's home: C, above every p)
//	DecideAt         ----------------------------->     decide {commit, C}: its own
//	answer the client  <-----------------------------   writes are made with it
//	TellAt           -->   commit {C}
//	ForgetAt         ----------------------------->     forget
//
// # Guarantees
//
//   - All or nothing. Only the coordinator writes Commit, once, and only where the
//     decision's range holds the prepared transaction. The first decision written
//     wins. An Abort throws away what is prepared there in the same entry, so a
//     coordinator that comes late finds nothing to commit, even when the Abort has
//     been forgotten.
//   - Nothing refuses late. Whatever can refuse does so at the prepare; after it
//     leases do not end ([Participant.HoldsLease]) and what touches the locks is
//     refused or waits ([Participant.Blocks], [Locks.Admit]).
//   - One place in the order. C is asked for when all are prepared, so it is above
//     every p and every T given out before. From p on, barriers at or above p, watch
//     events above p and compactions wait ([Participant.Lowest]). A commit may lie
//     below the segment's newest revision, never below an answered barrier. What
//     comes behind it is above C, where nothing was written too
//     ([Participant.Floor]).
//   - Strictly serializable. The client may be answered as soon as the decision is
//     applied at its range, before any other participant knows: a read that begins
//     then takes a T of at least C, above every p, and waits.
//   - Nobody waits for a lock. A conflict ends the attempt; the next one locks in
//     key order. Locks that no prepare follows end after LockMax.
//   - It ends. Whoever was blocked for a second recovers; any number may. A leader
//     resumes decisions that stay.
//   - Found by key. Records and decisions are cut and absorbed with the ranges that
//     hold their keys ([Participant.Cut], [Participant.Absorb]); a participant that
//     was split is told part by part.
//   - Apply is deterministic: tables are ordered slices, nothing reads a clock.
//
// # What it asks of those who carry it
//
// A request is delivered at most once: one whose fate is unknown is reported as Lost
// and never sent again by the carrier. (A DecideAt that came twice could find its own
// commit finished and forgotten, and be read as a refusal.) TellAt and ForgetAt are
// answered from the applied entry, never from memory: a leader that has not applied
// what it inherited would confirm what it does not know. Locks and stamps are given
// only by a leader that has applied an entry of its own term.
//
// # Limits
//
// LocksMax transactions hold locks at a leader, RecordsMax are prepared in a segment,
// a transaction names RangesMax ranges and reads ReadBytesMax. Beyond: ErrTooMany or
// ErrTooLarge, before anything is written. A DeleteRange over several segments lists
// every key that it deletes, so that its records can be cut.
//
// # What it does not do
//
// It gives no stamps and answers no barriers (package line), judges no lease, quota,
// alarm or policy (package keyspace, before [Participant.Prepare]), and knows no
// clock but LockMax's. While the range of the decision has no majority, what is
// prepared elsewhere waits, and so do watches and barriers there.
package commit
