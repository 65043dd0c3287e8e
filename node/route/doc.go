// Package route knows which segment holds a key and who may answer for it. It
// is a table of descriptors: those this node's own logs decided, and hints
// learnt from others. A wrong hint costs a hop: every request names segment and
// generation, and the anchor that gets it checks both.
//
// # Which descriptor wins
//
// Every split and merge gives the keys it concerns a higher generation. So for
// each key the table routes to the descriptor of the highest generation that it
// heard of and that holds the key; of one segment and generation, to the one
// changed last. That is a maximum, key by key: it does not matter in which order
// descriptors come, how often, or which are lost on the way (Table's property
// test). A descriptor that loses a part of its range stays as a hint for the
// rest: when the left child of a split is not known yet, the old parent still
// routes the left half. A key has a route as soon as anything about it was
// heard.
//
// So the parts of the keyspace (Parts) and the ranges of descriptors are two
// things: a part may be smaller than the range of the descriptor it is routed
// to. Such a descriptor is out of date for sure, and the anchor that is asked
// will answer with fresher ones.
//
// # Tombstones
//
// A retired segment is found no more by its ID (Segment); Successors names who
// governs its range. Its descriptor may still route keys, as a hint, while its
// successors were not heard of. At most TombstonesMax are kept; the oldest gives
// way, and its segment is unknown then. Release drops those that nobody needs;
// they are not taken in again.
//
// # The journal
//
// The table numbers its changes, so that package exchange can ask "what changed
// since": Since, and sums over what is known (Position, Sums, Bucket). The
// journal names the newest descriptor of each segment that routes a key, and all
// tombstones. Numbers mean nothing to another table.
//
// # Costs
//
// Lookups take no lock and no memory, and cost a binary search. The keyspace is
// kept in immutable chunks of up to 64 parts; a change copies the chunk it is in
// and the list of chunks: with 10,000 segments some 6 KiB. Leaders are kept apart: to note
// a new one costs the same however many segments there are. At most SegmentsMax
// segments are taken in; further ones are refused.
package route
