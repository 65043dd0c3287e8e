// Package bolt is the ordered store below the state of a scope: named buckets of
// byte keys, one durable transaction at a time, and cheap shared snapshots. It
// is the only user of bbolt.
//
// Two implementations pass one conformance suite: File keeps a bbolt file, Memory
// keeps copy-on-write trees for light scopes and for simulation.
//
// # Guarantees
//
// Durability. Update returns nil only after the whole transaction is synced
// (Memory: visible). A transaction is all or nothing across a crash. The entry of
// a new file in its directory is synced before OpenFile returns.
//
// Failure. An error of the function passed to Update rolls back and is returned as
// it is; the store goes on. Any failure to write or sync is returned wrapped in
// ErrFatal, once and by every later Update: what is on disk is then unknown, and a
// retried fsync may lie. The owner must crash and recover from its log.
//
// Concurrency. One Update or Defrag runs at a time; callers queue. Snapshots are
// taken and released at any time from any goroutine and never wait for a commit's
// write or sync, with one exception: when a file outgrows FileConfig.MapBytes the
// commit that grows it waits until every snapshot is released, and new ones wait
// for that commit. So a caller must not take a snapshot inside Update.
//
// Sharing. All who ask for a snapshot between two commits share one read
// transaction, so a point read costs a counter and not a transaction. The
// store itself holds no snapshot while an Update runs, so that idle pages are
// reused and the map can grow. A snapshot held for long pins the pages that were
// freed since: the file grows, nothing else suffers.
//
// Memory. Bytes read from a snapshot alias the store (the file's mapped pages) and
// are valid until Release: touching them later can crash the process. Put copies the
// key; the value must not change before Update returns.
//
// # Choices
//
//   - Pages of 8 KiB: against 4 KiB a random lookup among a million records of 300
//     bytes costs a quarter less, an appended one 1.2 µs and not 1.4.
//   - The freelist is not written (bbolt's NoFreelistSync): with 300 MB freed by a
//     compaction a small commit takes 1.2 ms and not 3.9. The price is a walk over
//     the tree when the file is opened (27 ms for a million records), and the layer
//     above reads all of it then anyway.
//   - Lookups go through one bbolt cursor: it descends in 160 ns, Bucket.Get in 280
//     with three allocations. Reading the mapped pages by hand, with bbolt's format
//     in mind, was tried and saved 20 ns: not worth the unsafe code.
//   - Buckets that are appended to are filled to 95 %, bbolt's default of 50 %
//     would double the file.
package bolt
