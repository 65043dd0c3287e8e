// Package approvals is node/approvals with its waits turned into events: a leader shows a
// batch of writes to the voters, each judges by itself and signs, and one entry carries
// requests and votes. The cores, the judging and the counting in apply are the real ones.
//
// Scopes that were split are left out: their batches take stamps, which are not mirrored.
package approvals
