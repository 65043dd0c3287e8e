// Package mvcc is the multi-version state of a scope's segments on one node: keys,
// their versions under etcd's revisions, side tables, and the position in the log
// that they reflect.
//
//	Store      one scope on one node: a backend and the segments in it
//	Segment    one apply goroutine writes, any number read
//	Batch, Txn the application of one log entry; the transactions in it
//	View       a snapshot for reads
//	Export, Installer   a segment on its way to another node
//
// # Revisions
//
// As in etcd: an empty segment is at revision 1, the first write makes 2; writes of a
// transaction share Main and count Sub from 0; a transaction that writes nothing, a
// deletion of nothing included, takes no revision. Reading at 0 is reading the
// newest. Reads, hashes and watches at the compacted revision itself work, below it
// they are ErrCompacted. Compact is ErrCompacted at or below the compacted revision,
// which is -1 before the first compaction, and ErrFutureRev above the current one.
// TxnAt takes revisions that were assigned elsewhere, which must grow but may leave
// gaps. ReadAt reads at one that the caller knows to be complete, current or not.
//
// CommitAt alone writes at or below the current revision: the share of a transaction
// over several segments, whose revision is chosen when all of them are prepared. Until
// it comes, Hold keeps views at what is complete, so that no view that was opened
// before sees it; ReadAt goes beyond, on its caller's word. What is published is in
// order within a batch; over batches up to Hold's revision only.
//
// # Where the bytes are
//
//	         apply                          Commit, in the background
//	           |                                    |
//	           v         seal (locked)              v      Update (not locked)
//	index   [active] ------------------> [sealed] ----> backend: one transaction
//	(all     newest     at a commit,      waiting or    everything older
//	 keys)   writes     cut or absorb     being written
//	           \____________________|_________________/
//	                                v
//	                    View = revision, tails of the buffers, backend snapshot
//
// The index holds every key and the revisions of its versions; the encoded
// mvccpb.KeyValue of a revision is in exactly one of the places that a view holds,
// found by its origin and main revision. Buffers only grow at their ends and are
// dropped whole, so a view keeps pointers and copies nothing. The index keeps old
// versions, so a view reads it in short locked steps, as of its revision, while
// newer writes go in.
//
// # Guarantees
//
// Atomicity. Readers see a batch whole or not at all: Begin takes the segment's lock
// and End shows the new revision, state and applied index together. Publisher hears
// of it after that, in order, outside the lock.
//
// Durability. A commit is one backend transaction with the writes of all segments up
// to a batch's end, their side tables, and their positions: the applied index on
// disk never disagrees with the data. After a crash the log is replayed from
// Segment.Durable. A failed transaction, whatever the cause, is final: the store
// refuses all further ones, reads go on, and the owner must crash and recover.
//
// Limits. Pending bytes above Options.CommitBytes raise Wanted; at MaxPendingBytes
// Begin waits for a commit. A view held for long pins memory and free pages and
// holds up the physical part of later compactions; apply, commits and other
// readers do not notice (but see bolt.FileConfig.MapBytes).
//
// Compaction is logical at once, with its entry; Scrub removes the waste later in
// bounded steps. It begins only when the compaction itself is committed (else a
// crash could come back to a state that still promises what was removed) and when
// no view from before it is open. Its progress inside a compaction is not recorded:
// after a crash the compaction is walked again from the first key.
//
// Snapshots. An export is the segment at its durable applied index, from one backend
// snapshot. An install marks the segment absent in the transaction before anything
// is cleared, and present in the one that holds its last records. A crash in
// between leaves it absent: Store.Absent names it, nothing serves it, and Install or
// Remove may be called again.
//
// # Cut and absorb
//
//	before   1 [a ........................... z)   index, sealed S1 S2, active A
//	cut      1 [a ..... m)   2 [m ........... z)   both hold S1 S2 A, now all sealed;
//	                                               each has half of the index
//	commit   records of 1 and 2, and S1 S2 A once, in one transaction
//
// Batch.Cut divides the segment where it lies: no record moves, for records belong to
// whom the range says. The index is cut along one path from its root. Writes that wait
// for a commit are sealed and shared; they go to the backend under the segment that
// applied them. Batch.Absorb is the reverse, with the index joined along one path.
// Both take microseconds, and the segments' locks for as long.
//
// Atomicity. A commit that freezes a parent freezes what was cut off it, whenever the
// commit began, and removes what it absorbed, in the same transaction. Until then the
// disk has the ranges from before, and replay does it again: a child is Synced when it
// can no longer be lost, and Durable of the absorbing segment tells when the other's
// log may go. Remove and Install commit first if a cut or an absorb waits.
//
// Views from before go on: their revisions' bytes are in what they hold, and for the
// index they follow the keys to the segment that has them now. Its scrubs wait for
// them as if they were its own.
//
// A segment's scrubs rest while its range on disk is another than in memory. A child
// goes on where its parent's scrub was. After an absorb the compaction is walked again
// from the first key unless both sides were complete at the same one.
//
// # What it does not do
//
// It judges no request (the same key put twice in a transaction, limits, leases,
// permissions belong above), starts no goroutine, and knows no clock. Where to cut,
// who may absorb whom, and that nothing is applied to a segment that is being absorbed,
// is decided above. Revisions that come below the current one, as the commits of
// transactions over several segments may, are refused.
//
// # Locks
//
//	Store.commitMu   one writer of the backend for live segments (Commit, Scrub,
//	                 Create, Remove, Install); held over the write and the sync
//	Store.mu         the tables of segments; held for moments, under commitMu or alone
//	Segment.mu       index, buffers, head; held by a batch from Begin to End, by
//	                 commits and readers for moments; an absorb takes that of the
//	                 segment to the right, too
//
// The end of a batch with a cut or an absorb takes Store.mu with Segment.mu held;
// nobody takes them the other way round.
//
// A backend snapshot is never taken with Segment.mu held: it may wait for a commit
// that remaps the file, which waits for readers, who may wait for Segment.mu.
//
// # Layout of the backend, format version 1
//
//	bucket "format"     "version" -> one byte
//	bucket "segments"   segment ID (8, big-endian) -> record
//	bucket "aux"        segment ID (8) | table name length (1) | table name | key -> value
//	bucket "revisions"  main (8) | sub (4) | origin (8) [| 't'] -> mvccpb.KeyValue
//
//	record: flags (1: bit 0 = absent) | applied | term | current | compacted+1 |
//	        scrubbed+1 | start | end | state | n | n times (start | end) to clear
//	        numbers are uvarints, byte strings carry their length as one
//
// All segments of the scope share the revisions bucket, and a record belongs to the
// segment whose range holds its key, so a split moves no data. The origin is the ID
// of the segment that applied the write. It keeps apart what two segments wrote
// under the same (main, sub), as the parts of one transaction over several segments
// do, or lines of revisions that meet when scopes come and go; and it is the same on
// every replica, so all see one order. In the index it is a small number, the same for
// all segments of the store, in the high half of Sub. A record with 't' is a tombstone and its KeyValue has the key only.
// Another format version is refused.
//
// # Snapshot chunks
//
//	chunk:  CRC-32C of the rest (4, little-endian) | records
//	record: kind (1) | key length | key | value length | value
//	kinds:  0 header: segment ID, segment record; first
//	        1 revision, 2 aux: as in the backend, in key order
//	        3 end: number of records before it (8, big-endian); last
package mvcc
