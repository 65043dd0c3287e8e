package keyspace

import (
	"encoding/binary"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

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

// stamped applies a command at the revision that came with it. What it writes has
// this revision, and what it answers shows it, even if it writes nothing; then the
// segment's own revision stays. A compaction takes no revision: its stamp is one
// below which nothing more can come here, and so may be old.
func (a *applier) stamped(cmd []byte) Outcome {
	rev, inner, ok := CutStamp(cmd)
	if !ok {
		return Outcome{Err: codec.ErrMalformed}
	}
	if rev <= max(a.rev, a.s.commits.Floor()) && Op(inner[0]) != OpCompact {
		return Outcome{Err: ErrStampOrder}
	}
	a.stamp = rev
	out := a.apply(inner)
	a.stamp = 0
	return out
}

// open begins the transaction of a command.
func (a *applier) open() *mvcc.Txn {
	if a.stamp == 0 {
		return a.b.Txn()
	}
	t, err := a.b.TxnAt(a.stamp)
	if err != nil {
		panic("keyspace: a stamp that was admitted: " + err.Error())
	}
	return t
}

// shown is the revision in the header of a command's answer, once it is done.
func (a *applier) shown() int64 {
	if a.stamp != 0 {
		return max(a.stamp, a.rev)
	}
	return a.rev
}

// before is the newest revision that a command sees before it writes: everything
// below a stamp is history.
func (a *applier) before() int64 {
	if a.stamp != 0 {
		return max(a.stamp-1, a.rev)
	}
	return a.rev
}
