// Package transfer streams a segment's state from the group's leader to a
// replica on another node.
//
// Layout of a stream, sender to receiver:
//
//	byte     version (1)
//	uvarint  replica ID the state is for
//	uvarint  applied index, uvarint applied term
//	uvarint  length, bytes: the segment's record (package machine)
//	then chunks: uint32 length (big-endian), uint32 crc32c, bytes
//	a chunk of length zero ends the stream
//
// The receiver answers one byte: 0 installed, 1 not needed, 2 refused (then a
// sentence up to the end of the stream).
//
// At most MaxStreams run out of a node and into it at once; more are refused
// and Raft asks again. Chunks are paced, so that a transfer leaves room for
// heartbeats and requests on the same network.
package transfer
