// Package exchange spreads descriptors between nodes: a node asks another for
// what it does not know, names what it has, and gets the difference.
//
// Descriptors learnt so are hints. Whoever acts on one does so because a wrong
// one costs a hop only (routes), or because it was applied by the node that
// told it (a replica that its group removed).
//
// A node asks one peer at random every Interval, at once while it knows no
// segment at all, and the sender of a Raft message for a segment it does not
// hold.
package exchange
