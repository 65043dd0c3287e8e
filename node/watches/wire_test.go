package watches

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

func came(r watch.Response) weave.Event { return weave.Came{Response: r} }

// samples are events as hubs bring them.
func samples() []weave.Event {
	large := bytes.Repeat([]byte("x"), 3*referFrom)
	return []weave.Event{
		weave.Broke{Thread: 7},
		came(watch.Response{ID: 1, Revision: 12, Canceled: true}),
		came(watch.Response{ID: 2, Revision: 12, CompactRevision: 40, Canceled: true}),
		marked{came(watch.Response{ID: 3, Revision: 1 << 60, Mark: true}).(weave.Came), "/b/"},
		came(watch.Response{ID: 4, Revision: 9, Bytes: 3, Events: []*watch.Event{watch.Received(9, 0, []byte("abc"), false)}}),
		came(watch.Response{ID: 5, Revision: 11, PrevKV: true, Fragment: true, Bytes: 5 + len(large), Events: []*watch.Event{
			watch.Received(9, 0, []byte("abc"), true), watch.Received(11, 0, large, true), watch.Received(11, 0, []byte("de"), true),
		}}),
	}
}

func TestEventsTravel(t *testing.T) {
	for _, ev := range samples() {
		got, err := parseEvent(encodeEvent(ev).Bytes())
		if err != nil || !reflect.DeepEqual(got, ev) {
			t.Errorf("%v came as %v, %v", ev, got, err)
		}
	}
}

func TestEventsThatCannotBe(t *testing.T) {
	of := func(last int64, revisions ...int64) []byte {
		r := watch.Response{ID: 1, Revision: last}
		for _, rev := range revisions {
			r.Events = append(r.Events, watch.Received(rev, 0, []byte("x"), false))
		}
		return encodeEvent(came(r)).Bytes()
	}
	for name, b := range map[string][]byte{
		"empty":                 {},
		"unknown":               {99, 1},
		"no events":             of(3),
		"out of order":          of(3, 4, 3),
		"another last revision": of(9, 3),
		"cut short":             of(3, 3)[:5],
		"trailing bytes":        append(of(3, 3), 0),
		"negative revision":     fields.AppendNumbers([]byte{msgMark}, 1, 1<<63),
		"endless list":          fields.AppendNumbers([]byte{msgEvents}, 1, 0, 3, 1<<40),
	} {
		if ev, err := parseEvent(b); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v, %v", name, ev, err)
		}
	}
}

func TestOrdersTravel(t *testing.T) {
	open := weave.Open{Segment: 1 << 63, Request: watch.Request{
		ID: 9, StartRevision: 5, PrevKV: true, Fragment: true, NoDelete: true, Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("b")},
	}}
	o, err := parseOrder(appendOpen(nil, open))
	if err != nil || !reflect.DeepEqual(*o.open, open) {
		t.Errorf("%v came as %v, %v", open, o.open, err)
	}
	bar := weave.Barrier{Segment: 4, Revision: 77, Threads: []int64{1, 5, 1 << 40}}
	if o, err = parseOrder(appendBarrier(nil, true, bar)); err != nil || !o.over || !reflect.DeepEqual(*o.barrier, bar) {
		t.Errorf("%v came as %v, %v", bar, o.barrier, err)
	}
	if o, err = parseOrder(fields.AppendNumbers([]byte{msgCancel}, 8)); err != nil || o.cancel != 8 {
		t.Errorf("cancel came as %v, %v", o, err)
	}
	open.Request.StartRevision = 0
	if _, err := parseOrder(appendOpen(nil, open)); !errors.Is(err, errMalformed) {
		t.Errorf("a thread without a start: %v", err)
	}
}

// The server's side of the codec is protobuf's.
func TestOrdersAreBytesValues(t *testing.T) {
	data, err := bytesCodec{}.Marshal([]byte("order"))
	if err != nil {
		t.Fatal(err)
	}
	var m wrapperspb.BytesValue
	if err := proto.Unmarshal(data.Materialize(), &m); err != nil || string(m.GetValue()) != "order" {
		t.Errorf("%q, %v", m.GetValue(), err)
	}
	var b []byte
	if err := (bytesCodec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer("ev"), mem.SliceBuffer("ent")}, &b); err != nil || string(b) != "event" {
		t.Errorf("%q, %v", b, err)
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, ev := range samples() {
		f.Add(encodeEvent(ev).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := parseEvent(b)
		if err != nil {
			return
		}
		again, err := parseEvent(encodeEvent(ev).Bytes())
		if err != nil || !reflect.DeepEqual(again, ev) {
			t.Errorf("%v came again as %v, %v", ev, again, err)
		}
	})
}

func FuzzParseOrder(f *testing.F) {
	f.Add(appendOpen(nil, weave.Open{Segment: 1, Request: watch.Request{ID: 1, StartRevision: 1}}))
	f.Add(appendBarrier(nil, false, weave.Barrier{Segment: 1, Revision: 2, Threads: []int64{3}}))
	f.Add(fields.AppendNumbers([]byte{msgCancel}, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOrder(b)
		if err == nil && o.open != nil && (o.open.Request.ID <= 0 || o.open.Request.Range.Empty()) {
			t.Errorf("taken: %v", o.open)
		}
	})
}
