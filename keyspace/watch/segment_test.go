package watch

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// segment is a dumb segment: a list of everything ever written.
type segment struct {
	mu        sync.Mutex
	current   int64
	compacted int64
	written   []mvcc.Event
	newest    map[string]mvcc.KV
	hidden    []publish // visible, not yet published
	scans     int
	reading   func() // runs when history was asked for, before it is read
}

type publish struct {
	events []mvcc.Event
	rev    int64
}

// op is a put of value, or a deletion if it is "-".
type op struct{ key, value string }

func newSegment() *segment { return &segment{current: 1, newest: map[string]mvcc.KV{}} }

// write applies one transaction; the caller publishes what it returns.
func (s *segment) write(ops ...op) publish { return s.writeAt(0, ops...) }

// writeAt applies one at revision rev, zero for the next; like that of a transaction
// over several segments it may be below the newest.
func (s *segment) writeAt(rev int64, ops ...op) publish {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev == 0 {
		rev = s.current + 1
	}
	var events []mvcc.Event
	for _, o := range ops {
		old, had := s.newest[o.key]
		kv := mvcc.KV{Key: []byte(o.key), Mod: rev}
		if o.value == "-" {
			if !had {
				continue
			}
			delete(s.newest, o.key)
			kv.Raw, _ = proto.Marshal(&mvccpb.KeyValue{Key: kv.Key, ModRevision: rev})
		} else {
			kv.Create, kv.Version = rev, 1
			if had {
				kv.Create, kv.Version = old.Create, old.Version+1
			}
			kv.Raw, _ = proto.Marshal(&mvccpb.KeyValue{
				Key: kv.Key, Value: []byte(o.value), CreateRevision: kv.Create, ModRevision: rev, Version: kv.Version,
			})
			s.newest[o.key] = kv
		}
		events = append(events, mvcc.Event{Delete: o.value == "-", KV: kv, Main: rev, Sub: int64(len(events))})
	}
	if len(events) > 0 {
		s.current = max(s.current, rev)
		s.written = append(s.written, events...)
		slices.SortStableFunc(s.written, func(a, b mvcc.Event) int { return cmp.Compare(a.Main, b.Main) })
	}
	return publish{events, s.current}
}

// cut forgets the keys that the segment no longer holds.
func (s *segment) cut(keys anchormesh.KeyRange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = slices.DeleteFunc(slices.Clone(s.written), func(e mvcc.Event) bool { return !keys.Contains(e.KV.Key) })
}

func (s *segment) compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted = max(s.compacted, min(rev, s.current))
}

func (s *segment) Revision() (int64, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.compacted
}

func (s *segment) History(from, to int64, rng anchormesh.KeyRange, maxBytes int) ([]mvcc.Event, int64, error) {
	if f := s.reading; f != nil {
		s.reading = nil
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans++
	if from < s.compacted {
		return nil, 0, mvcc.ErrCompacted
	}
	var out []mvcc.Event
	size := 0
	for _, e := range s.written {
		if e.Main < from || e.Main > to || !rng.Contains(e.KV.Key) {
			continue
		}
		if size >= maxBytes && e.Main != out[len(out)-1].Main {
			return out, e.Main, nil
		}
		size += len(e.KV.Raw)
		out = append(out, e)
	}
	return out, to + 1, nil
}

func (s *segment) PrevKV(key []byte, mod int64) (mvcc.KV, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.written) - 1; i >= 0; i-- {
		if e := s.written[i]; e.Main < mod && string(e.KV.Key) == string(key) {
			return e.KV, !e.Delete
		}
	}
	return mvcc.KV{}, false
}

// show prints a response the way a client would decode it.
func show(t testing.TB, r Response) string {
	out := fmt.Sprintf("watch %d rev %d", r.ID, r.Revision)
	for _, f := range []struct {
		on   bool
		word string
	}{{r.Created, " created"}, {r.Canceled, " canceled"}, {r.Progress, " progress"}, {r.Mark, " mark"}, {r.Fragment, " fragment"}} {
		if f.on {
			out += f.word
		}
	}
	if r.CompactRevision != 0 {
		out += fmt.Sprintf(" compacted %d", r.CompactRevision)
	}
	if r.Reason != nil {
		out += fmt.Sprintf(" reason %q", r.Reason)
	}
	for _, ev := range decode(t, r) {
		out += fmt.Sprintf(" %s %s", ev.Type, kvText(ev.Kv))
		if ev.PrevKv != nil {
			out += " was " + kvText(ev.PrevKv)
		}
	}
	return out
}

func kvText(kv *mvccpb.KeyValue) string {
	return fmt.Sprintf("%s=%s@%d", kv.GetKey(), kv.GetValue(), kv.GetModRevision())
}

// decode reads the response's events with etcd's own messages.
func decode(t testing.TB, r Response) []*mvccpb.Event {
	var wire []byte
	size := 0
	for _, ev := range r.Events {
		wire = append(wire, ev.Field(r.PrevKV)...)
		size += len(ev.Field(r.PrevKV))
		var one mvccpb.Event
		if err := proto.Unmarshal(ev.Message(r.PrevKV), &one); err != nil {
			t.Fatalf("event does not decode: %v", err)
		}
	}
	var resp etcdserverpb.WatchResponse
	if err := proto.Unmarshal(wire, &resp); err != nil {
		t.Fatalf("events do not decode as fields of WatchResponse: %v", err)
	}
	if size != r.Bytes {
		t.Fatalf("response says %d bytes, has %d", r.Bytes, size)
	}
	return resp.Events
}
