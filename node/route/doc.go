// Package route knows which segment holds a key and who may answer for it. It
// is a table of descriptors: those this node's own logs decided, and hints
// learnt from others. A wrong hint costs a hop: every request names segment and
// generation, and the anchor that gets it checks both.
//
// Of two descriptors for one segment the newer wins, by (generation, log index
// of the last change). Of two overlapping segments the higher generation wins;
// the loser is dropped where it overlaps.
package route
