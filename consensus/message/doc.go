// Package message encodes Raft messages for the way between two nodes. One
// frame carries messages of any number of groups.
//
// Layout of a frame, repeated to its end:
//
//	uvarint  segment ID
//	byte     message type (raftpb.MessageType, or Sleep or Slept)
//	byte     flags: 1 reject, 2 has context, 4 has entries
//	uvarint  to, from, term, log term, index, commit, vote, reject hint
//	[uvarint length, bytes]                                     context
//	[uvarint count, then each: byte type, uvarint term, index, length, bytes]
//
// Decoded messages alias the frame. Snapshots travel on their own streams and
// are refused here.
package message
