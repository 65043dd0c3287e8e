// Package wal is the write-ahead log of a node: one log for all Raft groups.
//
// A batch of updates of however many groups is one buffer, one write and one
// fdatasync. The log keeps the newest entries in memory and finds the others in
// its files through an index in memory.
package wal
