// Package datadir is the layout of a node's data directory and the node's own
// small record in it.
//
//	node.json      format, mesh ID, genesis segment, retired replicas
//	node.lock      held while a process uses the directory
//	identity.key   the node's ed25519 key (package mesh)
//	log/           the write-ahead log of all groups (package wal)
//	scopes/        one store file per scope: root.db, or the prefix in hex
//
// node.json is replaced atomically: written to a temporary file, synced,
// renamed, and the directory synced, before anything relies on it.
package datadir
