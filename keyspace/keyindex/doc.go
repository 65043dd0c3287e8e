// Package keyindex is the ordered index of a segment: for every key the revisions
// at which it was written. Values are kept elsewhere, under those revisions.
//
// The semantics are those of etcd's key_index. A key's life is a row of
// generations, each from a creation to a tombstone:
//
//	put(2) put(4) delete(5) put(7)      on key "foo" gives
//
//	mod      2   4   5      7
//	create   2   2   -      7
//	number   1   2   0      1           number 0 is the tombstone
//
//	Get at 1: nothing   at 2, 3: mod 2   at 4: mod 4   at 5, 6: nothing   at 7: mod 7
//
// Compact(C) drops what no read at or above C can see: per key every version
// before the newest one at or below C, and that one too if it is a tombstone
// below C. A tombstone exactly at C stays, because a watch may start at C and
// must see it.
//
//	Compact(4) drops 2          keeps 4, 5(t), 7
//	Compact(5) drops 2, 4       keeps 5(t), 7
//	Compact(6) drops 2, 4, 5(t) keeps 7
//
// # Structure
//
// A B+tree whose leaves hold keys, newest versions and pointers to older versions
// in three arrays. A key of one version costs its bytes, 56 bytes in the leaf and
// no object of its own but the key; reads of the newest state never follow a
// pointer but to compare keys. Older versions are a sorted array that carries
// create revision and number (32 bytes a version), so that a read in the past is
// one binary search and not a walk over the generation.
//
// Cut and Join divide an index at a key and put two neighbours together. They change
// the nodes along one path only.
//
// Pure: no lock, no I/O, no clock. An Index is for one writer, or many readers.
package keyindex
