// Package consensus runs all Raft groups of a node on a few goroutines and one
// write-ahead log.
//
//	requests --> worker (one of a few; owns the replicas of its shard)
//	               |            |              |
//	               v            v              v
//	            frames       log writer      applier (one per worker)
//	            to peers     one write for   state machine, answers
//	                         all groups
//	                            |
//	                            v
//	                         syncer: one fsync for all that was written
//
// The protocol is in the pure packages replica and shard; this package carries
// their effects out. It declares what it needs: a Transport for frames, a
// StateMachine per group, and the log.
//
// Guarantees:
//
//   - An answer to a proposal comes after its entry is committed and applied
//     here; a proposal ends exactly once (see package replica).
//   - Nothing that Raft wants durable is said to a peer before its fsync
//     returned. Entries leave for the followers while the local fsync runs.
//   - A light group says after the write what others say after the fsync, but for
//     terms, votes, changes of the configuration and what Config.Replica.Keeps names.
//     That it does is synced before it first does, and taken back when all of it is on disk (see
//     wal.Promise): who looks after a crash of the machine knows what may be gone.
//   - Where more acknowledgements than Raft's are asked for (SetAcks), the answer alone
//     waits for them, for Config.AckTimeout at most; it is ErrUnknown then.
//   - State machines are called by one goroutine at a time, in log order.
//   - A failed write or fsync stops the process: what the disk holds is unknown
//     then, and the other anchors have the data.
//
// A worker, the log writer, the syncer and an applier each have one mailbox; they take all
// that has gathered and work it off as one batch. Mailboxes are bounded by what
// fills them: proposals by MaxQueuedBytes of each replica, appends and applies
// by Raft's own limits on what is in flight; messages from peers beyond
// MaxInboundFrames and eight per group are dropped, which Raft allows.
//
// Groups share the log by lanes (Engine.SetLane), one for each scope: what of one lane is
// written and not synced is bounded, at the usual weight by half a megabyte and one append. The rest waits,
// in order, for the next sync. So a sync that a small write of one scope waits for holds
// so much of each other scope at most, however many groups flood. What light groups acknowledge from
// memory is not held back. Applying is in the order of arrival: of each group there is one entry of
// a megabyte at a time.
//
// A group to which nothing happens sleeps: see package shard. Ten thousand of them
// cost their memory and nothing else. That relies on NodeLost being called whenever
// the last connection to a node ends, from Start on: who sleeps does not notice by itself
// that its leader is gone.
package consensus
