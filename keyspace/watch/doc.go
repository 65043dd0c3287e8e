// Package watch tells watchers what changes in one segment: etcd's watch, to the
// letter. One Hub serves one segment, one Stream serves one client stream, a
// watch is one ID on a Stream.
//
// # Guarantees (the names are etcd's)
//
//   - Ordered: the events of a watch come in the order of their revisions.
//   - Unique: no event comes twice.
//   - Reliable: no event is left out. A watch that cannot be served any more
//     because its next revision was compacted is cancelled with the compact
//     revision, never left with a gap.
//   - Atomic: all events of one revision are in one Response. (The API layer may
//     cut a Response into fragments where the client asked for it.)
//   - Resumable: a new watch from the last revision + 1 goes on where the old one
//     ended; also from the position named by the response that ended a watch
//     when the segment left this node (Hub.Stop) or no longer holds all keys of the
//     watch (Hub.Bound).
//   - Bookmarkable: a progress response at revision R comes behind every event at
//     or below R that its watches want, and no such event comes later.
//
// A watch from a future revision waits silently: nothing below its start is ever
// sent, and no progress either. Start 0 is "from now": the Created response
// carries the current revision, events begin at the next one.
//
// # How events travel
//
//	writer --Publish--> queue --+                     +--> outbox --Next--> client
//	        (never blocks)      |   index, encoding   |
//	                            +--> live cursor -----+--> outbox --Next--> client
//	segment's history ----------+                     |
//	        (bounded steps)     +--> catch-up scans --+--> outbox --Next--> client
//
// The live cursor is the first revision that was not yet handed out. It is fed
// from the queue; where the queue has a hole, because it grew beyond
// Limits.QueueBytes and was emptied, the cursor reads the hole from history. So
// a burst costs time, never memory, and the cursor needs to know no other case
// (Hub.Restored makes such a hole after a snapshot was installed).
//
// A watch is live (everything below the cursor was handed to its stream) or
// lagging: it started in the past, or its stream was full when a revision came
// for it. Lagging watches wait in a line. Each step takes the one in front, lets
// all others that are at its position or beyond share its scan, and sends those
// that got further to the back: equal positions share one scan, different ones
// get equal turns. Watches of a full stream leave the line until its client has
// read half of what is queued. One scan reads at most Limits.StepBytes, and
// every scan alternates with a step of the live cursor.
//
// # Several segments
//
// Package weave merges the watches of several segments' hubs into one. For it a hub
// does three things that one segment alone would not need:
//
//   - Stream.Mark puts "everything at or below R has come" into a watch's own flow,
//     behind all that was published by then, of a lagging watch too. In an outbox at most
//     one mark follows each response with events, and at most two requests wait per
//     watch.
//   - Hub.Bound says what the segment holds after a split or a merge. Watches that
//     reach beyond end with the position to go on from; the others live on. A plan
//     that was made before and not handed out is taken back, because its reads or
//     previous values may come from the cut state.
//   - Hub.Hold keeps back what is at or above the stamp of a prepared transaction,
//     whose outcome may be published behind later revisions and is then read from
//     history, which has the order.
//
// # Costs
//
// An event is encoded once, with and without its previous value as wanted, and
// shared by every watch that gets it. A step hands each stream everything it has
// for it under one lock with one wake-up. Several revisions for one watch become
// one Response while the stream lags, up to Limits.ResponseBytes. An idle watch
// costs about 215 bytes, an idle stream one mutex, one map and two channels; a
// hub a parked goroutine, or if it is served none while it has no stream. Without
// watches Publish takes one lock and returns.
//
// # Concurrency
//
// Run is the hub's one goroutine; Serve starts it when it is needed; Step is one turn
// of it, for drivers without one. Three kinds of locks, none held while history
// is read or an event is encoded: the queue's (Publish), the hub's (the index
// and everything about positions), a stream's (its outbox). The hub's may be
// held when a stream's is taken, never the other way round.
//
// # Not here
//
// Merging the watches of several segments (package weave), permissions, headers,
// fragments.
package watch
