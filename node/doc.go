// Package node puts a node together: it is the only place where the organs
// meet. Run is the start-up and the shutdown, top to bottom.
//
//	etcdapi    etcd's gRPC API: check, hand on, translate
//	dispatch   takes a request to the anchor that may answer it
//	host       the replicas on this node: open, install, retire
//	machine    one segment's state machine
//	leases     keep-alives and expiry, on the leader
//	watches    watch streams from the segments' hubs
//	steward    keeps the anchor groups led here alive
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
// What runs stops in the reverse order of its start: clients first, so that
// nothing new arrives; then leadership is handed over; then the engine, so that
// nothing is applied any more; then the stores, which commit once more; then
// the log and the mesh.
package node
