package message

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// ErrMalformed says that a frame is not what Append writes.
var ErrMalformed = errors.New("malformed raft frame")

// Types of messages that are no business of Raft's, but of the shells that run
// it: see package shard. They fill the same fields.
const (
	// Sleep: a leader asks a replica to stop its clock. Term and Index say where
	// the group stands, RejectHint numbers the question, Vote counts the replicas
	// that are not asked.
	Sleep raftpb.MessageType = 80 + iota
	// Slept: the replica did, as far as RejectHint's question goes.
	Slept
)

const (
	flagReject = 1 << iota
	flagContext
	flagEntries
)

// Append adds a message of a segment's group to a frame.
func Append(frame []byte, segment anchormesh.SegmentID, m *raftpb.Message) []byte {
	var flags byte
	if m.GetReject() {
		flags |= flagReject
	}
	if len(m.GetContext()) > 0 {
		flags |= flagContext
	}
	if len(m.GetEntries()) > 0 {
		flags |= flagEntries
	}
	frame = binary.AppendUvarint(frame, uint64(segment))
	frame = append(frame, byte(m.GetType()), flags)
	for _, v := range [...]uint64{
		m.GetTo(), m.GetFrom(), m.GetTerm(), m.GetLogTerm(), m.GetIndex(), m.GetCommit(), m.GetVote(), m.GetRejectHint(),
	} {
		frame = binary.AppendUvarint(frame, v)
	}
	if flags&flagContext != 0 {
		frame = appendBytes(frame, m.GetContext())
	}
	if flags&flagEntries != 0 {
		frame = binary.AppendUvarint(frame, uint64(len(m.GetEntries())))
		for _, e := range m.GetEntries() {
			frame = append(frame, byte(e.GetType()))
			frame = binary.AppendUvarint(frame, e.GetTerm())
			frame = binary.AppendUvarint(frame, e.GetIndex())
			frame = appendBytes(frame, e.GetData())
		}
	}
	return frame
}

// Size returns an upper bound of what Append adds.
func Size(m *raftpb.Message) int {
	n := 2 + 11*binary.MaxVarintLen64 + len(m.GetContext())
	for _, e := range m.GetEntries() {
		n += 1 + 3*binary.MaxVarintLen64 + len(e.GetData())
	}
	return n
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Decode calls visit for each message of a frame, in order. The messages alias
// frame. It stops at the first one that is malformed.
func Decode(frame []byte, visit func(anchormesh.SegmentID, *raftpb.Message)) error {
	d := decoder{rest: frame}
	for len(d.rest) > 0 {
		segment := anchormesh.SegmentID(d.uvarint())
		m := d.message()
		if d.failed {
			return fmt.Errorf("%w: at byte %d of %d", ErrMalformed, len(frame)-len(d.rest), len(frame))
		}
		visit(segment, m)
	}
	return nil
}

// travels has a bit for each type that one node sends to another. Raft's others
// are words between a replica and its own shell, and would be believed as such.
const travels = 1<<raftpb.MsgApp | 1<<raftpb.MsgAppResp | 1<<raftpb.MsgVote | 1<<raftpb.MsgVoteResp |
	1<<raftpb.MsgPreVote | 1<<raftpb.MsgPreVoteResp | 1<<raftpb.MsgHeartbeat | 1<<raftpb.MsgHeartbeatResp |
	1<<raftpb.MsgTransferLeader | 1<<raftpb.MsgTimeoutNow | 1<<raftpb.MsgReadIndex | 1<<raftpb.MsgReadIndexResp

func mayTravel(t raftpb.MessageType) bool {
	return t == Sleep || t == Slept || t <= raftpb.MsgPreVoteResp && travels&(1<<t) != 0
}

type decoder struct {
	rest   []byte
	failed bool
}

// block holds a message's scalars, so that decoding allocates once for all of
// them: raftpb keeps pointers.
type block struct {
	m      raftpb.Message
	typ    raftpb.MessageType
	fields [8]uint64
	reject bool
}

func (d *decoder) message() *raftpb.Message {
	b := &block{}
	b.typ = raftpb.MessageType(d.byte())
	if !mayTravel(b.typ) {
		d.failed = true
		return nil
	}
	flags := d.byte()
	for i := range b.fields {
		b.fields[i] = d.uvarint()
	}
	b.reject = flags&flagReject != 0
	m := &b.m
	m.Type, m.Reject = &b.typ, &b.reject
	for i, p := range [...]**uint64{&m.To, &m.From, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		*p = &b.fields[i]
	}
	if flags&flagContext != 0 {
		m.Context = d.bytes()
	}
	if flags&flagEntries != 0 {
		m.Entries = d.entries()
	}
	return m
}

type entryBlock struct {
	e           raftpb.Entry
	typ         raftpb.EntryType
	term, index uint64
}

func (d *decoder) entries() []*raftpb.Entry {
	count := d.uvarint()
	if d.failed || count > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	out := make([]*raftpb.Entry, count)
	for i := range out {
		b := &entryBlock{typ: raftpb.EntryType(d.byte()), term: d.uvarint(), index: d.uvarint()}
		if _, known := raftpb.EntryType_name[int32(b.typ)]; !known {
			d.failed = true
		}
		b.e.Type, b.e.Term, b.e.Index, b.e.Data = &b.typ, &b.term, &b.index, d.bytes()
		if d.failed {
			return nil
		}
		out[i] = &b.e
	}
	return out
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.failed = true
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.failed = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	size := d.uvarint()
	if d.failed || size > uint64(len(d.rest)) {
		d.failed = true
		return nil
	}
	b := d.rest[:size:size]
	d.rest = d.rest[size:]
	return b
}
