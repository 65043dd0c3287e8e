// Package verify judges a run of traffic. Most of it is testnet/check's; what is
// added here needs no search, and so can judge hours:
//
//	acknowledged   every acknowledged write is an event at the revision that its
//	               answer named, with what it replaced; none is lost
//	real-time      revisions of answers keep to the order of real time: an operation
//	               that began after another ended is not before it
//	transactions   compares held, or did not, at the revision of the answer
//	registers      each key by itself is linearizable (porcupine)
//	lists          every acknowledged item is there, once, in the order of revisions
//	counters       between the acknowledged additions and those plus the unknown
//	transfers      the sum over accounts is zero in every read
//	leases         testnet/check's, and a revoked lease's keys are gone at its answer
//	rules          of a scope: nothing forbidden was written, no quota was exceeded
//	light          of a scope: nothing is lost but with a generation that says so
//
// Histories of one line only. Everything is a function of the log.
package verify
