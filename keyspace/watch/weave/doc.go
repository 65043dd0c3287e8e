// Package weave is the pure core of watches over several segments. A Weave serves the
// watches that one client stream has in one scope on one node: it merges what the
// segments' hubs bring (package watch) into what etcd would send, while segments
// split, merge, move and break. A Frontier makes the questions of all weaves of a
// node few.
//
//	watch 7 of "a".."z"            one braid
//	  ["a","g") of segment 1       thread: one flow from one hub, here or elsewhere
//	  ["g","p") of segment 4       thread
//	  ["p","z") of segment 9       thread
//
// # Guarantees (the names are etcd's)
//
//   - Ordered, Unique, Reliable, Atomic: the events of a watch come by revision, none
//     twice, none left out, all of one revision in one response, those of a
//     transaction over several segments too in the order in which it wrote.
//   - Resumable: from the last revision + 1 everything goes on.
//   - Bookmarkable: progress at R comes behind every event at or below R that its
//     watches want, no such event comes later, and R is not below any revision that
//     anybody was answered before the progress became due.
//   - Created carries a revision T that was given out after the request came. "From
//     now" begins at T+1, and when Created is sent nothing at or below T can appear in
//     its keys any more. Created responses come in the order of the requests.
//   - A watch of which a segment cannot bring what comes next, because it was
//     compacted, is cancelled with the compact revision, never left with a gap.
//
// # Why nothing is missed: closed
//
// A thread is closed up to C when every event of its keys at or below C that the
// watch wants has come on it. A watch sends what is at or below the smallest closed of
// its threads. Four things close a thread, and nothing else:
//
//  1. An event at R: a hub brings revisions in order and whole, so nothing below R
//     comes later (Hub.Hold keeps back what stands behind a prepared transaction). A
//     watch with one thread therefore never waits.
//  2. A mark at T: Barrier(T) was answered by the segment's leader, so nothing at or
//     below T can appear there any more; what it had applied then, which may be more
//     than the round's read index, is applied where the hub is; and the mark came
//     behind the events on the flow that brings them.
//  3. The home's word: Told{T, Since, Ranges}. In keys outside Ranges no stamp above
//     Since and at or below T was given out. That closes a thread up to T only if it
//     had heard up to Since: a mark at Since had come, or this word had led on from
//     one. Then nothing at or below Since can appear, nothing in between was stamped,
//     and what had been applied when the barrier was answered, commits of transactions
//     above Since too, came before the mark. What the home does not know, whether the
//     last event has arrived, the thread knows: an event that is still on its way is
//     of a stamp above Since, so its range is named, and the mark behind it is waited
//     for (not the home's "none holds any"). An event is no mark: it closes, but a
//     transaction prepared below it may yet be committed above it, and the home was
//     asked for that number by nobody in particular.
//  4. The end of a flow at a position: the hub had handed out everything up to there.
//
// A thread that ends, at a split or merge, by a move or a crash, is replaced by
// threads of the segments that hold its keys then, each from closed + 1: no gap, for
// everything below came; no duplicate, for nothing above was taken. Every flow has an
// ID of its own, and what a closed one still brings goes nowhere. Neighbours that
// come to be of one segment are joined at a point up to which both are closed.
//
// # Asking
//
// When an event waits, and no goal covers it, a goal is set: barriers at the event's
// revision, if at most Limits.Direct segments stand in the way; else the home is
// asked, and the segments it names, or whose threads had not heard up to Since, are
// asked for a barrier at its T. Every watch begins with a barrier in all its segments
// at its header (16a), so later sleepers need none. The rest of ten thousand segments stays asleep. All
// that waits shares the question; a second may be under way, so that an event waits
// for at most one question and one barrier; with two goals not reached, a watch asks
// no more until one is.
//
// # Limits and what happens at them
//
// HeldBytes: see Limits. Questions: Limits.Asks. Barriers: two per thread. Outgoing
// responses are the shell's: it stops reading flows while its client does not read;
// hubs bound theirs, and let watches lag. One event makes at most HeldBytes, one
// revision per watch, and a few responses per watch. Threads: one for each segment
// of each watch, about 150 bytes; an answer of the home costs a walk over the threads.
//
// # Not here
//
// Which segments hold what and generation checks (Locate), flows and where they run
// (Open), election timeouts (Leaderless), permissions, headers, fragments, several
// scopes: a stream over two scopes has two weaves.
package weave
