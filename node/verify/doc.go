// Package verify judges the structure of a mesh by what its nodes say of it: does
// every key have exactly one owner, does every lineage verify and lead to genesis, is
// every decision in it proved, do replicas agree, do routes lead to where the keys
// are.
//
// It is pure: Look judges what was gathered, Differing the hashes. Who gathers asks
// the nodes (cmd/anchormesh).
//
// # What a look sees
//
// Owners are judged by what anchors have applied themselves, never by what anybody
// heard: of each segment the newest state that a replica is in. A replica that is
// behind is no second owner: the lineages of the others tell that its segment went on.
// Lineages are believed where they are proved; a proof is checked against the entry
// before it, and the first one that is kept against itself (package lineage says why
// that is enough).
//
// Replicas are compared by hashes, where they stand if all anchors of their segment stand at one
// place of its log; else behind a barrier (Apart), which wakes a group that sleeps.
//
// # A mesh that lives
//
// The nodes are asked one after the other, while segments are split and moved. One
// look may therefore see what never was. Lasting keeps the findings that several looks
// agree about; a fault stays, a change passes.
//
// # What it does not see
//
// Nodes that cannot be reached: a note names them, and what only they hold is missing.
// Voters that lie together.
package verify
