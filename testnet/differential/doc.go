// Package differential sends the same random calls to two servers of etcd's API
// and compares whole answers: every field, every error by code and text. The
// reference is a real etcd.
//
// # What is equal
//
// Headers are compared by revision; cluster, member and raft term are not. The
// remaining time of a lease is compared with a tolerance, the keys of a lease as
// a set (etcd gives them in map order), and so are leases (only a leader of etcd
// has them in the order of expiry). Watches are compared as one sequence per
// watch of creation, events and cancellation, since how events are packed into
// responses is timing. RangeStream is compared after merging its chunks.
//
// # Sequences
//
// Generate makes a list of Ops from a seed alone, so that a seed is a test case.
// Revisions in Ops are relative: origin stands for the revision at which the
// sequence began. Before a sequence both servers are cleaned and brought to the
// same revision (see reset), so any number of sequences can run on two servers
// and a failing one can be run again, shortened (see Shrink).
//
// Answers must not depend on timing, so before an Op that would race with the
// delivery of events (cancel, compact), and after the creation of a watch, streams
// are settled: a key that no Op names is put, then progress is requested until an
// answer reaches that put's revision, which etcd gives only when every watch of
// the stream has seen everything up to it. Watches of future revisions keep etcd
// from answering progress requests at all; they live on a stream of their own,
// settled by the event of the put.
//
// # What is left out, because etcd itself has no stable answer
//
//   - a transaction that deletes and has a put with ignore_value or ignore_lease:
//     etcd 3.7.3 panics if the key is gone by then
//   - HashKV at a revision that was compacted at: etcd may answer from a cache
//     whose content depends on when the compaction ran
//   - more than 12 keys in a range that is sorted by something else than keys:
//     etcd's sort is unstable above that
//   - a prev_kv on events of watches that did not ask for it: etcd shares event
//     objects between watches
package differential
