// Package approval is how the anchors of a strong scope agree to writes before these
// are proposed.
//
// It is pure: package node/approvals carries it. The leader shows a batch of requests
// to the voters; each judges every request by itself and signs one [Vote] on the batch;
// one entry of the log carries requests and votes ([Batch]); every replica that applies
// it counts the votes again ([Batch.Judge]) and admits each request on its own.
//
//	waiting --> shown to the voters --> proposed, with the votes --> ended
//	            one batch at a time     (or refused: answered here)
//
// # What a vote signs
//
// [Question]: mesh, segment, generation, configuration index, term, sequence within the
// term, versions of policy and trust, the index judged, the digest of the requests in
// their order; and for each request whether the voter refuses it, and by which rule. So a
// vote serves one entry: not another batch, not the same batch again (the sequence must
// be above the last admitted one of the term), not in another term, and not behind a
// change of the voters, the policy, the weights or the range.
//
// # Acts
//
// A change of structure that nobody needs to stay alive ([Question.Act]: a split, a
// merge) is voted on in the same way, alone in its batch and in one round ([Poll]).
//
// # Whose votes count
//
// Those of the voters in force, by their effective weights (package trust). Somebody who
// does not vote in force, votes twice or did not sign makes the whole entry void: an
// honest leader proposes no such entry. A request is admitted when those who approve it
// reach the threshold, and refused, it alone, when they cannot any more.
//
// # Guarantees
//
//   - Leader: every request that Submit took comes back exactly once: in a Ready batch
//     (with its verdict), or in Back (it took effect nowhere). Batches become ready in
//     the order of their sequences.
//   - Judge is a function of the entry and of the replicated state, nothing else.
//   - At the limit of what waits, Submit refuses.
//
// # What this package does not do
//
// It judges no request, signs nothing and verifies by a function that it is given. It
// does not bind what a vote means: a vote is no promise that the request can be applied,
// as what lies in the log before it is judged again there. And as everywhere, no
// promise against more than f voters that lie together.
package approval
