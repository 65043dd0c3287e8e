// Package bench compares two clusters of local processes under the same load:
// AnchorMesh and etcd, or either with itself, which shows what the machine alone
// does to the figures.
//
// # Method
//
// In every round each side gets a fresh cluster with fresh data directories under
// the same parent, one side at a time, and runs all cases in the given order; the
// side that goes first alternates. Every case has its own keys and its own
// warm-up. Reported are medians over the rounds, each metric by itself, and the
// spread of the throughput; no run is repeated or left out, and a failed one is
// shown as failed. The JSON form holds every single run.
//
// Server CPU is user and system time of all node processes inside the window,
// per operation. RSS is the largest node's at the end of the window. "Other CPU"
// is the share of the machine that neither the servers nor the load used: if it
// is high or differs between sides, the comparison was disturbed.
//
// # What it does not show
//
// Everything shares one machine: the load takes CPU from the servers (its cost is
// shown beside theirs), the network is loopback, and three logs share one disk.
package bench
