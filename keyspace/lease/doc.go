// Package lease decides when leases expire. It is a pure core: the leader of the
// segment that keeps the leases feeds it time and events and proposes what it
// asks for; followers feed it nothing.
//
// # Guarantees
//
//   - A lease is proposed for expiry no earlier than its promise: the answer to
//     the last grant or keep-alive plus the TTL, whoever gave that answer, as
//     long as apply checks term and epoch (below). It may live longer.
//   - What was proposed is proposed again only after Config.RetryInterval, and at
//     most Config.ExpireMax leases and Config.CheckpointMax checkpoints leave one
//     step. After an election no more than Config.ExpireRate leases fall due in
//     any one second.
//   - Time is monotonic and believed in small steps only: a jump backwards counts
//     as nothing, a jump forwards (a stopped process, a suspended machine) as at
//     most Config.StepMax, because nobody could renew while this node did not run.
//   - The same events at the same times give the same effects.
//
// # Why keep-alives can stay out of the log
//
// A keep-alive only moves the deadline in the leader's memory. A new leader does
// not know it and gives every lease its whole TTL again, counted from the
// election, which is later. Only where a remaining time is persisted would a
// successor count less than was promised: so the keep-alive that finds one, or
// finds a checkpoint on its way, is answered after the log has cleared it.
//
//	     +-------- renewed: Clear proposed --------+
//	     v                                         |
//	clearing -- Checkpointed{0} --> counting --> (remaining persisted, or
//	                                 |   ^        checkpoint on its way)
//	             deadline: Expire    v   | Checkpointed{0} overtook
//	                               expiring -- Revoked --> gone
//
// # What apply must check
//
// Every lease carries an epoch, the log index of its grant or of the clear that
// renewed it last. (A mere counter would start again when an ID is granted anew,
// and let an expiry of the old lease end the new one.) An Expire counts only if
// its term is its entry's raft term and its epoch the lease's; a Checkpoint
// likewise. That turns a proposal that was judged by a leader which has lost, or
// before a renewal that went through the log, into a no-op (etcd#15247).
//
// # What this package does not do
//
// It keeps no keys, writes no log and checks no leadership: the caller makes sure
// that it still leads before it hands in keep-alives, once per batch.
package lease
