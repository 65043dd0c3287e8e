// Package steward carries out what is decided for the segments that this node leads.
//
//	anchors/recruit   keeps each group alive    --> invitations, changes of the group
//	anchors/place     wishes who holds and leads --> recruit's moves, transfers
//	entropy, people   want a segment cut         --> a split in its log
//
// It also answers invitations. Every decision is logged with its reason.
//
// One goroutine, in Run, looks at the led segments once a second and after changes of
// the view. Looking costs little where there is nothing to do: a group that is whole,
// whose anchors' nodes are alive and of which nothing is wished is asked for its
// progress every other second, and not at all while it sleeps.
//
// Repair and growth are paced: of the groups that lack an anchor, RepairsMax at a time
// have their turn to invite; it ends with an answer or after half a minute. A group
// whose learner is catching up needs no turn. Nothing optional (a split by load, a
// move for balance, a transfer) begins with a group of which an anchor is missing,
// silent or behind.
//
// Orders of operators are kept by the segment's leader, in memory: they end with its
// leadership, when they are done, or after orderKept.
package steward
