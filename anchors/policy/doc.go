// Package policy is what a scope's rules say: how many anchors govern it and
// where, what an acknowledged write survives, who has to agree, what may be
// written, how much, and for how long it is kept.
//
// It is pure. A Policy is a value: it is validated and compared here, decided in
// the scope's log, and enforced by those whose business the field is.
package policy
