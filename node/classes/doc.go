// Package classes carries what nodes have to say about the classes of segments: that a
// replica may have forgotten what it acknowledged from memory, and that one has
// everything on disk since its segment is light no more.
//
// Guarantees:
//
//   - A replica that its host calls forgetful is reported to the anchors of its segment until
//     the group has removed it; who leads acts on it, and who follows that
//     replica follows it no more (package steward). Answers bring the
//     newest descriptor that the other knows, so that the reporter learns of its removal.
//   - One that its group does not remove within patience is reported to the segment's keeper
//     (package anchors/keeper), again until it is removed or has begun anew.
//   - Every replica that a segment waits for to be on disk says so once it is, and again
//     until the segment's log has it. Only the node that holds a replica is believed.
//
// It decides nothing: the segment's log does. Words are lost with the connection and
// repeated every two seconds, to at most a few nodes per replica.
//
// A word (call 15), as bytes:
//
//	version 1 | kind: 1 forgot, 2 on disk | segment 8, big-endian | uvarint replica
//
// It is answered with a descriptor in its canonical form, or with nothing.
package classes
