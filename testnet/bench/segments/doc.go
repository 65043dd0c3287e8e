// Package segments measures what a mesh of many segments is for: more writes with
// more nodes (scale), neighbours that do not feel each other (neighbour), splits
// that writers do not feel (split), watches over several segments (watch), nodes
// that die under hundreds of active segments (failover) and thousands of segments
// that nobody uses (idle); and what scopes are for: classes beside each other (classes),
// and what approvals cost (approvals).
//
// # Method
//
// Clusters are local processes of package testnet/cluster with fresh data. Where
// sides are compared they take turns, every round with fresh clusters, the order
// reversed in every second one; figures are medians over the rounds, each figure
// by itself. No run is repeated or left out; one that fails ends the benchmark
// with what was measured. Every report names its command, its machine and its
// method, prints the CPU of the load program beside the servers' and ends with a
// line per aim: met or not.
//
// Leaders are spread by asking the mesh (Transfer, Move); if it cannot, the report
// says where they lay, and that the verdict is worth nothing.
//
// # What it does not show
//
// Everything shares one machine, disk and loopback. Under a CPU quota (package
// testnet/share) latencies show the quota; only throughput is compared there.
package segments
