// Package txns is node/txns with its waits turned into events: transactions over several
// segments, by the real cores of package keyspace/commit.
//
//	client's node     Do: one Coordinator for each attempt
//	segment's leader  Propose: ordinary writes, unless they are locked
//	                  locks and reads, prepares, decisions for coordinators anywhere
//	                  look: ends what coordinators left behind
//
// Requests between nodes travel as values. Left out are reads of the past inside a
// transaction, keys of several lines, and requests that come twice: a
// question to another node reaches it once here.
package txns
