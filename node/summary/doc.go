// Package summary is what a node says of its load in gossip: a few figures, signed,
// in less than BytesMax bytes, and how often it may say so. It is pure.
//
// A summary is a hint for placing replicas: the invited node judges for itself,
// and the segment's log decides. What concerns one segment is never in it.
//
// Sealed, as it travels; numbers are minimal uvarints unless a width is given:
//
//	version 1 | public key 32 | mesh 8
//	flags 1 | epoch | pressure | load | free MiB | room | replicas | leaders |
//	sleeping | leases
//	signature 64   over "anchormesh node summary v1\n" and the above
//
// The flag 1 says that the node is being drained. Of two summaries of one node the
// one of the higher epoch counts; whoever makes them lets it grow, across
// restarts, too (as the epochs of node records do).
//
// # How often
//
// memberlist sends 3 packets of up to 1400 bytes each 200 ms, 21,000 bytes a
// second and node, and every node repeats a piece of news 4*⌈log10(n+1)⌉ times, 12
// in a mesh of 100: that is room for about 8 pieces of 200 bytes a second, for the
// whole mesh. Half of it is left to node records, which come first. So each node
// may renew its summary every 23 s in a mesh of 100 and every 305 s in one of
// 1000 (Every), and does so only when the figures have changed enough (Worth), when
// nodes joined, who have heard nothing yet, or after half a minute (Pace).
//
// # What is kept
//
// A Book holds the newest summary of each node with the local time at which it came;
// after three that were missed it counts for nothing (Stale).
package summary
