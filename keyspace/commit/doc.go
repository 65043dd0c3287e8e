// Package commit is transactions over several segments of a scope: two-phase commit
// that any node can finish.
package commit
