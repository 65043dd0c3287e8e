// Package view is what a node believes about the other nodes of its mesh: a
// table of members, and the immutable snapshots others read.
//
// It is pure: no goroutine, lock, clock, I/O or logger. Package gossip feeds it
// and package mesh publishes what it returns.
//
// # Two kinds of news
//
// A Record is what a node says of itself (name, zone, addresses, mesh), signed
// by it; the caller has verified the signature. Merging records is
// commutative, associative and idempotent: of two records of one node the
// higher epoch wins, and of two with one epoch the one whose signed bytes are
// larger. So any two nodes that have heard the same records, in whatever order
// and however often, hold the same ones.
//
// A State is what this node's own failure detector says of a member: alive,
// left (it said so) or dead (it stopped answering). It is local, may be wrong
// and is not merged. It belongs to one boot of the member's process: news of
// the death of an earlier boot says nothing about the one that runs now.
//
// # Guarantees
//
//   - A View is sorted by node ID, never changes, and may be shared by any
//     number of goroutines.
//   - Records of another mesh take part in the merge (else an older record of
//     the same node, made before it belonged there, would stay) but are never
//     in a View.
//   - The table holds at most Limits.Members members. At the limit the member
//     that has been gone longest gives way; if none is gone, the newcomer is
//     refused and counted.
//
// # What it does not do
//
// It does not decide who is a member of anything: gossip suggests, the
// segment's log decides. A dead member stays in the View (with since when) so
// that those who decide can still name it.
package view
