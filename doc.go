// Package anchormesh holds the shared vocabulary of AnchorMesh, an
// etcd-compatible key-value store without a centre.
//
// The keyspace is cut into segments; each segment is governed by its own anchor
// group (one Raft group of peers). Peers find each other by gossip, groups
// recruit their own members over libp2p streams, and no node, group or table is
// in charge of the others.
//
// The code is five organs that do not import each other and meet only in
// package node:
//
//	mesh       who is there, and how bytes reach them (gossip, libp2p streams)
//	anchors    who should hold a segment, and the segment's own record of it
//	consensus  the engine that runs all Raft groups of a node on one log
//	keyspace   etcd's multi-version keys, watches, leases and transactions
//	entropy    how busy a segment is, and where in its range
//
// This package contains values only: identifiers, key ranges, descriptors. It
// imports nothing but the standard library.
//
// One rule stands above all: gossip suggests, the segment's log decides, the
// lineage proves. A value of this package that was learnt by gossip is a hint
// that can only cost a hop.
package anchormesh
