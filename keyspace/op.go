package keyspace

import (
	"encoding/binary"
	"fmt"
)

// Op is the first byte of a command in the log: what to do and how the rest is
// encoded. The values are disk format; an operation whose encoding changes gets a
// new one.
type Op byte

// Operations of this package. Values from OpStructural on belong to structural
// commands, which never reach it.
const (
	OpPut             Op = 1  // etcdserverpb.PutRequest
	OpDeleteRange     Op = 2  // etcdserverpb.DeleteRangeRequest
	OpTxn             Op = 3  // etcdserverpb.TxnRequest
	OpCompact         Op = 4  // etcdserverpb.CompactionRequest
	OpLeaseGrant      Op = 5  // etcdserverpb.LeaseGrantRequest, ID and TTL final
	OpLeaseRevoke     Op = 6  // etcdserverpb.LeaseRevokeRequest
	OpLeaseCheckpoint Op = 7  // codec.LeaseCheckpoint, repeated as field 1
	OpLeaseExpire     Op = 8  // codec.LeaseExpiry
	OpAlarm           Op = 9  // etcdserverpb.AlarmRequest
	OpStamped         Op = 10 // a revision, 8 bytes big-endian, then another command

	// Leases whose keys lie in several segments; all codec.LeaseMark but OpLeaseEnding,
	// which is codec.LeaseExpiry.
	OpLeaseRegister Op = 11 // at the home: keys in a range may hang on it
	OpLeaseEnding   Op = 12 // at the home: it ends
	OpLeaseFinish   Op = 13 // at the home: it has ended in all its ranges
	OpLeaseOpen     Op = 14 // elsewhere: puts may name it
	OpLeaseEnd      Op = 15 // elsewhere, or at the home for a range it took over: delete its keys
	OpLeaseForget   Op = 16 // elsewhere: the home has finished it

	// Transactions over several segments; encoded by package commit.
	OpPrepare Op = 17 // behind a stamp, or at the next number: hold the locks, keep the writes
	OpCommit  Op = 18 // make the writes at the decided revision
	OpAbort   Op = 19 // throw them away
	OpDecide  Op = 20 // at the range of the first key: the first one written stands
	OpForget  Op = 21 // there: all participants have confirmed

	// What a scope's policy needs.
	OpBy         Op = 22 // who writes, then the command: see Origin
	OpShare      Op = 23 // the segment's share of its scope's quota: see AppendShare
	OpCompactOwn Op = 24 // etcdserverpb.CompactionRequest, by the scope's own retention

	OpStructural Op = 64
)

// String is the name used in logs and tables.
func (op Op) String() string {
	switch op {
	case OpPut:
		return "put"
	case OpDeleteRange:
		return "delete-range"
	case OpTxn:
		return "txn"
	case OpCompact:
		return "compact"
	case OpLeaseGrant:
		return "lease-grant"
	case OpLeaseRevoke:
		return "lease-revoke"
	case OpLeaseCheckpoint:
		return "lease-checkpoint"
	case OpLeaseExpire:
		return "lease-expire"
	case OpAlarm:
		return "alarm"
	case OpStamped:
		return "stamped"
	case OpLeaseRegister:
		return "lease-register"
	case OpLeaseEnding:
		return "lease-ending"
	case OpLeaseFinish:
		return "lease-finish"
	case OpLeaseOpen:
		return "lease-open"
	case OpLeaseEnd:
		return "lease-end"
	case OpLeaseForget:
		return "lease-forget"
	case OpPrepare:
		return "prepare"
	case OpCommit:
		return "commit"
	case OpAbort:
		return "abort"
	case OpDecide:
		return "decide"
	case OpForget:
		return "forget"
	case OpBy:
		return "by"
	case OpShare:
		return "share"
	case OpCompactOwn:
		return "compact-own"
	}
	return fmt.Sprintf("op(%d)", byte(op))
}

// AppendCommand appends a command: op, then the encoded request.
func AppendCommand(dst []byte, op Op, request []byte) []byte {
	return append(append(dst, byte(op)), request...)
}

// StampBytes is what a stamp puts in front of a command.
const StampBytes = 1 + 8

// AppendStamp appends the beginning of a stamped command; the command follows. With
// StampBytes to spare in front of a command, AppendStamp(buf[:0], rev) stamps it where
// it lies, and stamps it anew after ErrStampOrder.
func AppendStamp(dst []byte, rev int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(OpStamped)), uint64(rev))
}

// CutStamp takes a stamped command apart. ok is false if cmd is none: it is too
// short, its revision is no revision, or its command is stamped itself.
func CutStamp(cmd []byte) (rev int64, inner []byte, ok bool) {
	if len(cmd) <= StampBytes || Op(cmd[0]) != OpStamped || Op(cmd[StampBytes]) == OpStamped {
		return 0, nil, false
	}
	rev = int64(binary.BigEndian.Uint64(cmd[1:]))
	return rev, cmd[StampBytes:], rev > 0
}

// Origin is who gave a command: the node that took the request in says so, and nodes
// believe each other. A proof is the client's own word, which apply verifies.
//
// In the log it stands in front of the command, behind the stamp, where the scope's
// policy asks for it:
//
//	+------+--------+--------+--------+----+---------+
//	| OpBy | user   | peer   | proof  | Op | request |
//	+------+--------+--------+--------+----+---------+
//	        each with its length in front, a uvarint
type Origin struct {
	User  string // authenticated by name; "": nobody
	Peer  string // libp2p peer ID of the client's connection; "": it came otherwise
	Proof []byte // see package signed; empty: none
}

// originPartMax bounds each part of an origin.
const originPartMax = 1 << 10

// Zero reports whether nothing is known of the writer.
func (o *Origin) Zero() bool { return o.User == "" && o.Peer == "" && len(o.Proof) == 0 }

// AppendOrigin appends the beginning of a command that names its origin; the command
// follows, which must be a put, a deletion, a transaction or a prepare.
func AppendOrigin(dst []byte, o *Origin) []byte {
	return o.Append(append(dst, byte(OpBy)))
}

// Append encodes the origin's parts.
func (o *Origin) Append(dst []byte) []byte {
	for _, part := range []string{o.User, o.Peer, string(o.Proof)} {
		dst = append(binary.AppendUvarint(dst, uint64(len(part))), part...)
	}
	return dst
}

// ParseOrigin reads what Append wrote and returns what is behind it. The origin's
// proof refers to b.
func ParseOrigin(b []byte) (o Origin, rest []byte, ok bool) {
	var parts [3][]byte
	for i := range parts {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > originPartMax || n > uint64(len(b)-k) {
			return o, nil, false
		}
		parts[i], b = b[k:k+int(n)], b[k+int(n):]
	}
	return Origin{User: string(parts[0]), Peer: string(parts[1]), Proof: parts[2]}, b, true
}

// cutOrigin takes a command apart behind its OpBy.
func cutOrigin(b []byte) (o Origin, inner []byte, ok bool) {
	o, inner, ok = ParseOrigin(b)
	if !ok || len(inner) == 0 {
		return o, nil, false
	}
	switch Op(inner[0]) {
	case OpPut, OpDeleteRange, OpTxn, OpPrepare:
		return o, inner, true
	}
	return o, nil, false
}

// Writes reports whether a command is one of a client's that changes keys, whatever is
// in front of it: a put, a deletion, a transaction, or the prepare of one over several
// segments. What follows from one that was admitted (a commit, the end of a lease) and
// what changes no key (grants, compactions, alarms) is none.
func Writes(cmd []byte) bool {
	if _, inner, ok := CutStamp(cmd); ok {
		cmd = inner
	}
	if len(cmd) == 0 {
		return false
	}
	switch Op(cmd[0]) {
	case OpPut, OpDeleteRange, OpTxn, OpPrepare, OpBy: // behind OpBy nothing else can be
		return true
	}
	return false
}
