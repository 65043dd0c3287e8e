// Package simkit is the ground that simulations stand on: virtual time, one
// source of chance, a network, disks and clocks that misbehave, and a hash of
// everything that happened.
//
//	kernel   events in order of (time, sequence); Run executes them one by one
//	trace    every noted event goes into a hash and into a ring of the last ones
//	network  latency, loss, duplication, reordering, one-way cuts, clogged links
//	disk     how long a write takes; slow spells
//	clock    what a machine believes the time to be: offset, drift, jumps
//
// One seed gives one run: nothing here reads the real clock, starts a goroutine or
// depends on the order of a map. All chance comes from PCG streams derived from
// the seed; Kernel.Stream gives each part of a simulation its own, so that another
// draw in one part does not shift all others.
//
// The design is that of FoundationDB's and TigerBeetle's simulators: the code
// under test is real, everything that it stands on is a model. What is modelled is
// the world, not the protocols.
package simkit
