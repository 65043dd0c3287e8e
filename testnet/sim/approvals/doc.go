// Package approvals is node/approvals with its waits turned into events: a leader shows a
// batch of writes to the voters, each judges by itself and signs, and one entry carries
// requests and votes. The cores, the judging and the counting in apply are the real ones.
//
// Agree asks the voters about a split or the opening of a merge.
//
// Where a scope was split, a batch waits for the stamps of its writes behind the votes.
package approvals
