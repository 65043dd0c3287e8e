// Package leases keeps leases alive and lets them end, for the segments that
// this node leads. The decisions are package keyspace/lease's; this package
// feeds it time, leadership and applied commands, and proposes what it asks for.
//
// A keep-alive is answered by the leader after one check of its leadership that
// serves every keep-alive that came before it; it is no log entry, except where
// package keyspace/lease says so. On another node it is forwarded.
//
// One goroutine does the work of all segments. It sleeps while this node leads
// no segment that has leases.
package leases
