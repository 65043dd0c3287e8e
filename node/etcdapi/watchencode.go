package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// Fields of etcd's WatchResponse; 11, the events, arrives encoded.
const (
	fieldHeader protowire.Number = iota + 1
	fieldWatchID
	fieldCreated
	fieldCanceled
	fieldCompactRevision
	fieldCancelReason
	fieldFragment
)

// watchEncoder writes WatchResponses around events that were encoded once for
// all watches.
type watchEncoder struct {
	header codec.Header
	limit  int // bytes; a response that may be cut is, from here on
}

// send sends r, in several responses if its watch allows that and it is too
// large, by etcd's rule: each holds at least one event, and as many as fit.
func (e watchEncoder) send(r *watch.Response, reason string, send func(any) error) error {
	whole := e.head(r, reason, false)
	if !r.Fragment || len(r.Events) < 2 || len(whole)+r.Bytes < e.limit {
		return send(assemble(whole, r.Events, r.PrevKV))
	}
	part := e.head(r, reason, true)
	for rest := r.Events; len(rest) > 0; {
		n, size := 1, len(part)+len(rest[0].Field(r.PrevKV))
		for n < len(rest) {
			if size += len(rest[n].Field(r.PrevKV)); size >= e.limit {
				break
			}
			n++
		}
		head := part
		if n == len(rest) {
			head = whole
		}
		if err := send(assemble(head, rest[:n], r.PrevKV)); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// head encodes everything but the events.
func (e watchEncoder) head(r *watch.Response, reason string, fragment bool) []byte {
	h := e.header
	h.Revision = r.Revision
	b := codec.AppendHeader(make([]byte, 0, 80+len(reason)), fieldHeader, h)
	b = appendInt(b, fieldWatchID, r.ID)
	b = appendBool(b, fieldCreated, r.Created)
	b = appendBool(b, fieldCanceled, r.Canceled)
	b = appendInt(b, fieldCompactRevision, r.CompactRevision)
	if reason != "" {
		b = codec.AppendRaw(b, fieldCancelReason, []byte(reason))
	}
	return appendBool(b, fieldFragment, fragment)
}

func appendInt(b []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendInt(b, field, 1)
}

// assemble puts small events behind head in one buffer and refers to large ones.
func assemble(head []byte, events []*watch.Event, prevKV bool) codec.Chunks {
	size := len(head)
	for _, ev := range events {
		if f := ev.Field(prevKV); len(f) < flattenMax {
			size += len(f)
		}
	}
	buf, done := append(make([]byte, 0, size), head...), 0
	var out codec.Chunks
	for _, ev := range events {
		f := ev.Field(prevKV)
		if len(f) < flattenMax {
			buf = append(buf, f...)
			continue
		}
		if done < len(buf) {
			out = append(out, buf[done:])
		}
		out, done = append(out, f), len(buf)
	}
	if done < len(buf) {
		out = append(out, buf[done:])
	}
	return out
}

func responseHeader(h codec.Header) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: h.ClusterID, MemberId: h.MemberID, Revision: h.Revision, RaftTerm: h.RaftTerm}
}
