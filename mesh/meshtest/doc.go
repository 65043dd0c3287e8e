// Package meshtest is a mesh in memory, for tests of what runs on one.
//
// A Network carries what its Nodes send each other with delay, jitter, loss,
// broken connections and cuts, each direction of each pair by itself. A Node
// has the methods of *mesh.Mesh, and Conformance is the suite both pass.
//
// # What is modelled
//
//   - Messages of a pair arrive in order, or not at all. A cut stops one
//     direction only.
//   - Calls, bulk and client streams need both directions, as a TCP connection
//     does: a cut of either ends them, calls with ErrUnknownOutcome.
//   - Views change at once everywhere, and nothing is coalesced. Failure
//     detection is not run: Observe says what a node's detector says, so that it
//     can be late, wrong and different from node to node.
//   - A node added under an ID that is there already is a restart: the old one
//     ends without a word, and what it had under way is lost.
//
// # Time and order
//
// Under testing/synctest all delays are virtual. Losses, resets and jitter come
// from the seed, in the order of sending; goroutines that send at once make that
// order, and with it a run, not repeatable.
//
// Bulk and client streams are pipes: links can cut but do not delay them.
package meshtest
