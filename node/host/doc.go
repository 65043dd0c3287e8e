// Package host holds the replicas of a node: it opens them, creates the first
// one at genesis, installs those that arrive as snapshots and gives up those
// that left.
//
// Crash order. A replica is present or absent; absent means that the store has
// no state for it, and such a replica acknowledges nothing. It votes by its log.
//
//   - Genesis: node record, log mark, store. A restart with the record repeats
//     what is missing.
//
//   - Install: the store marks the replica absent, the chunks are written, the
//     log restarts behind the snapshot, then the store's last transaction makes
//     it present. A crash before that leaves it absent and the leader sends
//     another snapshot. What the old log held above the snapshot was not
//     committed by this replica's vote: see Install.
//
//   - Retire: the node record notes the replica ID as retired, then the store
//     and then the log let go. A restart finishes what is left.
//
//   - Power cut: a node that starts in another run of the machine, or whose log lost
//     whole batches, notes the replicas whose logs say that they acknowledged from
//     memory before it opens anything. Such a replica is not opened, never again, and
//     not awaited under its ID; what is left of it goes when its group is known to have
//     removed it.
//
// A present replica whose log does not reach its applied index is refused: the
// data directory is incomplete, and to go on would forget votes.
package host
