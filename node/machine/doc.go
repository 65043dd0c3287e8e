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
// Where the policy in force wants approvals, clients' writes take effect only in an
// approved batch (package anchors/approval) whose votes are counted here, again, against
// what holds at the entry; and the weights of the anchors (package anchors/trust) change by
// entries whose signed reports are verified and recomputed here.
//
// A change of the configuration carries the whole descriptor that holds after
// it. The descriptor and the configuration that Raft has in force are stored
// with the entry's index and must name the same voters; anything else is a
// broken invariant and stops the process.
package machine
