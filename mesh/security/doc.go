// Package security encrypts the connections of libp2p and proves who is at the
// other end: libp2p's TLS 1.3 handshake, with certificates that are valid at any
// time.
//
// libp2p's own transport gives a certificate the hour before the process
// started as its beginning. A node whose clock is set back by more than that
// could not connect to any other until the clock is right again. What a libp2p
// certificate proves does not depend on time: it is made anew by every process
// and carries the peer's signature of the connection's key. So ours begin in
// 1970 and end with the year 9999. Everything else, the verification of the
// other side's certificate included, is libp2p's, and each side interoperates
// with libp2p's own transport.
//
// The multiplexer is agreed upon within the handshake, which saves a round trip.
package security
