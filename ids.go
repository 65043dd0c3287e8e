package anchormesh

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strconv"
)

// NodeID names a node: the text form of the libp2p peer ID of the ed25519 key
// kept in its data directory. It never changes while that directory lives.
type NodeID string

// MemberID is the node's 64-bit name in etcd's API (header.member_id,
// MemberList). It is a hash of the node ID, never zero.
func (n NodeID) MemberID() uint64 {
	h := fnv.New64a()
	h.Write([]byte(n))
	if sum := h.Sum64(); sum != 0 {
		return sum
	}
	return 1
}

// Short returns the last eight characters, enough for a log line.
func (n NodeID) Short() string {
	if len(n) <= 8 {
		return string(n)
	}
	return string(n[len(n)-8:])
}

// MeshID names a mesh. It is drawn once, at genesis, and is never zero; etcd's
// API shows it as the cluster ID.
type MeshID uint64

// String is the form used in logs, tables and files: 16 hex digits.
func (m MeshID) String() string { return fmt.Sprintf("%016x", uint64(m)) }

// ParseMeshID reads the form that String writes.
func ParseMeshID(s string) (MeshID, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || v == 0 || len(s) != 16 {
		return 0, fmt.Errorf("mesh ID %q: want 16 hex digits, not all zero", s)
	}
	return MeshID(v), nil
}

// SegmentID names a segment and its anchor group. It is never reused and never
// zero.
type SegmentID uint64

// String is the form used in logs, tables and commands: 16 hex digits.
func (s SegmentID) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// ParseSegmentID reads the form that String writes.
func ParseSegmentID(s string) (SegmentID, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("segment ID %q: want up to 16 hex digits, not zero", s)
	}
	return SegmentID(v), nil
}

// AppendKey appends the segment's fixed-width (8 byte, big-endian) name, the
// form used as a key in stores.
func (s SegmentID) AppendKey(b []byte) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(s))
}

// ReplicaID names one replica inside its anchor group: Raft's node ID. The
// segment's log hands them out and never reuses one.
type ReplicaID uint64

// Generation counts the structural changes of a range: a child's is its
// parent's plus one, a merged segment's the maximum plus one. Requests name it
// and anchors check it exactly.
type Generation uint64

// Revision is etcd's revision: a number in the order of a scope's writes.
type Revision = int64

// Hash is a SHA-256 sum of something in its canonical encoding.
type Hash [32]byte

// IsZero reports whether the hash is absent.
func (h Hash) IsZero() bool { return h == Hash{} }

// String is the form used in logs and tables: hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }
