// Package node is the simulated machines and what runs on each below requests:
// package consensus's shell and node/host with their waits turned into events.
//
// # Guarantees
//
//   - A process's code runs as events of its own: not at all once it has crashed,
//     later while it is paused.
//   - A crash keeps of the files what was synced and of the rest what chance leaves;
//     of the store the last commit.
//   - The steps of the mirrored shells and their order are those of the real ones;
//     log, store, record, shards, replicas and state machines are the real ones.
//
// What stands above is a Shell: it is told of boots, leaders and applied changes of
// records, and found with Part.
package node
