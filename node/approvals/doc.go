// Package approvals carries the approvals of writes to strong scopes (package
// anchors/approval) between the nodes: it stands between whoever proposes a client's
// write and the log, and lets everything else pass.
//
//	leader    Propose   shows what waits to the voters, proposes it with their votes
//	voter     Serve     waits for the place that is judged, judges, signs
//	replica   Verifier  checks signatures, in apply and before
//
// One goroutine per node runs the leaders' cores of all segments; it does no I/O. Each
// batch is shown from goroutines of its own, one per voter, which verify what comes back.
//
// # What needs approvals
//
// In a segment whose policy in force has an approval threshold: puts, deletions,
// transactions, and the prepare of a transaction over several segments, which carries its
// writes. Not what follows from something that was approved or what changes no key:
// commits and aborts (what can refuse refuses at prepare), grants, and the end of a lease
// with its deletions, which whoever approved a put on the lease agreed to; compactions and
// alarms are the operator's. The segment's replicas refuse such writes without approvals,
// so that nothing here can be left out.
//
// Agree asks about a change of structure, in every scope: one round, without a batch's
// sequence, and the votes travel in the entry that makes the change.
//
// # Guarantees
//
//   - Propose ends exactly once: with the outcome of apply, with a refusal
//     (machine.RefusedError), or with an error that took effect nowhere, or unknown.
//   - Votes that were given for another place (leader, generation, voters, policy or weights
//     changed in between) admit nothing. Whoever proposed gets ErrStale and tries again; it
//     may, for the outcome is known.
//   - Stamps go on after the votes: a write waits for its stamp when it is approved.
//   - A voter judges in a state that holds everything up to the named index and all
//     batches approved before, or says nothing. It judges each request by itself; what two
//     requests of one batch do to each other is judged again in apply.
//
// # Limits
//
// Those of approval.Config for each segment. ServeMax batches are judged at a time on a
// node; beyond it a voter abstains. A voter that does not answer within the patience
// has abstained.
//
// # What travels (mesh call Method)
//
// Request: uvarint sequence of the batch behind which it is judged, then
// approval.AppendQuestion. Answer: approval.AppendVote. A failure is an abstention, its
// text says why.
package approvals
