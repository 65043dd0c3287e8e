// Package shard is the pure core of one worker of the engine: it owns a set of
// replicas, steps all that have something to do, and gathers what they want
// done. There is no goroutine, lock, clock or I/O here; Step takes an inbox and
// returns effects, which the caller carries out. The engine's worker goroutine
// and the simulator are its two callers.
//
// Messages of all groups to one node leave in one frame. A replica that holds
// no state yet (absent: just invited, or its installation was cut short) is
// not stepped at all; it answers its leader's appends in a way that makes the
// leader send a snapshot.
package shard
