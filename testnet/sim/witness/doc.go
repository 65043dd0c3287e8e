// Package witness gathers what the checkers judge: every entry that a replica
// applies, every event that one publishes, every operation of a client, and the
// counts of what a run did.
//
// It finds at once what is wrong at any moment: two leaders of a term, two contents
// of one index, two replicas that publish different events, one command twice in the
// log. Everything else waits for the verdict at the end of the run.
package witness
