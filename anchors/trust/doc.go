// Package trust is a segment's ledger of how far its anchors are trusted, and what
// follows from it for votes.
//
// It is pure. A [Ledger] is a value in the segment's replicated state; entries of the
// segment's log change it ([Ledger.Next]), each with what a majority of the anchors
// measured of the others, signed. Nobody's weight is ever read from gossip or a clock.
//
// # Weights
//
//	Least 1 .. Newcomer 10 .. Floor 20 .. Cap 100
//
// A node that the ledger does not know weighs Newcomer. Each entry moves an anchor by
// what the median of the others thinks of it: up by Recovery if it answered and kept up,
// down by at most StepMax. Nobody is judged by himself. To be lowered an anchor must have
// been judged by at least a majority of all voters, itself left out, as three anchors
// need both others: one liar of three moves nobody down. Evidence brings an anchor below
// Floor only while no other voter is below it. What is remembered of nodes that are no
// anchors any more drifts to Newcomer, one per entry; AbsentMax of them are remembered.
//
// # Votes
//
// Weights never enter Raft: its elections and commits are plain majorities, and no
// weight can lose what is committed. They count in approvals and amendments, as an
// [Electorate]: of n voters, of which Raft tolerates the loss of f, the heaviest are
// lowered until the n-f lightest reach every threshold of the policy and no f do. So a
// majority that Raft is content with is never blocked by who is missing, and nobody
// decides with fewer. A threshold that even equal weights cannot keep to (more than n-f of
// n, or at most f) is counted as n-f, or f+1, of equal voters.
//
// # History
//
// A ledger keeps its last HistoryMax entries with the medians that moved it, and of the
// last one the signed reports. What it has forgotten is in a checkpoint: the weights then,
// and a hash over all that made them. Each entry's reports name, and sign, the digest of
// the ledger that they follow on; so a majority of the anchors vouches for the checkpoint
// and for every entry behind it. [Ledger.At] gives the weights of any version that is
// kept, so any past vote, which names its version, can be counted again; [Ledger.Replay]
// recomputes every weight and digest from the checkpoint on and compares, and
// [Ledger.Verify] checks the signatures, too.
//
// # What this package does not do
//
// It does not measure, sign or send (node/trust), it does not verify signatures by itself
// (the caller passes how), and it promises nothing against more than f anchors that lie
// together: it is no Byzantine agreement.
package trust
