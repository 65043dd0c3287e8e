// Package match answers one question: which of many thousand watches want a
// change of this key?
//
// Watches of single keys live in a hash table, watches of ranges in a treap
// ordered by (start, end) in which every node knows the largest end below it
// (the interval tree of Cormen et al., chapter 14). Watches of the same key or
// the same range share one place, as a list.
//
//	Index
//	  keys    "a/1" -> [w1 w7]
//	  ranges         ["a/", "a0") -> [w2 w3 w4]
//	                /                         \
//	  ["a/", "a/5") -> [w5]              ["b", ∞) -> [w6]
//
// A lookup costs one hash, O(log r) comparisons for r distinct ranges, and one
// step per watch found; watches that do not match cost nothing more. Results
// come in a fixed order: single-key watches first, then ranges by (start, end),
// each in the order of their addition. The shape of the tree depends on the seed
// only, the results do not.
//
// The package is pure: no locks, no clock, no randomness of its own. The caller
// serialises access.
package match
