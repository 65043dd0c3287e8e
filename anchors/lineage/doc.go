// Package lineage is a segment's record of how it came to be: a hash chain of
// its structural decisions, and the proof that one of them was committed.
//
// It is pure: no goroutine, lock, clock, I/O or logger. The segment's state
// machine appends while it applies, so every replica has the same chain.
//
// # The chain
//
// An Entry names what was decided (genesis, split, merge, a change of anchors, of a
// policy or of the line of revisions),
// where the segment was before and after it, who else is concerned, the place in
// the log, who votes behind it, the evidence, and the hash of the entry before.
// The chain's head is the hash of its last entry; the descriptor carries it.
//
//	genesis ── anchors ── split ──────────── anchors ── merge ── ...    left child, goes on
//	                        └──── anchors ──────────────┘               right child, absorbed
//
// The entry of a split is the parent's. It is also the first entry of the right
// child's chain, so that every chain leads to genesis and a child is proved by
// what proves its parent's split. The entry of a merge names both heads, its own
// first. Height counts the entries before one on the way of first predecessors,
// which always is the way of the segment that went on.
//
// # How much of it is kept
//
// A chain holds its last EntriesMax entries or BytesMax bytes, whichever is less,
// and at least one entry. What is older is summarised by two fields that its
// first entry has anyway: Height, how many entries went before, and Previous,
// their head. A chain that was cut is trusted by induction: whoever signed its
// entries applied them on top of that head. Who wants all of it asks the
// segments on the way (Survey finds what is missing).
//
// # What proves what
//
// A hash chain shows that nothing was altered. It does not show that anything was
// committed: a leader that was cut off can append a split to a true chain and
// publish it. So a Proof carries an entry together with signatures of voters that
// applied it, a majority of them, of both sets while the configuration is joint.
// Entries are applied only when committed, and two different entries are never
// committed at one place, so of two chains that fork only one can be proved. Who
// applied an entry himself needs no proof. A node signs nothing that it did not
// apply; the signatures are worth what the keys are worth: this is no protection
// against voters that lie.
//
// # Encoding
//
// One entry has exactly one encoding; decoders refuse any other. Numbers are
// minimal uvarints unless a width is given, texts and keys have their length in
// front.
//
//	entry   version 1 | kind 1 | mesh 8 | segment 8 | height
//	        before, after: generation, start, end
//	        other: segment 8, generation, start, end
//	        index | term
//	        voters, outgoing voters: count, node IDs ascending
//	        evidence: reason, pressure, spread, count, numbers..., operator
//	        of a policy or a recovery: from, scope, version, hash of the policy 32, decision 32
//	        count 1, hashes of predecessors 32 each
//	chain   version 1 | segment 8 | count, entries, each with its length
//	proof   version 1 | entry with its length | count, (node, signature)... ascending by node
//
//	hash of an entry   SHA-256("anchormesh lineage entry v1\n" + entry)
//	what voters sign   "anchormesh lineage applied v1\n" + hash of the entry
//
// Kind 6 (trust) is reserved: this version refuses it.
//
// # What it does not do
//
// It does not sign, does not know keys, and does not decide. It does not compare
// descriptors of different segments: their generations do that.
package lineage
