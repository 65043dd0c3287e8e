package traffic

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/check"
)

const (
	sessionMin, sessionMax = 4 * time.Second, 20 * time.Second
	progressEvery          = 3 * time.Second // a progress request
	retryPause             = 200 * time.Millisecond
)

// watcher follows one range of keys in sessions: each is a watch of its own that
// begins at the revision after the last one that the watcher knows.
type watcher struct {
	client   *clientv3.Client
	rec      *recorder
	key, end string
	rng      *rand.Rand
	archive  bool         // its events are the run's truth, and it is one session per failure
	next     atomic.Int64 // revision to begin at
}

// run follows until every event up to the revision that comes out of final has been
// seen, or ctx ends; it reports which.
func (w *watcher) run(ctx context.Context, final <-chan int64) bool {
	var last int64
	for ctx.Err() == nil {
		if last == 0 {
			select {
			case last = <-final:
			default:
			}
		}
		if last != 0 && w.next.Load() > last {
			return true
		}
		w.session(ctx, final, &last)
		if ctx.Err() == nil {
			pause(ctx, retryPause)
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (w *watcher) length() time.Duration {
	if w.archive {
		return time.Hour
	}
	return sessionMin + time.Duration(w.rng.Int64N(int64(sessionMax-sessionMin)))
}

// session is one watch. It ends by its length, by the server, or when it has seen
// what final names.
func (w *watcher) session(ctx context.Context, final <-chan int64, last *int64) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), w.length())
	defer cancel()
	seen := check.Watch{Key: w.key, End: w.end, Start: w.next.Load(), Prev: w.archive || w.rng.IntN(2) == 0}
	opts := []clientv3.OpOption{clientv3.WithRange(w.end), clientv3.WithRev(seen.Start), clientv3.WithCreatedNotify()}
	if seen.Prev {
		opts = append(opts, clientv3.WithPrevKV())
	}
	responses := w.client.Watch(ctx, w.key, opts...)
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	defer func() { w.rec.watch(seen) }()
	for *last == 0 || w.next.Load() <= *last {
		select {
		case *last = <-final:
			_ = w.client.RequestProgress(ctx) // asked again at the next tick
		case <-tick.C:
			_ = w.client.RequestProgress(ctx)
		case r, ok := <-responses:
			if !ok {
				return
			}
			if r.Created || len(seen.Responses) > 0 { // else the client made it up: no watch came about
				seen.Responses = append(seen.Responses, w.take(&r))
			}
			if r.Canceled {
				w.next.Store(max(w.next.Load(), r.CompactRevision))
				w.rec.note("watch", unknown, r.Err())
				return
			}
		}
	}
}

// take translates a response and moves on.
func (w *watcher) take(r *clientv3.WatchResponse) check.Response {
	out := check.Response{
		Rev: r.Header.Revision, Created: r.Created, Progress: r.IsProgressNotify(),
		Canceled: r.Canceled, Compact: r.CompactRevision,
	}
	at := w.rec.now()
	for _, e := range r.Events {
		event := check.Event{Rev: e.Kv.ModRevision, Delete: e.Type == clientv3.EventTypeDelete, KV: version(e.Kv)}
		if e.PrevKv != nil {
			prev := version(e.PrevKv)
			event.Prev = &prev
		}
		out.Events = append(out.Events, event)
		if w.archive {
			w.archived(event, at)
		}
		w.next.Store(event.Rev + 1)
	}
	if out.Progress {
		w.next.Store(max(w.next.Load(), r.Header.Revision+1))
	}
	return out
}

// archived keeps an event as truth, and the end of what a lease held. It was applied
// before we saw it, so a lease that ends too early for us did so for everybody.
func (w *watcher) archived(e check.Event, at time.Duration) {
	prev := e.Prev
	e.Prev = nil
	w.rec.event(e)
	if e.Delete && prev != nil && prev.Lease != 0 {
		w.rec.lease(check.Lease{What: check.Expire, ID: prev.Lease, At: int64(at)})
	}
}
