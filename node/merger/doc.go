// Package merger carries merges out: it drives the cores of package anchors/merge.
//
// On the left's leader a Driver is run for each attempt, begun by Merge or found open
// by a new leader, which aborts it. It opens the attempt in the left's log, asks every
// anchor's node whether its replicas are equal and caught up, has the right's leader
// freeze the right, asks every node to confirm, and absorbs. Whatever goes wrong ends
// with an abort, a second after the freeze at the latest.
//
// On a frozen right's leader the left range is asked what became of the attempt. Its
// leader answers behind a read round, by its log and its lineage; only its word that
// the attempt failed thaws the right.
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
