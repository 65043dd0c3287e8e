// Package datadir is the layout of a node's data directory and the node's own
// small record in it.
//
//	node.json      format, node ID, mesh ID, genesis segment, stores, retired replicas, checksum
//	node.lock      held while a process uses the directory
//	identity.key   the node's ed25519 key (package mesh)
//	record.epoch   how often the node's record in gossip was renewed (package mesh)
//	gossip.known   where other nodes were last seen to gossip (package mesh)
//	log/           the write-ahead log of all groups (package wal)
//	scopes/        one store file per scope: root.db, or the prefix in hex
//
// node.json is the first file of a directory and is replaced atomically: written
// to a temporary file, synced, renamed, and the directory synced, before anything
// relies on it. It names what else must be there. A directory that lost its
// record, its key or a store is refused (ErrIncomplete): the node would come back
// as another, or as one that has forgotten what it acknowledged. That the log is
// whole is for packages wal and host to find.
package datadir
