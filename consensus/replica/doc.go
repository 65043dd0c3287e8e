// Package replica is the pure core of one Raft group on one node: it wraps
// raft.RawNode, collects requests into log entries, and matches what commits
// with who waits for it.
//
// Inputs are calls (Tick, Step, Propose, ReadIndex, ...); outputs are gathered
// by Ready and must be carried out by the caller. There is no goroutine, lock,
// clock, I/O or logger here; the only reads are of the log through
// raft.Storage.
//
// Guarantees:
//
//   - One entry per batch: requests that arrive while earlier entries are on
//     their way become one log entry (up to MaxBatchBytes and MaxBatchRequests).
//   - Every proposal ends exactly once: with the result of its apply, with
//     ErrDropped (it took effect nowhere and never will), or, when the replica
//     is closed or replaced by a snapshot, with ErrUnknown.
//   - A read round begins after the reads it serves arrived. Each round has an
//     identifier that is never reused, not even after a restart; rounds are thrown away when leader or
//     term change, and their reads join the next round.
//   - An entry whose stamped term is not its Raft term is marked Refused. The
//     leader of a term stamps its entries, so such an entry was moved into a
//     log by somebody else.
//
// Layout of an entry's data (envelope):
//
//	byte     format version (1)
//	uvarint  term of the leader that proposed it
//	uvarint  generation of the segment it was meant for
//	uvarint  sequence within the term, for matching waiters
//	uvarint  number of requests
//	then for each: uvarint length, bytes
package replica
