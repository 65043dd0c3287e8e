// Package govern is node/governor and node/proofs with their waits turned into events,
// and the operators who keep them busy.
//
// The record of a scope, the electorate, the lineage, the machine that applies proposals,
// votes and adoptions, and policies are the real ones. Judging a proposal is chance here:
// voters refuse some.
//
// A signature is known only to the process that applied the entry, since it started: real
// nodes remember more. So decisions are entered again (Affirm) far more often than they
// are in a real mesh.
package govern
