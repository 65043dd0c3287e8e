// Package merger carries merges out: it drives the cores of package anchors/merge.
//
// On the left's leader a Driver is run for each attempt, begun by Merge or found open
// by a new leader, which aborts it. It opens the attempt in the left's log, asks every
// anchor's node whether its replicas are equal and caught up, has the right's leader
// freeze the right, asks every node to confirm, and absorbs. Whatever goes wrong ends
// with an abort, a second after the freeze at the latest.
//
// On a frozen right's leader the segment that ends where it begins is asked what became
// of the attempt. Its leader answers behind a read round, by its state alone; only its
// word that the attempt failed thaws the right. A replica whose first key is routed to
// a later segment, of which this node has nothing, asks that segment's leader, and is
// given up on its word: tombstones and lineages help to find the way, they prove nothing
// here, for both are forgotten one day.
//
// A node confirms once the freeze is in its store: after any crash it has what it needs
// to apply the absorb, even if nobody is left of the right's group to tell it what was
// committed.
//
// # What it does not do
//
// It moves no anchors: two segments that are on different nodes are refused, with the
// moves that would help. It does not decide whether a merge is wanted.
package merger
