// Package invariant states what must be true.
//
// Always is for cheap checks and stays on in production: a process whose own
// state contradicts itself cannot judge what is safe, so it stops and leaves
// the work to its peers. Costly is for checks that would be felt; they are
// compiled in only with the build tag "invariants", which tests use.
//
// Bad input is never an invariant: it is an error. The package does not log and
// does not recover.
package invariant
