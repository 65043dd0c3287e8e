package watches

import (
	"encoding/binary"
	"errors"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

// Messages between the node that has a client and one that has a replica: a byte that
// says what, then uvarints and byte strings behind their lengths. What goes to the
// replica is the value of a protobuf BytesValue.
const (
	// To the replica.
	msgOpen    = 1 // thread, segment, start, flags, range start, range end
	msgCancel  = 2 // thread
	msgBarrier = 3 // segment, revision, 1 if that may be another line's, count, threads
	// From it.
	msgEvents = 4 // thread, flags, revision, count; each: revision, length, field
	msgMark   = 5 // thread, revision, line
	msgEnd    = 6 // thread, position, compact revision
	msgBroke  = 7 // thread
)

// Flags of a watch.
const (
	flagPrevKV = 1 << iota
	flagFragment
	flagNoPut
	flagNoDelete
	flagResumed
)

var errMalformed = errors.New("watches: malformed message of another node")

// referFrom is the size from which on an event is referred to, not copied.
const referFrom = 4 << 10

func appendOpen(b []byte, o weave.Open) []byte {
	r := o.Request
	b = fields.AppendNumbers(append(b, msgOpen), uint64(r.ID), uint64(o.Segment), uint64(r.StartRevision), requestFlags(&r))
	return fields.AppendBytes(fields.AppendBytes(b, r.Range.Start), r.Range.End)
}

func requestFlags(r *watch.Request) (f uint64) {
	for i, on := range []bool{r.PrevKV, r.Fragment, r.NoPut, r.NoDelete, r.Resumed} {
		if on {
			f |= 1 << i
		}
	}
	return f
}

func appendBarrier(b []byte, over bool, x weave.Barrier) []byte {
	flag := uint64(0)
	if over {
		flag = 1
	}
	b = fields.AppendNumbers(append(b, msgBarrier), uint64(x.Segment), uint64(x.Revision), flag, uint64(len(x.Threads)))
	for _, id := range x.Threads {
		b = binary.AppendUvarint(b, uint64(id))
	}
	return b
}

// marked is a mark with the line of the segment whose leader answered the barrier.
type marked struct {
	weave.Came
	line string
}

// encodeEvent encodes what a hub had for a thread. Large events are referred to.
func encodeEvent(ev weave.Event) codec.Chunks {
	broke, ok := ev.(weave.Broke)
	if ok {
		return codec.Chunks{fields.AppendNumbers([]byte{msgBroke}, uint64(broke.Thread))}
	}
	if m, ok := ev.(marked); ok {
		b := fields.AppendNumbers([]byte{msgMark}, uint64(m.ID), uint64(m.Revision))
		return codec.Chunks{fields.AppendBytes(b, []byte(m.line))}
	}
	r := ev.(weave.Came).Response
	switch {
	case r.Canceled:
		return codec.Chunks{fields.AppendNumbers([]byte{msgEnd}, uint64(r.ID), uint64(r.Revision), uint64(r.CompactRevision))}
	}
	return encodeEvents(&r)
}

func encodeEvents(r *watch.Response) codec.Chunks {
	flags := requestFlags(&watch.Request{PrevKV: r.PrevKV, Fragment: r.Fragment})
	b := make([]byte, 0, 32+min(r.Bytes+12*len(r.Events), 2*referFrom))
	b = fields.AppendNumbers(append(b, msgEvents), uint64(r.ID), flags, uint64(r.Revision), uint64(len(r.Events)))
	var out codec.Chunks
	for _, e := range r.Events {
		field := e.Field(r.PrevKV)
		b = fields.AppendNumbers(b, uint64(e.Revision()), uint64(e.Sub()), uint64(len(field)))
		if len(field) < referFrom {
			b = append(b, field...)
			continue
		}
		out, b = append(out, b, field), nil
	}
	if len(b) > 0 {
		out = append(out, b)
	}
	return out
}

// parseEvent reads what encodeEvent wrote. It keeps b.
func parseEvent(b []byte) (weave.Event, error) {
	r := reader{fields.Reader{Rest: b}}
	kind := r.Byte()
	resp := watch.Response{ID: r.revision()}
	switch kind {
	case msgBroke:
		return weave.Broke{Thread: resp.ID}, r.end()
	case msgEnd:
		resp.Revision, resp.CompactRevision, resp.Canceled = r.revision(), r.revision(), true
	case msgMark:
		resp.Revision, resp.Mark = r.revision(), true
		return marked{weave.Came{Response: resp}, string(r.Bytes())}, r.end()
	case msgEvents:
		flags := r.Number()
		resp.PrevKV, resp.Fragment, resp.Revision = flags&flagPrevKV != 0, flags&flagFragment != 0, r.revision()
		resp.Events = make([]*watch.Event, 0, r.Count())
		for last := int64(0); len(resp.Events) < cap(resp.Events) && !r.Bad; {
			at, sub, field := r.revision(), r.revision(), r.Bytes()
			if at < last || at > resp.Revision {
				r.Bad = true
			}
			last = at
			resp.Bytes += len(field)
			resp.Events = append(resp.Events, watch.Received(at, sub, field, resp.PrevKV))
		}
		if n := len(resp.Events); n == 0 || resp.Events[n-1].Revision() != resp.Revision {
			r.Bad = true
		}
	default:
		r.Bad = true
	}
	return weave.Came{Response: resp}, r.end()
}

// order is what another node's weave wants: an Open, a Barrier, or else the end of a
// thread.
type order struct {
	open    *weave.Open
	barrier *weave.Barrier
	over    bool // of a barrier: its revision may be another line's
	cancel  int64
}

// parseOrder reads an order. It keeps b.
func parseOrder(b []byte) (o order, err error) {
	r := reader{fields.Reader{Rest: b}}
	switch r.Byte() {
	case msgOpen:
		req := watch.Request{ID: r.revision()}
		o.open = &weave.Open{Segment: anchormesh.SegmentID(r.Number())}
		req.StartRevision = r.revision()
		flags := r.Number()
		req.PrevKV, req.Fragment = flags&flagPrevKV != 0, flags&flagFragment != 0
		req.NoPut, req.NoDelete = flags&flagNoPut != 0, flags&flagNoDelete != 0
		req.Resumed = flags&flagResumed != 0
		req.Range = anchormesh.KeyRange{Start: r.Bytes(), End: r.Bytes()}
		r.Bad = r.Bad || req.ID <= 0 || req.StartRevision <= 0 || req.Range.Empty()
		o.open.Request = req
	case msgCancel:
		o.cancel = r.revision()
	case msgBarrier:
		o.barrier = &weave.Barrier{Segment: anchormesh.SegmentID(r.Number()), Revision: r.revision()}
		o.over = r.Number() != 0
		o.barrier.Threads = make([]int64, r.Count())
		for i := range o.barrier.Threads {
			o.barrier.Threads[i] = r.revision()
		}
	default:
		r.Bad = true
	}
	return o, r.end()
}

// reader reads uvarints and byte strings; the first fault sticks.
type reader struct{ fields.Reader }

// revision reads a number that is not negative: a revision or a thread.
func (r *reader) revision() int64 {
	v := int64(r.Number())
	r.Bad = r.Bad || v < 0
	return v
}

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return errMalformed
	}
	return nil
}

// bytesCodec is the codec of the node that has the client: it sends []byte as a
// BytesValue and takes messages as they are (*[]byte).
type bytesCodec struct{}

var _ encoding.CodecV2 = bytesCodec{}

// Name is that of the server's codec.
func (bytesCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	order := v.([]byte)
	b := make([]byte, 0, len(order)+12)
	b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), order)
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
