// Package merge joins two neighbouring segments of a scope into one: the left takes
// in the right. It is pure: states that logs decide, and the core that drives them.
//
//	Left    a part of the left segment's replicated state: which attempt is open
//	Right   a part of the right one's: whether it is frozen, and by which attempt
//	Driver  on the left's leader: opens an attempt, sees that all anchors are equal
//	        and caught up, has the right frozen, and absorbs it or aborts
//	Asker   on a frozen right's leader: asks the left range what became of it
//
// # The order of steps
//
//	left's log                    right's log
//	Open n (names both)
//	  every anchor of both ready?
//	                              Freeze n (names both)
//	  every right anchor confirms that it applied Freeze n
//	Absorb n, or Abort n
//	                              Thaw n, on proof, if it was aborted
//
// # Guarantees
//
//   - One owner. Absorb n stands in the left's log only after every anchor of the
//     right applied Freeze n, so that no leader of the right, whoever it is, serves;
//     and a frozen right thaws only on proof that n never will be absorbed.
//   - No proof by absence. Who holds the last key below the right's first one judges by
//     its own state (Left.Judge): whether it holds the right's first key, too, and if
//     not, whether the boundary between them is older than the attempt (Left.Edge).
//     Nothing has to be remembered of segments that are gone, however long ago.
//   - No lost write. What the right had accepted before Freeze n is applied on every
//     node that will apply Absorb n.
//   - Nothing else changes. While an attempt is open the left, and while it is frozen
//     the right, refuses every other structural change; Freeze and Open name both
//     descriptors exactly and are refused if one has changed.
//   - It ends. The right is frozen for FreezeMax and a round of messages, not longer,
//     as long as both have a majority: the driver aborts; a new leader of the left
//     aborts what it finds open; a freeze that comes late finds its abort by asking.
//     If the left has no majority, a frozen right waits for it.
//
// # What it does not do
//
// It moves no data, sends nothing and verifies no signature: the caller gives it
// verdicts of a left that has proved them. Locks, prepared transactions and leases
// travel in the state that is absorbed.
package merge
