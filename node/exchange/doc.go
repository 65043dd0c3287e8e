// Package exchange spreads descriptors and tombstones between nodes, without a
// directory: a node asks others what changed since it last asked them, and tells
// a few at once what it has just changed itself.
//
// What is learnt so is a hint. Whoever acts on one does so because a wrong one
// costs a hop only (routes), or because it was applied by the node that told it
// (a replica that its group removed).
//
// # Asking
//
// Every table numbers its changes. A node keeps, for each peer, up to which
// number it has heard that peer's journal, and asks for the versions (segment,
// generation, change: some 13 bytes) behind it; then for the bodies of those that
// it lacks. Nothing is sent twice to a node that has it from somebody else, but
// for its version. The number counts only for the boot of the peer that it came
// from. At first contact, and when the peer was restarted, both compare sums: one
// over everything, which is equal in a mesh at rest and settles it in one
// question of 30 bytes; if it differs, 256 sums of 2 KiB together, and the
// versions of the buckets that differ.
//
//	ask   boot, since, sum      same (up to) | versions (up to, more) | compare (up to)
//	sums  256 sums, position    versions (up to, next position)
//	want  segments              bodies, how many of the segments they answer
//	push  bodies                nothing
//
// Every Interval a node asks one peer; peers take turns in random order, so that
// each is asked once in as many rounds as there are peers. While it knows nothing
// it asks every Hurry. An answer has at most AnswerBytesMax; what is left is asked
// for after Pause.
//
// # Why it converges
//
// A node that heard a peer's journal up to a number has taken in, for each
// segment the journal names, that version or a newer one: a version that changes
// gets a new number, and one that goes away did so because higher generations,
// which have numbers, took all its keys. Equal sums say the same (but for two in
// 2^64). And what a table routes depends on what it heard only, not on the order
// (package route). So once changes cease and every pair that is connected has
// talked, everybody routes as if he had heard everything. Loss costs a question:
// nothing is counted as heard before its bodies came.
//
// # Telling
//
// Announce sends what changed here to Fanout random peers, after PushDelay, in
// which other changes join. Who hears news this way tells it on, once: of a mesh
// of 100, some 80 nodes know within five hops and about 94 in the end; the others'
// next question serves them. The queue holds UrgentMax segments, a push
// PushBytesMax bytes; what is beyond waits for the questions.
//
// # Tombstones
//
// A peer that asks for what is behind a number has confirmed everything up to
// it. Once every other member of the view, dead ones included, has confirmed the
// tombstone and higher generations for all of its range, it is dropped
// (route.Table.Release). Each node counts for itself, so one that is restarted
// or told again counts anew, and ends the same way.
//
// # What it does not do
//
// It verifies no proofs and keeps nothing on disk. It does not carry load: that
// is in the gossiped summaries (docs/adr/0013-spreading-structure.md).
package exchange
