// Package shard is the pure core of one worker of the engine: it owns a set of
// replicas, steps all that have something to do, and gathers what they want
// done. There is no goroutine, lock, clock or I/O here; Step takes an inbox and
// returns effects, which the caller carries out. The engine's worker goroutine
// and the simulator are its two callers.
//
// Messages of all groups to one node leave in one frame. A replica that holds
// no state yet (absent: just invited, or its installation was cut short) is
// not stepped at all; it answers its leader's appends in a way that makes the
// leader send a snapshot, and votes by what its log holds. A request for a vote in a group that is not here is
// kept for ten ticks (at most 1024 are), in case the group is about to start.
//
// # Sleep
//
// A group to which nothing happens for SleepAfter ticks sleeps: it is not ticked, sends
// nothing, and is not even looked at. Its leader asks all replicas; each that stands
// where it does and has nothing under way stops its clock and says so; when all have,
// the leader stops its own. Who is not known to sleep goes on hearing the leader.
//
//   - Sleeping is about ticks only. No promise of Raft's depends on who sleeps, and
//     every input but a tick wakes a group, and is then handled as ever.
//   - A group with a replica that lags stays awake until it has caught up. One whose
//     node was silent for two election timeouts is left out, if a majority agrees; the
//     node's next word wakes the group.
//   - NodeLost wakes the followers of leaders on that node, and the leaders that have
//     no majority of nodes left. The caller tells of every lost node: a sleeping follower
//     does not notice by itself. LeaderGone does it to one group.
//   - A follower that wakes tells its leader. So a group that was asked for something
//     anywhere has a leader that answers, or elects one an election timeout later.
//   - Where more groups are awake than AwakeAtMost says, those that start, and those that
//     a node's word would wake, wait asleep for their turn; some wake in each tick. What
//     happens to one wakes it at once, and one without a leader that a client needs, or for
//     whose leader somebody looks (Seek), asks for votes at once.
package shard
