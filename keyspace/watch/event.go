package watch

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Fields of etcd's messages that this package writes.
const (
	fieldEvents   protowire.Number = 11 // WatchResponse.events
	fieldType     protowire.Number = 1  // Event.type; PUT is 0 and not written
	fieldKV       protowire.Number = 2  // Event.kv
	fieldPrevKV   protowire.Number = 3  // Event.prev_kv
	typeDelete                     = 1
	eventOverhead                  = 64 // bytes an event counts beyond its encoding
)

// Event is one change, encoded once and shared by every watch that gets it. It
// is immutable and safe for concurrent use; so are the slices it returns.
type Event struct {
	rev   int64
	sub   int64  // place within the revision
	plain []byte // the complete events field of a WatchResponse
	full  []byte // the same with prev_kv
}

// Received makes an event of another node's hub: field is what Field(prevKV) returned
// there. It keeps field.
func Received(rev, sub int64, field []byte, prevKV bool) *Event {
	if prevKV {
		return &Event{rev: rev, sub: sub, full: field}
	}
	return &Event{rev: rev, sub: sub, plain: field}
}

// Revision is the revision the change was made at.
func (e *Event) Revision() int64 { return e.rev }

// Sub is the change's place among those of its revision, over all segments.
func (e *Event) Sub() int64 { return e.sub }

// Field returns the change as a complete `events` field of etcd's WatchResponse
// (tag, length, message), to be appended to one as it is.
func (e *Event) Field(prevKV bool) []byte {
	if prevKV {
		return e.full
	}
	return e.plain
}

// Message returns the change as an encoded mvccpb.Event.
func (e *Event) Message(prevKV bool) []byte {
	_, _, n := protowire.ConsumeTag(e.Field(prevKV))
	msg, _ := protowire.ConsumeBytes(e.Field(prevKV)[n:])
	return msg
}

// form says which encodings of an event somebody wants.
type form uint8

const (
	formPlain form = 1 << iota
	formFull
)

// encode builds the forms that are wanted. prev is called for the version that a
// change replaced; where it was compacted, the event goes without, as in etcd.
func encode(ch *mvcc.Event, want form, prev func(key []byte, mod int64) (mvcc.KV, bool)) *Event {
	e := &Event{rev: ch.Main, sub: ch.Sub}
	created := !ch.Delete && ch.KV.Create == ch.KV.Mod
	if want&formPlain != 0 || created {
		e.plain = appendEvent(ch, nil)
	}
	if want&formFull == 0 {
		return e
	}
	if created {
		e.full = e.plain
	} else if kv, ok := prev(ch.KV.Key, ch.Main); ok {
		e.full = appendEvent(ch, kv.Raw)
	} else {
		e.full = appendEvent(ch, nil)
	}
	return e
}

// appendEvent encodes one change; prevRaw is an encoded KeyValue or nil.
func appendEvent(ch *mvcc.Event, prevRaw []byte) []byte {
	size := protowire.SizeTag(fieldKV) + protowire.SizeBytes(len(ch.KV.Raw))
	if ch.Delete {
		size += protowire.SizeTag(fieldType) + protowire.SizeVarint(typeDelete)
	}
	if prevRaw != nil {
		size += protowire.SizeTag(fieldPrevKV) + protowire.SizeBytes(len(prevRaw))
	}
	b := make([]byte, 0, protowire.SizeTag(fieldEvents)+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	if ch.Delete {
		b = protowire.AppendTag(b, fieldType, protowire.VarintType)
		b = protowire.AppendVarint(b, typeDelete)
	}
	b = protowire.AppendTag(b, fieldKV, protowire.BytesType)
	b = protowire.AppendBytes(b, ch.KV.Raw)
	if prevRaw != nil {
		b = protowire.AppendTag(b, fieldPrevKV, protowire.BytesType)
		b = protowire.AppendBytes(b, prevRaw)
	}
	return b
}

// weight is what a published change counts in the queue.
func weight(ch *mvcc.Event) int { return len(ch.KV.Raw) + eventOverhead }
