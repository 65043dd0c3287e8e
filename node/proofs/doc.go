// Package proofs gathers and serves what proves the structure of the segments: for
// each entry of a lineage the signatures of a majority of the voters behind it that
// they applied it (package lineage).
//
// # Who signs
//
// A node signs, with the key of its identity, the entries in the lineages of its own
// replicas that it applied itself. What came to it in a snapshot, or was decided
// before it was an anchor, it does not sign. host.Replica.Since tells which is which,
// also after a restart, so a signature is never lost: who applied an entry can sign
// it again as long as it has the replica.
//
// # Who gathers
//
// Every node with a replica: the leader at once, the others a little later, so that
// as a rule they find the proof ready with the leader and ask once. A proof that lacks
// signatures is asked for again, after a second at first, after a minute in the end.
//
// # What is kept
//
// The proofs of the entries that the lineages of the replicas here still hold
// (lineage.EntriesMax per segment), in memory and in one file of at most FileBytesMax
// that is replaced a few seconds after a change. What does not fit there, or what a
// crash took, is gathered again: from other anchors, or as new signatures. So the file
// matters only for entries most of whose voters are gone.
//
// # Who verifies
//
// Whoever wants to trust an entry that it did not apply: Check says whether a proof
// holds, with the entry before it or without. `anchormesh verify` does it for all
// segments. An entry is never trusted because a node said so.
//
// # What travels (mesh call Method)
//
// Request: version 1, segment 8, hash of the entry 32, the asker's own signature if
// it has one: so whoever was asked too early and asks later gives his by that. Answer:
// a proof in lineage's encoding, with the signatures that the asked node has: perhaps
// its own only.
package proofs
