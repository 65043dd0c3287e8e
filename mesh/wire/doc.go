// Package wire is how bytes reach other nodes: the only user of libp2p.
//
// A Host listens on one TCP port. Every connection is a private network (a
// pre-shared key derived from the mesh key), TLS 1.3 with libp2p identities, and
// yamux, made by libp2p's own transport and upgrader. Above that stands nothing
// of libp2p: no host, no swarm, no identify, ping, relay, hole punching, AutoNAT
// or mDNS. They would run a dozen goroutines and protocols to learn addresses
// that the view already has. To another libp2p implementation with the key a
// Host looks like any other.
//
// # What goes over it
//
//	messages  one way, may be lost; a class (0..7) each with its own stream and queue
//	calls     request and answer, matched by number, answered in any order
//	bulk      a byte stream each, on a connection of their own
//	clients   the etcd API: net.Listener and net.Conn, on the bulk connection
//
// A stream of messages or calls is opened by the side that sends the messages
// or requests, at first use, and lives as long as the connection. Frames that
// are queued while another write is under way go out together in the next one.
//
//	/anchormesh/messages/1   hello, then   length 4 | payload
//	/anchormesh/calls/1      hello, then   length 4 | id 8 | timeout 4 (ms, 0 none) | method 1 | payload
//	                         and back      length 4 | id 8 | code 2 (0 success) | payload
//	/anchormesh/bulk/1       hello, then   whatever its two users agreed on
//	/anchormesh/etcd/1       no hello      gRPC
//
//	hello    version 1 | class 1 | mesh ID 8 | boot 8 | name length 1 | name
//	welcome  version 1 | status 1 | boot 8 | text length 1 | text
//
// Numbers are big-endian; a length counts what follows it. A peer of another
// version or mesh is refused in the welcome, with a sentence.
//
// # Guarantees
//
//   - Who sent something is proved by TLS. Who does not hold the mesh key does
//     not get as far as TLS.
//   - Messages of one class and requests from one peer reach their handlers in
//     the order of sending as long as one stream carries them. When it breaks
//     what was written may be lost; what was queued goes over the next one.
//   - A call ends once: with the answer, with an error that says it was not sent
//     (ErrUnreachable, ErrOverloaded, ErrTooLarge), with ErrUnknownOutcome, or
//     with its context's error. No call is sent twice.
//   - Payloads given to Send, Call and Reply are copied before these return.
//     Payloads given to handlers and returned by Call belong to the receiver.
//   - Send never blocks. Answering never blocks.
//   - All methods are safe for concurrent use.
//
// # At the limits
//
// Every limit is a field of Limits. A full message queue drops the newcomer and
// counts it. A full call queue fails with ErrOverloaded at once. Answers a peer
// does not take end its stream. A frame above the limit ends its stream; the
// memory for a large frame is allocated as its bytes arrive. More connections,
// handshakes or streams than allowed are closed or reset at once. What a peer
// sends wrongly is counted and logged once a minute.
//
// # Connections
//
// Only peers the Directory names are dialled, on demand; afterwards the
// connection is made again by itself, with a doubling pause, for as long as the
// Directory names them. All addresses are tried, one beside the other. Nodes
// that dial each other at once end with two connections; both serve, the idle
// streams move to the one made by the smaller ID, and the other is closed. A
// restarted peer is told from its past by its boot number, and connections to
// its past are closed. An idle connection is pinged every KeepAlive and given up
// when an answer takes as long; so is one that cannot be written to.
//
// # Goroutines
//
// One accepts, one sweeps; each connection has yamux's three and one that
// accepts streams; each lane (peer and class, or peer's calls) one that writes
// and one that reads; each inbound stream of requests two. No lock is held while
// writing, dialling or calling a handler. Lock order: lane or trunk, then Host.
//
// # Figures
//
// Two cores of an AMD EPYC at 2.6 GHz, both nodes in one process over loopback,
// go test -bench . ./mesh/wire; CPU is that of both nodes together.
//
//	one caller, 300 bytes there and back    p50 24 µs, p99 80 µs, CPU 30 µs
//	  4 callers                             95 000 calls/s, CPU 10.5 µs each
//	 32 callers                             290 000 calls/s, CPU 3.9 µs each
//	500 callers                             500 000 calls/s, CPU 2.9 µs each
//	messages of 1 KiB                       440 MB/s, CPU 3.2 µs each
//	messages of 64 KiB                      365 MB/s, CPU 193 µs each
//
//	security under a private network        TLS (AES-GCM)   Noise (ChaCha20)
//	frames of 1 KiB, one write each         10.9 ms CPU/MB   9.9 ms CPU/MB
//	frames of 64 KiB                         3.0 ms CPU/MB   3.1 ms CPU/MB
//	round trip of 300 bytes                 28 µs           32 µs
//
// The two are as good as equal, since the private network's Salsa20 costs most
// (1.9 ms of the 3.0); TLS has the lower latency and the better understood
// implementation. Writing a request by its caller instead of the lane's
// goroutine was 5 % faster for one caller and cost nearly twice the CPU with
// four; answering from the reader halved the throughput of many. Neither stayed.
package wire
