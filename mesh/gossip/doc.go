// Package gossip finds out who is there: the only user of hashicorp/memberlist.
//
// memberlist (SWIM with Lifeguard's refinements: Das, Gupta, Motivala 2002;
// Dadgar, Phillips, Currey 2017) spreads a small record per node and suspects
// who does not answer. This package signs and checks the records, feeds them to
// a view.Table, and publishes coalesced Views.
//
// # What it trusts
//
// All traffic is encrypted with a key derived from the mesh key, but whoever
// holds that could still speak for others. So a record is signed by its node's
// ed25519 key, and the name memberlist knows a member by begins with the node
// ID, which is that key: a record that is unsigned, altered or under another
// name is ignored and counted. Life and death are not signed; they are hints
// like everything here.
//
// # The record
//
// It is memberlist's metadata, which may have 512 bytes (more would panic the
// process, so a longer one is refused when it is made):
//
//	version 1 | flags 1 | public key 32 | mesh 8 | boot 8 | epoch uvarint
//	name | zone | version            each: length 1, bytes
//	count 1, peer addresses          likewise, at most 8
//	count 1, client URLs             likewise, at most 8
//	signature 64                     ed25519 over "anchormesh node record v1\n" and the above
//
// About 390 bytes are left for the texts. The flag 1 says that the node leaves.
//
// # One process, one member
//
// memberlist refuses a known name from another address until it has given the
// old one up, which takes seconds. So its name of a member is the node ID and
// the boot number, drawn anew by every process: a restarted node is a new
// member, wherever it is, and is seen at once, while the old one fades away. The
// view knows the node and shows its newest process.
//
// Two processes with one identity (a copied data directory) each see the other's
// records. A record of another boot with an epoch not below one's own is outbid
// by a higher one: that silences one's own past, which cannot answer. A foreign
// boot whose epoch then grows above one's own again is alive, and that is logged
// and told to IdentityInUse, on both sides.
//
// # Two meshes under one key
//
// A node that belongs to a mesh keeps members of other meshes out of memberlist
// and out of its view, and says so. A node of no mesh takes everybody in and
// adopts nothing; Meshes tells its owner what it has met.
//
// # Joining and healing
//
// While alone a node tries every join address again and again, resolving names
// each time. Later it reaches out now and then to one of them and to one dead
// member: memberlist by itself forgets the dead, and a long partition would
// never heal. Leaving is told to every member directly, in a last signed record;
// whoever missed it sees a death.
//
// # Limits
//
// Members are bounded by view.Limits. With its defaults memberlist carries about
// eight 200-byte updates a second for a mesh of 100 nodes. Records come first;
// besides them each node may have one piece of news on its way (Tell), at most
// NewsBytesMax bytes. What it means, whether it is genuine and newer, and how often
// it may be told is the owner's to say (package node/summary): gossip passes on
// what its NewsHandler calls newer, one piece per node. Who joins later hears
// nothing that was told before. Detection of a silent death
// takes about Suspicion * max(1, log10 n) * Probe after the first missed probe;
// connections (package wire) notice sooner.
//
// memberlist's own log goes to debug level, except what an operator must act on:
// another key, a gossip port open for TCP only. It has process-wide state
// (metrics, math/rand), so it is tested over loopback, not simulated.
package gossip
