// Package wal is the write-ahead log of a node: one log for all Raft groups.
//
// A batch of updates of however many groups is one buffer, one write and one
// fdatasync. The newest entries stay in memory, older ones are found in the
// files through an index in memory. The shape is that of dragonboat's and
// TiKV's shared logs; the framing is package frame's.
//
// # Guarantees
//
// Durability: when Append returns nil, the whole batch is on disk. Write is Append
// without the sync: what it wrote outlives the process at once, and the machine when
// Sync, which may run beside it, has returned. A batch is atomic: after a crash it is there as a whole or not at all,
// the second only if it was not synced, and then all that were written behind it are gone, too. Reads show what is written.
// A batch must fit a file; Write makes several of one that is too large.
//
// Promises: the caller may acknowledge what is written and not synced, for a group that
// said so before, durably: Update.Promise, kept in every record of the group. Memory then tells after a
// crash of the machine that entries may be gone.
//
// Order: batches take effect in the order of Append, the updates of a batch in
// theirs. Within an update a snapshot's mark comes first, then entries.
//
// Room: a file goes when no group needs anything in it and what made it
// needless is synced here. That the entries' effects are synced elsewhere is for
// the caller of Truncate, of Update.Snapshot and of Update.Remove to know.
//
// Concurrency: Append and Write have one caller at a time; everything else may be called
// from any goroutine, also while they run.
//
// Failure: a failed write or sync ends the log, every later call returns the
// same error, and the process must stop: nobody knows what is on disk until a
// new process has looked. A full disk is met while the next file is prepared,
// before anything of a batch is written; Listener.Trouble and Stats.SpareErr
// tell of it up to a whole file ahead.
//
// It does not keep snapshots or configurations, does not choose what to
// truncate, and writes what it is given: a bare new commit index costs a sync
// like all else (raft.MustSync says it needs none; leave it for the next update
// of the group if nothing depends on it). A log directory that was emptied is a
// new log: the caller compares with its store's applied index.
//
// # Files
//
// A file has a fixed size and a number; numbers are dense. It is filled with
// zeros, synced and only then given its name, so the fdatasync of a batch has no
// metadata to write. One prepared file always waits, so that a batch never does.
// Old files are not used again: after the newest batch there are zeros, which is
// what makes a torn batch recognisable.
//
//	dir/LOCK                    held while the log is open
//	dir/0000000000000007.wal    oldest file that is needed
//	dir/0000000000000008.wal    written now
//	dir/0000000000000009.wal    prepared: a header and zeros
//
//	file    header (512 bytes, see fileHeader) | frame | frame | ... | zeros
//	frame   header (32 bytes, see package frame) | record | record | ... | padding to 32
//	        its number is dense over all files; its mark is the first needed file (low half)
//	        and how many frames before it were not known to be synced (high half)
//	record  flags u8 | group u64 | head | entries
//	head    [term, vote, commit] | mark index, mark term       (uvarints)
//	entries first index, count (uvarints) | entry ...
//	entry   CRC-32C u32 | term uvarint | kind u8 | length uvarint | data
//
// Every record states the group's whole head, so the newest record decides and
// older ones need not be kept. A removed group's record is flags and group only.
// Entries replace everything from their first index on, except carried ones,
// which replace themselves only. The checksum of an entry covers its group and
// index and is checked whenever the entry is read back.
//
// # Recovery
//
// Frames are read in order; each must have the number after the last one's. A
// frame says up to which one all were synced when it was written: those were
// confirmed, the others may be torn, in any order. They are all in the newest
// file, for one is begun only when the file before is synced. Hence:
//
//   - A damaged frame that a whole one anywhere behind it (also in a later file)
//     calls synced was confirmed: CorruptError.
//   - Without that it may never have been. A power cut leaves each sector of it as
//     written or zero. If more sectors are zero than its header counts, or the
//     rest of the header's sector is zero, it is torn, and zeros are put over it
//     and over all that follows. If all its sectors are there and the checksum is
//     wrong, it was changed later: CorruptError.
//   - A confirmed batch is never torn by a later one: bytes that share a sector
//     with the next batch are written again unchanged, and a sector is written
//     whole or not at all. The file's size and blocks were synced before.
//   - Files missing at the front are noticed by the mark of the newest frame, in
//     the middle by their numbers, entries missing by holes in the index.
//
// What cannot be told: damage that zeroes a whole sector behind which no frame
// begins looks like a torn write. It takes the newest batch, and those before it
// that end in the same sector; a newest batch that vanished altogether leaves no
// trace. Raft's other replicas are the remedy.
//
// Before anything recovered is used it is made durable: a process that was
// killed leaves names and bytes in the kernel's memory, and after a failed sync
// even clean-looking pages that are on no disk. So the directory is synced and
// the batches that no later one calls synced are written again and synced.
//
// # Carrying
//
// Idle groups would keep old files for ever. When half a file could be won and
// at least as much is dead as is live, the oldest file's live records are written
// again at the head of new batches, up to Options.CarryBytes each, until it is
// empty. Disk use stays near twice what is needed, and carrying at most doubles
// what is written. It happens only in Append: a node at rest keeps what it has.
package wal
