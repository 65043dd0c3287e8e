// Package sim runs whole meshes in one goroutine on virtual time and lets the
// checkers of package check judge them.
//
// # What is real and what is a model
//
//	real    consensus/shard, consensus/replica (and raft below them), consensus/wal
//	        over fsys.Mem, node/datadir, keyspace/mvcc over bolt.Memory, keyspace,
//	        keyspace/lease, keyspace/watch, node/machine, node/route,
//	        anchors/recruit, anchors/scope, anchors/approval, anchors/lineage: every
//	        decision, and every byte on a disk
//	mirror  the shells around them (package consensus, node/host, transfer, steward,
//	        leases, dispatch, exchange, txns): the same steps in the same order,
//	        with each wait turned into an event
//	model   network, disks' timing, clocks, failure detection, crashes
//
// # Rooms
//
//	plan      configurations, how a seed draws one, planted faults
//	node      machines and processes: package consensus and node/host
//	stamps, leases, steward, merger, dispatch, classes, txns   node's packages of these names
//	govern, approvals   node/governor, node/proofs, and the operators; node/approvals, of
//	           writes and of changes of structure
//	clients   the load; wire: its requests and answers as etcd's messages
//	witness   what the checkers are fed with
//	sim       faults, the two phases, structure, what a mesh at rest is, verdict
//
// A crash keeps of the files what was synced and, of the rest, what chance leaves
// sector by sector (fsys.Mem.CrashClone); of a store the last commit. It comes
// between two events or, with a fuse, in the middle of one: the n-th disk operation
// from now fails, and so does all that follows. The death of a process alone keeps
// what was written.
//
// Which it is matters to light segments, which acknowledge before the sync. As long as
// fewer than a majority of a light segment's anchors have lost their machine and are
// still counted, nothing may be lost, so every checker holds it to the contract of the
// others. A stop of one machine more, which loses by permission, is made a death of its
// process.
//
// # Two phases
//
// In the first, clients read, write, watch and keep leases while faults of all
// kinds come at random; safety is judged all the time. In the second all faults end,
// and the mesh must come to rest: every group has a leader and its full number of
// voters, nobody runs a replica that was removed, all replicas stand at one index
// with equal states, and every request is answered.
//
// # One seed, one run
//
// A seed draws the configuration (Swarm) and everything that happens. The trace hash
// covers every event; two runs of one seed must agree on it.
//
//	go run ./testnet/sim/cmd/sim -seed 17
//	go run ./testnet/sim/cmd/sim -seed 1 -seeds 1000
//
// # Not covered
//
// Goroutines, locks and sockets of the real shells (their own tests do, and the
// testnet); a light segment that begins anew, and its keeper; gRPC and package etcdapi; memberlist and libp2p; bit rot under a
// running process; bbolt itself.
package sim
