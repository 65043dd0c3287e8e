package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// start runs a hub until the test ends.
func start(t *testing.T, h History, l Limits) *Hub {
	t.Helper()
	hub, err := NewHub(h, l)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		hub.Run(context.Background())
	}()
	t.Cleanup(func() {
		hub.Stop(nil)
		<-done
	})
	return hub
}

func mustNext(t *testing.T, s *Stream) Response {
	t.Helper()
	r, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustCreate(t testing.TB, s *Stream, r Request) int64 {
	t.Helper()
	id, _, err := s.Create(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func key(k string) anchormesh.KeyRange { return anchormesh.RequestRange([]byte(k), nil) }

// TestPeriodicProgress: while no event comes, a watch that asked for it hears
// once per interval, to the second; without such a watch no timer runs.
func TestPeriodicProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seg := newSegment()
		l := DefaultLimits()
		l.ProgressInterval = 5 * time.Second
		hub := start(t, seg, l)
		s := hub.NewStream()
		mustCreate(t, s, Request{Range: key("a"), ProgressNotify: true})
		mustNext(t, s)
		begin := time.Now()
		for i := 1; i <= 3; i++ {
			r := mustNext(t, s)
			if !r.Progress || r.Revision != 1 || time.Since(begin) != time.Duration(i)*l.ProgressInterval {
				t.Fatalf("after %v: %s", time.Since(begin), show(t, r))
			}
		}
		s.Cancel(0)
		mustNext(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if r, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after cancel: %v, %v", r, err)
		}
	})
}

// TestStopAndClose: both end a waiting Next; Stop names a position for each watch.
func TestStopAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seg := newSegment()
		hub, _ := NewHub(seg, DefaultLimits())
		ran := make(chan error, 1)
		go func() { ran <- hub.Run(context.Background()) }()
		closed, stopped := hub.NewStream(), hub.NewStream()
		mustCreate(t, stopped, Request{Range: key("a")})
		mustNext(t, stopped)
		errs := make(chan error, 1)
		go func() {
			_, err := closed.Next(context.Background())
			errs <- err
		}()
		synctest.Wait()
		closed.Close()
		if err := <-errs; !errors.Is(err, ErrStreamClosed) {
			t.Fatalf("Next of a closed stream: %v", err)
		}
		moved := errors.New("moved")
		hub.Stop(moved)
		r := mustNext(t, stopped)
		if !r.Canceled || !errors.Is(r.Reason, moved) || r.Revision != 1 {
			t.Fatal(show(t, r))
		}
		if _, err := stopped.Next(t.Context()); !errors.Is(err, moved) {
			t.Fatalf("Next after the end: %v", err)
		}
		if err := <-ran; err != nil {
			t.Fatalf("Run: %v", err)
		}
		if _, _, err := hub.NewStream().Create(t.Context(), Request{Range: key("a")}); !errors.Is(err, moved) {
			t.Fatalf("Create after the end: %v", err)
		}
	})
}

// TestCreateIsPushedBack: a client that creates watches and reads nothing waits
// at the limit and goes on when it reads.
func TestCreateIsPushedBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := DefaultLimits()
		l.StreamControls = 4
		hub := start(t, newSegment(), l)
		s := hub.NewStream()
		made := make(chan int64, 100)
		go func() {
			for range 10 {
				id, _, err := s.Create(context.Background(), Request{Range: key("a")})
				if err != nil {
					return
				}
				made <- id
			}
		}()
		synctest.Wait()
		if len(made) != 4 {
			t.Fatalf("%d watches were made without reading, limit is 4", len(made))
		}
		for range 10 {
			mustNext(t, s)
			synctest.Wait()
		}
		if len(made) != 10 {
			t.Fatalf("%d watches were made, want 10", len(made))
		}
	})
}

// broken is a history that fails.
type broken struct{ *segment }

var errDisk = errors.New("disk is gone")

func (broken) History(int64, int64, anchormesh.KeyRange, int) ([]mvcc.Event, int64, error) {
	return nil, 0, errDisk
}

// TestHistoryFails: an error that is not compaction ends the hub and every watch.
func TestHistoryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seg := newSegment()
		seg.write(op{"a", "1"})
		hub, _ := NewHub(broken{seg}, DefaultLimits())
		s := hub.NewStream()
		mustCreate(t, s, Request{Range: key("a"), StartRevision: 1})
		if err := hub.Run(t.Context()); !errors.Is(err, errDisk) {
			t.Fatalf("Run: %v", err)
		}
		mustNext(t, s)
		if r := mustNext(t, s); !r.Canceled || !errors.Is(r.Reason, errDisk) || r.Revision != 0 {
			t.Fatal(show(t, r))
		}
	})
}

// TestConcurrent lets a writer, a compactor and clients loose on a running hub
// and checks what each watch saw. Meant for -race.
func TestConcurrent(t *testing.T) {
	seed := rand.Uint64()
	l := DefaultLimits()
	l.QueueBytes, l.StepBytes, l.StreamBytes, l.ResponseBytes = 5000, 1000, 3000, 500
	seg := newSegment()
	hub := start(t, seg, l)
	const writes = 3000
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := roam(hub, seg, rand.New(rand.NewPCG(seed, uint64(i))), writes); err != nil {
				t.Errorf("seed %d, client %d: %v", seed, i, err)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 100))
	for i := range writes {
		p := seg.write(op{fmt.Sprint("k", rng.IntN(5)), fmt.Sprint(i)}, op{"k", fmt.Sprint(i)})
		hub.Publish(p.events, p.rev)
		if i%500 == 499 {
			seg.compact(p.rev - 1000)
		}
	}
	wg.Wait()
}

// roam opens watches one after the other at random revisions, reads each for a
// while, and the last to the end.
func roam(hub *Hub, seg *segment, rng *rand.Rand, last int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		current, _ := seg.Revision()
		final := current > last/2
		s := hub.NewStream()
		c := &client{stream: s, watches: map[int64]*seen{}}
		r := Request{Range: anchormesh.KeyRange{Start: []byte("k"), End: []byte("l")}, StartRevision: 1 + rng.Int64N(current), PrevKV: true}
		id, _, err := s.Create(ctx, r)
		if err != nil {
			return err
		}
		w := &seen{req: r, start: r.StartRevision, responseOf: map[int64]int{}}
		c.watches[id] = w
		for n := rng.IntN(200); (final || n > 0) && !w.over && len(w.events) < 2*int(last+2-w.start); n-- {
			resp, err := s.Next(ctx)
			if err != nil {
				return fmt.Errorf("with %d events: %w", len(w.events), err)
			}
			if err := c.take(resp); err != nil {
				return err
			}
			if rng.IntN(20) == 0 {
				s.RequestProgress()
			}
		}
		s.Close()
		if err := order(w); err != nil || final && !w.over {
			return err
		}
	}
}

// order checks that a watch of every key saw each revision with its two events.
func order(w *seen) error {
	for i, ev := range w.events {
		if want := w.start + int64(i/2); w.start > 1 && ev.Kv.ModRevision != want {
			return fmt.Errorf("event %d of a watch from %d is of revision %d", i, w.start, ev.Kv.ModRevision)
		}
	}
	return nil
}

// TestServedHubRunsForStreamsOnly: a hub that is served has a goroutine while it has
// streams, serves the next one as the first, and ends where it had none.
func TestServedHubRunsForStreamsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seg := newSegment()
		hub, _ := NewHub(seg, DefaultLimits())
		var running atomic.Int32
		hub.Serve(func(f func()) {
			running.Add(1)
			go func() {
				defer running.Add(-1)
				f()
			}()
		}, func(err error) { t.Error(err) })
		await := func(want int32) {
			t.Helper()
			synctest.Wait()
			if n := running.Load(); n != want {
				t.Fatalf("%d goroutines, want %d", n, want)
			}
		}
		hub.Bound(anchormesh.KeyRange{}, errors.New("cut"))
		await(0)
		for range 3 {
			a, b := hub.NewStream(), hub.NewStream()
			for _, s := range []*Stream{a, b} {
				mustCreate(t, s, Request{Range: key("a"), ProgressNotify: true})
				mustNext(t, s)
				if r := mustNext(t, s); !r.Progress {
					t.Fatal(show(t, r))
				}
			}
			a.Close()
			await(1)
			b.Close()
			await(0)
		}
		last := hub.NewStream()
		await(1)
		last.Close()
		await(0)
		moved := errors.New("moved")
		hub.Stop(moved)
		await(0)
		if _, _, err := hub.NewStream().Create(t.Context(), Request{Range: key("a")}); !errors.Is(err, moved) {
			t.Fatalf("Create after the end: %v", err)
		}
		await(0)
	})
}

// On a line, a segment may be compacted beyond what it last published. Whoever names a
// revision below that is refused as if history had been asked; who was served up to there
// missed nothing, and goes on.
func TestCompactedBeyondWhatWasPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seg := newSegment()
		hub := start(t, seg, DefaultLimits())
		seg.current, seg.compacted = 60, 60 // raised by the compaction; the hub heard nothing of it
		s := hub.NewStream()
		watching := mustCreate(t, s, Request{Range: key("other"), StartRevision: 61})
		mustNext(t, s)
		for _, c := range []struct {
			start    int64
			resumed  bool
			canceled bool
		}{{59, false, true}, {60, false, false}, {59, true, false}} {
			id := mustCreate(t, s, Request{Range: key("a"), StartRevision: c.start, Resumed: c.resumed})
			if r := mustNext(t, s); !r.Created || r.ID != id {
				t.Fatalf("start %d: %+v instead of Created", c.start, r)
			}
			synctest.Wait()
			if !c.canceled {
				if r, ok, _ := s.Poll(); ok {
					t.Errorf("start %d, resumed %v: %+v", c.start, c.resumed, r)
				}
				continue
			}
			if r := mustNext(t, s); !r.Canceled || r.CompactRevision != 60 {
				t.Errorf("start %d: %+v instead of its end by compaction", c.start, r)
			}
		}
		_ = watching
	})
}

// A segment that is split and takes the other part in again before the hub has looked did
// not hold it in between: who watches that part has to ask for what it missed.
func TestSplitAndMergeBeforeTheHubLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := start(t, newSegment(), DefaultLimits())
		s := hub.NewStream()
		whole := mustCreate(t, s, Request{Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("z")}, StartRevision: 1})
		left := mustCreate(t, s, Request{Range: key("b"), StartRevision: 1})
		mustNext(t, s)
		mustNext(t, s)
		synctest.Wait()
		hub.Bound(anchormesh.KeyRange{End: []byte("m")}, errors.New("split"))
		hub.Bound(anchormesh.KeyRange{}, errors.New("merged"))
		if r := mustNext(t, s); r.ID != whole || !r.Canceled || r.Revision != 1 {
			t.Errorf("%+v instead of the end of the watch over both parts, at revision 1", r)
		}
		synctest.Wait()
		if r, ok, _ := s.Poll(); ok {
			t.Errorf("watch %d of the left part got %+v", left, r)
		}
	})
}
