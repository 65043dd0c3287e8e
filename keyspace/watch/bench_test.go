package watch

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// flat is a history that only counts: for benchmarks in which nothing lags.
type flat struct{ current atomic.Int64 }

func (f *flat) Revision() (int64, int64) { return f.current.Load(), 0 }
func (f *flat) PrevKV([]byte, int64) (mvcc.KV, bool) {
	return mvcc.KV{Raw: make([]byte, 120)}, true
}
func (f *flat) History(from, to int64, _ anchormesh.KeyRange, _ int) ([]mvcc.Event, int64, error) {
	panic(fmt.Sprintf("history of [%d, %d] was read", from, to))
}

func (f *flat) put(h *Hub, key []byte) {
	rev := f.current.Add(1)
	h.Publish([]mvcc.Event{{KV: mvcc.KV{Key: key, Create: 1, Mod: rev, Raw: make([]byte, 120)}, Main: rev}}, rev)
}

func benchHub(b *testing.B) (*Hub, *flat) {
	l := DefaultLimits()
	l.QueueBytes, l.StreamBytes = 1<<40, 1<<40
	h := &flat{}
	h.current.Store(1)
	hub, _ := NewHub(h, l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { hub.Run(ctx); close(done) }()
	b.Cleanup(func() { cancel(); <-done })
	return hub, h
}

// consume reads a stream and counts events.
func consume(s *Stream, got *atomic.Int64) {
	for {
		r, err := s.Next(context.Background())
		if err != nil {
			return
		}
		got.Add(int64(len(r.Events)))
	}
}

// BenchmarkWriter measures one writer: 1,000 watches of distinct keys, 1,000 of
// one prefix on streams of their own, the latter on one stream. "delivered" is
// events given to clients.
func BenchmarkWriter(b *testing.B) {
	for _, c := range []struct {
		name    string
		prefix  bool
		streams int
	}{{"distinct", false, 1000}, {"distinct-one-stream", false, 1}, {"prefix", true, 1000}, {"prefix-one-stream", true, 1}} {
		b.Run(c.name, func(b *testing.B) {
			hub, seg := benchHub(b)
			var got atomic.Int64
			streams := make([]*Stream, c.streams)
			for i := range streams {
				streams[i] = hub.NewStream()
				go consume(streams[i], &got)
			}
			keys := make([][]byte, 1000)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "registry/pods/default/pod-%04d", i)
				r := Request{Range: anchormesh.RequestRange(keys[i], nil)}
				if c.prefix {
					r.Range = anchormesh.RequestRange([]byte("registry/"), []byte("registry0"))
				}
				mustCreate(b, streams[i%len(streams)], r)
			}
			want := int64(0)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				seg.put(hub, keys[i%1000])
				want++
				if c.prefix {
					want += 999
				}
				for want-got.Load() > 200_000 {
					runtime.Gosched()
				}
			}
			for got.Load() < want {
				runtime.Gosched()
			}
			b.ReportMetric(float64(want)/b.Elapsed().Seconds(), "delivered/s")
			for _, s := range streams {
				s.Close()
			}
		})
	}
}

// BenchmarkPublishUnwatched is what a writer pays while nobody watches.
func BenchmarkPublishUnwatched(b *testing.B) {
	h := &flat{}
	hub, _ := NewHub(h, DefaultLimits())
	events := []mvcc.Event{{KV: mvcc.KV{Key: []byte("a"), Raw: make([]byte, 120)}}}
	b.ReportAllocs()
	for i := range b.N {
		hub.Publish(events, int64(i+2))
	}
}

// TestIdleMemory: 100,000 idle watches of distinct keys on 100 streams stay
// within 400 bytes each.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("allocates")
	}
	const n = 100_000
	hub, _ := NewHub(&flat{}, DefaultLimits())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	streams := make([]*Stream, 100)
	for i := range streams {
		streams[i] = hub.NewStream()
	}
	for i := range n {
		s := streams[i%len(streams)]
		mustCreate(t, s, Request{Range: anchormesh.RequestRange(fmt.Appendf(nil, "registry/pods/default/pod-%06d", i), nil)})
		if _, err, ok := tryNext(s); err != nil || !ok {
			t.Fatalf("Created response: %v", err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%d bytes per idle watch", each)
	if each > 400 {
		t.Errorf("an idle watch holds %d bytes, limit is 400", each)
	}
	runtime.KeepAlive(hub)
	runtime.KeepAlive(streams)
}
