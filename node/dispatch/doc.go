// Package dispatch takes a checked request to an anchor that may answer it: the
// replica on this node, or another node.
//
//	write   through the leader of the segment; its answer comes after apply
//	read    linearizable: from the replica here after a ReadIndex round, else
//	        from an anchor elsewhere; serializable: from any replica
//	lease   reads of remaining time: from the leader
//
// A request that certainly took effect nowhere (no leader yet, another leader,
// a stale route, a node that cannot be reached) is tried again until its
// context ends, after a change of the routes or a short wait. A write whose
// outcome is unknown is never tried again; the client learns that it is
// unknown. Reads may always be repeated. A request at a node that has fallen silent ends
// in the same ways, a third of a second after the replica here follows another leader; where
// there is no replica, when the connection is given up (two seconds).
//
// Forwarded requests name segment and generation, and the answering anchor
// checks both against its applied state. Answers pass through undecoded.
//
// A write that was answered through this node is seen by serializable reads
// through this node afterwards, as in etcd, although the answer came from
// another node's apply: such reads wait until the replica here has applied it
// (host.CatchUp). Not so while a transaction over several segments is prepared here:
// such reads show what lies below it, until it is decided.
//
// What a transaction holds (package txns) is refused and tried again like what took
// effect nowhere.
package dispatch
