// Package mesh is who is there, and how bytes reach them: the facade of
// AnchorMesh's lowest organ.
//
//	meshkey   the secret that makes strangers a mesh
//	view      what this node believes about the others (pure)
//	gossip    finds them and hears of their life and death (memberlist)
//	wire      messages, calls, bulk and client streams (libp2p)
//	meshtest  the same in memory, with faults, and the suite both pass
//
// A Mesh joins the two halves: gossip publishes Views, wire dials the members of
// the newest one at the addresses it names, and both draw their keys from the
// mesh key.
//
// # What it promises
//
//   - A node is its ed25519 key, kept in DataDir; its ID proves itself on every
//     connection and under every record. A damaged key file is refused, never
//     replaced.
//   - The View is a hint: late, perhaps wrong, different from node to node. It
//     may cost a hop, never correctness. Dead members stay in it for three days.
//   - A node finds its mesh again without a join address if one of at most 32 nodes
//     that it knew is where it was. What it remembers are addresses to try, no members:
//     a node that the view has forgotten is not remembered, and who does not answer is
//     not seen. A damaged file is said and not used.
//   - Delivery is as package wire says: messages may be lost, calls say what is
//     known of their outcome, nothing is sent twice.
//   - A node of no mesh adopts none by itself: MeshIDs says what it met,
//     SetMeshID decides, once. Nodes of different meshes under one key refuse
//     each other's streams, stay out of each other's views, and say so.
//   - Clock jumps do no harm: waiting uses the monotonic clock, deadlines travel
//     as durations, and an epoch is above the last one kept whatever time it is.
//
// # What it does not do
//
// It does not decide who is a member of anything, does not retry calls, and
// does not gossip load or descriptors: these travel over calls.
//
// # Files in DataDir
//
//	identity.key   anchormesh-identity-v1:<base64 of the libp2p private key>, mode 0600
//	record.epoch   anchormesh-epoch-v1:<decimal>
//	gossip.known   where others were last seen to gossip, at most 32; see KnownFile
//
// # Ports
//
// PeerAddr (TCP) carries streams, GossipAddr (TCP and UDP) gossip. Both are
// useless without the mesh key.
//
// # Closing
//
// Close tells the others that this node goes, so that they stop dialling it;
// then ends connections and what is under way on them; then subscriptions. It
// waits for handlers, so a handler must not call it.
package mesh
