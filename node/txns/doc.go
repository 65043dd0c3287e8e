// Package txns runs transactions over several segments on the nodes of a mesh: it
// carries what the cores of package keyspace/commit want to the segments' leaders,
// and is their leader's side.
//
//	client's node     Do: one Coordinator for each attempt
//	segment's leader  Propose: ordinary writes, unless they are locked
//	                  locks and reads, prepares, decisions for coordinators anywhere
//	                  Run: ends what coordinators left behind
//
// # Guarantees
//
//   - A transaction over several segments is one write of the scope's line: all of it
//     or nothing, at one revision, answered as etcd answers it. An unknown outcome is
//     told as such and never tried again.
//   - What a transaction has read under its locks is what its prepare finds: a lock is
//     granted behind all writes that the leader has taken in before, and Propose, which
//     all stamped writes go through, admits none that is locked.
//   - What stays prepared for RecoverAfter is ended by its segment's leader, whoever
//     coordinated it; so are decisions that nobody finished.
//   - A request goes to a segment's leader once. It is sent again only if it certainly
//     took effect nowhere; what tells and forgets may be repeated.
//
// # Limits
//
// AttemptsMax attempts run on a node, RecoveriesMax recoveries; beyond, requests are
// refused and recoveries wait. The limits of package commit hold. What a transaction
// reads must fit into an answer between nodes.
//
// # What travels (mesh call Method)
//
// Request: byte kind, uvarints segment and generation, then the body; see codec.go.
//
// # What this package does not do
//
// It decides nothing: package commit does. It opens no leases (package dispatch does,
// and calls Do again), and moves no leadership.
package txns
