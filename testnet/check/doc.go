// Package check judges what clients and replicas saw. It knows nothing of the
// program under test: a history comes from the simulator or from a real mesh, in
// memory or as JSON lines, and the verdict is a list of broken promises.
//
//	Linearizable   keys, transactions and leases against a plain sequential etcd:
//	               revisions, versions, counts and all; in the order that places
//	               tell, or else in one that porcupine finds
//	Reads          every read, serializable ones too, equals the keys at the
//	               revision that its header names, or that it asked for
//	Watches        etcd's documented guarantees, one sentinel for each:
//	               Ordered, Unique, Reliable, Atomic, Resumable, Bookmarkable,
//	               PrevKV, IsCreate, Filter
//	Leases         none ends before the time that a client was promised, none is
//	               renewed after its end, none lives on for ever
//	Leaders        at most one per group and term
//	Log            one content per group and index; what was acknowledged is in it
//	States         equal hashes of the state at equal index
//
// # Lines
//
// A line is an order of revisions: one segment, or a whole mesh that counts in one.
// Operations, events and watches name theirs, and each line is judged on its own.
//
// # Time
//
// Times are nanoseconds of one clock that all clients share. An operation that
// never returned, or whose outcome its client could not tell, has Return 0 and no
// Result: it took effect once at any later time, or never. With a Return and no
// Result it took effect by then, and only its answer is unknown; whoever knows that
// (from events, or from the log) saves the search much. One that certainly had no
// effect must not be in the history.
//
// # Order
//
// Where an operation's Place says in which order things happened, that order is carried
// out, in one step for each: if every answer fits and each operation lies between its
// call and its return, it is a linear order, whoever named it. If not, nothing is said,
// and porcupine searches, in a number of steps that is counted and not timed.
//
// # Events
//
// The events of a line are everything that happened to its keys, in order: in the
// simulator what the state machines applied, on a real mesh a watch of all keys from
// the first revision. Reads and Watches trust them; Linearizable does not, and
// Explained connects both: each event must come from an operation.
//
// Methods: G. Kingsbury's and etcd's robustness tests (value-typed sequential etcd,
// one validator per watch guarantee); A. Athalye's porcupine for linearizability.
package check
