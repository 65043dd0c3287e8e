// Package torture does bad things to a mesh while users work with it, and then judges
// what the users saw.
//
//	fault      what is done, to whom, when: a plan drawn from a seed
//	target     the mesh, as containers or local processes, and how to harm it
//	netq       delay and loss of packets where the kernel has no netem
//	structure  random splits, merges and moves meanwhile, if they are wanted
//	traffic    the users, and the history they write
//	verify     the judges
//
// Faults come one after the other: the fault, its cure, the wait until every node
// serves again, a rest. So each fault's outage can be told: the longest time without
// an acknowledged write through any node, seen by probes that write through every
// node eight times a second. At the end the mesh is healed, the traffic stops, and
// the checkers run; HashKV is compared on all nodes at one revision.
//
// The plan follows from the seed alone; who leads, and all timing, does not: a run is
// not replayed exactly, its history is kept instead when something is wrong.
//
// Everything is bounded: faults and minutes by Config, traffic by its rates. It
// touches only the mesh it was given.
package torture
