// Package fields takes encodings of numbers and byte strings apart, and puts them together:
// what messages between nodes, commands of the log and stored records of this module are
// made of.
//
//	number        uvarint
//	fixed number  8 bytes, big-endian
//	bytes         number of them, then they
//
// It is pure. A Reader never fails in the middle: after the first fault everything it returns
// is zero or empty, loops over its counts do not run, and the caller asks once, at the end.
// What a field means, and which order and version an encoding has, is the caller's.
package fields
