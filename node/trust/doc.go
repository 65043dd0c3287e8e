// Package trust measures how the anchors of this node's segments behave, and has their
// leaders change the weights in the segments' ledgers (package anchors/trust).
//
//	every second   each voter of a segment that is awake asks the other voters how far they
//	               have applied, all segments of one node in one call; every
//	               few of these it also compares a piece of the keys
//	every 10 s     the leader of such a segment asks the voters for signed reports, and
//	               proposes an entry if these change a weight
//
// # What is measured
//
// Of each other voter, over the last Config.Window questions: answers, missed ones (none
// within the time between two questions), late ones (it had not yet applied
// what this node had Config.LateAfter before), messages that had to be refused, and pieces
// of the keys that were not the same at the same revision. Numbers only: what they
// are worth is the ledger's rule.
//
// # Guarantees
//
//   - A segment that sleeps is neither asked about nor woken, and an entry is proposed
//     only if it changes a weight, and only if something but the last such entry was
//     applied since: judging a segment keeps nothing going that nobody uses.
//   - One round of questions and one call to each node at a time, whatever is awake; a
//     round that took long is followed by a rest.
//   - An entry needs the reports of a majority of the voters and no more: it
//     is made while the others are dead.
//   - Nothing here decides: every replica verifies the reports and recomputes what follows.
//
// # Limits
//
// SegmentsMax segments are asked about in one call; the rest wait for the next second.
// A piece is PieceKeys keys, so a difference in a segment of a million keys is found after
// some hours of use; `anchormesh verify` compares all. Measurements are in memory: a node that
// restarts has seen nothing yet, and says so.
//
// # What travels (mesh call Method)
//
// A byte that says what, then uvarints; see codec.go.
package trust
