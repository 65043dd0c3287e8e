// Package transfer streams a segment's state from the group's leader to a
// replica on another node.
//
// Layout of a stream, sender to receiver:
//
//	byte     version (2)
//	a chunk  uvarint replica ID the state is for, uvarint applied index, uvarint
//	         applied term, the segment's record (package machine)
//	chunks   the state
//	a chunk of length zero ends the stream
//
//	chunk:   uint32 length (big-endian), uint32 crc32c, bytes
//
// The receiver answers one byte: 0 installed, 1 not needed, 2 refused (then a
// sentence up to the end of the stream). It may answer before the stream's end;
// the sender hears it and stops.
//
// At most MaxStreams run out of a node and into it at once; more are refused
// and Raft asks again. Chunks are paced, so that a transfer leaves room for
// heartbeats and requests on the same network.
package transfer
