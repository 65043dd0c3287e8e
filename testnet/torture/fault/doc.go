// Package fault says what is done to a mesh, to whom, when and for how long: a
// plan is drawn from a seed, and the same seed gives the same plan.
//
// It is values only; package target does what a plan says.
package fault
