// Package sample measures a segment's operations on the data path: it counts
// them, and keeps a bounded, unbiased sample of their keys.
//
// It is the only part of entropy that requests touch. An operation costs two
// atomic additions; one in Rate also copies its key into a reservoir of Keys
// (Vitter's algorithm R, 1985), and gives up instead of waiting if another does
// so at the moment. Which operations are sampled is a hash of their number, so
// that a workload that cycles through its keys is not sampled at one of them.
//
//	Write/Read --> counters -----------+
//	     \__ 1 of Rate --> reservoir --+--> Drain, once per window
//
// Memory is bounded by Keys * KeyBytes. A Meter is safe for concurrent use.
package sample
