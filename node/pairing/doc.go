// Package pairing joins dormant neighbours: it finds out, with the neighbours' leaders,
// whether a segment that entropy calls dormant may take in its right neighbour, and has
// that done.
//
//	entropy (node/pulse)      "dormant"              --> Consider
//	the other leaders         "how do you stand?"    --> place.Side
//	anchors/place.Pair        ready | orders | not   --> Merge | Align | wait
//
// The left segment's leader acts, and nobody else. Where the two are on different nodes,
// one order after the other goes to the leader whose replicas have to move, until they
// are aligned. Attempts that fail are spaced by place.MergeBackoff, questions by Again.
//
// # Limits
//
// A node carries out one merge at a time, and asks about one segment at a time. What a
// leader says of its segment is as old as its last judgement; the attempt itself finds
// out what has changed meanwhile (package merger).
package pairing
