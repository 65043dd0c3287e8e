// Package node puts a node together: it is the only place where the organs
// meet. Run is the start-up and the shutdown, top to bottom.
//
//	etcdapi    etcd's gRPC API: check, hand on, translate
//	deposed    ends calls to leaders that lead no more
//	dispatch   takes a request to the anchor that may answer it
//	host       the replicas on this node: open, install, retire
//	machine    one segment's state machine
//	leases     keep-alives and expiry, on the leader
//	watches    watch streams from the segments' hubs
//	steward    keeps the groups led here alive, moves and splits what it leads
//	neighbours how the nodes stand, told in gossip (summary: the words)
//	pulse      how busy the segments here are
//	exchange   spreads descriptors between nodes
//	transfer   streams a segment's state to another node
//	compactor  automatic compaction
//	admin      what the command line shows
//	route      which segment holds a key
//	scopes     store files and their background commits
//	datadir    the data directory
//	peers      gRPC connections to other nodes
//	config     flags, environment, file
//	telemetry  metrics
//	web        health over HTTP
//
// Stopping begins with handing over leaderships, so that clients elsewhere need
// not wait for an election; then the clients here are ended, so that nothing new
// arrives. What was opened is closed in the reverse order: the replicas and the
// engine, so that nothing is applied any more; the mesh; the stores, which
// commit once more; the log; the data directory.
package node
