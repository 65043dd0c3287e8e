// Package machine is the state machine of one segment on one node: the
// segment's keys, leases and history (package keyspace) and the segment's own
// record of itself, its descriptor and configuration, in one store and under
// one applied index.
//
// An entry takes effect only if its stamped term is its Raft term (package
// replica marks the others) and its generation is the segment's; otherwise it
// is a no-op on every replica alike, and whoever waits learns that it took
// effect nowhere.
//
// A change of the configuration carries the whole descriptor that holds after
// it. The descriptor and the configuration that Raft has in force are stored
// with the entry's index and must name the same voters; anything else is a
// broken invariant and stops the process.
package machine
