// Package signed is how a client signs what it writes, so that a scope can refuse what
// its writers did not write, whoever carried it.
//
//	message  "anchormesh signed write 1\n" | mesh, 8 bytes big-endian | scope, with its length
//	         as uvarint in front | method, 1 byte | counter, 8 bytes big-endian | SHA-256 of the request
//	proof    ed25519 key, 32 bytes | counter, 8 bytes big-endian | signature, 64 bytes
//
// The request is etcd's, byte for byte as it travels; the method is 1 for a Put, 2 for a
// DeleteRange, 3 for a Txn. Over gRPC the proof is the metadata entry [Metadata].
//
// # Replay
//
// A signer counts: each proof has a counter that it has not used, near or above the highest
// one. A segment remembers per signer the highest counter and which of the WindowBits below it
// were used, so requests of one signer may overtake each other that far. It remembers SignersMax
// signers; one more takes the place of who has the lowest highest counter, and what is at or below that is
// refused from then on, from every signer who is not remembered. Counters that begin with the
// time, in nanoseconds, as those of Signer do, keep a new signer above it.
//
// # What this package does not do
//
// It says nothing of who may write. A proof is about the request alone, not about what
// the store held: compares in transactions are for that.
package signed
