package watch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

var (
	_ History        = (*mvcc.Segment)(nil)
	_ mvcc.Publisher = (*Hub)(nil)
)

// TestOverSegment runs a hub over a real segment that is committed meanwhile;
// watches that start at different times must tell the same
// story, previous values included.
func TestOverSegment(t *testing.T) {
	seed := rand.Uint64()
	store, err := mvcc.Open(bolt.NewMemory(), mvcc.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	seg, err := store.Create(1, anchormesh.KeyRange{}, mvcc.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	l := DefaultLimits()
	l.QueueBytes, l.StepBytes, l.StreamBytes = 4000, 1000, 3000
	hub := start(t, seg, l)
	seg.SetPublisher(hub)

	const entries = 600
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	stories := make([]*story, 6)
	for i := range stories {
		stories[i] = &story{key: i%2 == 1}
		wg.Go(func() { stories[i].follow(ctx, t, hub, seg, int64(1+i*40)) })
	}
	write(t, rand.New(rand.NewPCG(seed, 1)), store, seg, entries)
	wg.Wait()
	for i, s := range stories[2:] {
		if err := s.within(stories[i%2]); err != nil {
			t.Errorf("seed %d: watch %d: %v", seed, i+2, err)
		}
	}
}

// write applies random entries and ends with a write of the key "z".
func write(t *testing.T, rng *rand.Rand, store *mvcc.Store, seg *mvcc.Segment, entries int) {
	for i := range entries {
		b := seg.Begin(uint64(i+1), 1)
		for range 1 + rng.IntN(3) {
			x := b.Txn()
			for _, k := range rng.Perm(5)[:1+rng.IntN(3)] {
				if key := []byte{byte('a' + k)}; rng.IntN(4) == 0 {
					x.Delete(key)
				} else {
					x.Put(key, fmt.Appendf(nil, "%d", rng.IntN(1000)), 0)
				}
			}
			x.End()
		}
		if i == entries-1 {
			for _, k := range []string{"a", "z"} {
				x := b.Txn()
				x.Put([]byte(k), []byte("end"), 0)
				x.End()
			}
		}
		b.End()
		if rng.IntN(20) == 0 {
			if err := store.Commit(); err != nil {
				t.Error(err)
			}
		}
	}
}

// story is what one watch was told, by revision.
type story struct {
	key    bool // follows the key "a", else everything
	from   int64
	events []string
	revs   []int64
}

// follow waits until the segment is at revision from, watches from there and
// reads to the end, slowly at first.
func (s *story) follow(ctx context.Context, t *testing.T, hub *Hub, seg *mvcc.Segment, from int64) {
	for current, _ := seg.Revision(); current < from && ctx.Err() == nil; current, _ = seg.Revision() {
		runtime.Gosched()
	}
	st := hub.NewStream()
	defer st.Close()
	s.from = from
	r := Request{Range: anchormesh.KeyRange{}, StartRevision: from, PrevKV: true}
	if s.key {
		r.Range = key("a")
	}
	if _, _, err := st.Create(ctx, r); err != nil {
		t.Error(err)
		return
	}
	for {
		resp, err := st.Next(ctx)
		if err != nil || resp.Canceled {
			t.Errorf("watch from %d: %v, %+v", from, err, resp)
			return
		}
		for _, ev := range resp.Events {
			var e mvccpb.Event
			if err := proto.Unmarshal(ev.Message(true), &e); err != nil {
				t.Error(err)
				return
			}
			s.events = append(s.events, fmt.Sprintf("%v %s was %s", e.Type, kvText(e.Kv), kvText(e.GetPrevKv())))
			s.revs = append(s.revs, ev.Revision())
			if string(e.Kv.Value) == "end" && (s.key || string(e.Kv.Key) == "z") {
				return
			}
		}
	}
}

// within compares the story with an earlier one from this one's start on.
func (s *story) within(all *story) error {
	i := 0
	for i < len(all.revs) && all.revs[i] < s.from {
		i++
	}
	if len(all.events)-i != len(s.events) {
		return fmt.Errorf("%d events from revision %d on, want %d", len(s.events), s.from, len(all.events)-i)
	}
	for n, e := range s.events {
		if e != all.events[i+n] {
			return fmt.Errorf("event %d is %q, want %q", n, e, all.events[i+n])
		}
	}
	return nil
}
