package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// errMoved ends the watches of a replica that leaves.
var errMoved = errors.New("sim: the segment left this node")

var background = context.Background()

// watcher keeps one watch after the other, each on a replica of its choice, and
// reads them at its own pace.
type watcher struct {
	m      *mesh
	rng    *rand.Rand
	p      *process
	here   *replicaHere
	stream *watch.Stream
	watch  check.Watch
	next   int64 // where to resume
	until  time.Duration
}

func newWatcher(m *mesh, idx int) *watcher {
	return &watcher{m: m, rng: m.k.Stream(fmt.Sprintf("watcher %d", idx))}
}

func (w *watcher) start() { w.m.k.After(w.pause(), w.act) }

func (w *watcher) pause() time.Duration {
	if w.rng.IntN(20) == 0 {
		return time.Duration(w.rng.Int64N(int64(10 * time.Second))) // a slow reader
	}
	return time.Duration(w.rng.ExpFloat64() * float64(200*time.Millisecond))
}

func (w *watcher) act() {
	switch {
	case w.stream == nil:
		w.open()
	case w.p.proc != w.p:
		w.finish(0) // the connection broke: what was not read is lost
	case w.p.paused:
	default:
		w.read()
		if w.stream != nil && w.m.k.Now() > w.until {
			w.stream.Close()
			w.here.hub.kick()
			w.finish(0)
		}
	}
	if !w.m.healed {
		w.start()
	}
}

// open begins a watch: where the last one ended, from now, or from the past.
func (w *watcher) open() {
	running := w.m.running()
	if len(running) == 0 {
		return
	}
	w.p = pick(w.rng, running...)
	held := w.p.host.sorted()
	if len(held) == 0 || w.p.paused {
		return
	}
	w.here = pick(w.rng, held...)
	segment := w.here.machine.Segment()
	line, keys := w.here.hub.line, segment.KeyRange()
	letter := segment0(w.m, segment.ID()).letter()
	req := watch.Request{PrevKV: w.rng.IntN(2) == 0, NoPut: w.rng.IntN(10) == 0, NoDelete: w.rng.IntN(10) == 0}
	ck := check.Watch{Line: line, Key: letter, End: letter + "0", Prev: req.PrevKV, NoPut: req.NoPut, NoDelete: req.NoDelete}
	if w.rng.IntN(3) == 0 {
		ck.Key, ck.End = fmt.Sprintf("%s/%02d", letter, w.rng.IntN(w.m.cfg.Load.Keys)), ""
	}
	req.Range = anchormesh.RequestRange([]byte(ck.Key), []byte(ck.End)).Intersect(keys)
	if req.Range.Empty() {
		return // a watch that several segments would have to serve
	}
	ck.Key, ck.End = string(req.Range.Start), string(req.Range.End)
	current, _ := segment.Revision()
	switch w.rng.IntN(4) {
	case 0:
	case 1:
		req.StartRevision = max(1, current-w.rng.Int64N(100)+20)
	default:
		if w.watch.Line == line {
			req.StartRevision = w.next
		}
	}
	ck.Start = req.StartRevision
	w.watch = ck
	w.stream = w.here.hub.hub.NewStream()
	if _, _, err := w.stream.Create(now, req); err != nil {
		w.m.fail(fmt.Errorf("watch: %w", err))
	}
	w.here.hub.kick()
	w.until = w.m.k.Now() + time.Duration(w.rng.Int64N(int64(2*time.Minute)))
}

// segment0 is the first segment of a segment's scope.
func segment0(m *mesh, id anchormesh.SegmentID) segment {
	return segment{id: m.scopeOf[id]}
}

// read takes what is there.
func (w *watcher) read() {
	if w.rng.IntN(10) == 0 {
		w.stream.RequestProgress()
	}
	w.here.hub.kick()
	for range 1 + w.rng.IntN(20) {
		r, err := w.stream.Next(now)
		if errors.Is(err, context.Canceled) {
			return
		}
		if err != nil {
			w.finish(0)
			return
		}
		w.take(r)
		if r.Canceled {
			w.stream.Close()
			w.finish(0)
			return
		}
	}
}

func (w *watcher) take(r watch.Response) {
	out := check.Response{Rev: r.Revision, Created: r.Created, Progress: r.Progress || r.ID == watch.StreamID, Canceled: r.Canceled, Compact: r.CompactRevision}
	for _, ev := range r.Events {
		var pb mvccpb.Event
		if err := proto.Unmarshal(ev.Message(w.watch.Prev), &pb); err != nil {
			w.m.fail(fmt.Errorf("watch event: %w", err))
			return
		}
		e := check.Event{Rev: ev.Revision(), Delete: pb.GetType() == mvccpb.Event_DELETE, KV: convertKV(pb.GetKv())}
		if pb.GetPrevKv() != nil {
			prev := convertKV(pb.GetPrevKv())
			e.Prev = &prev
		}
		out.Events = append(out.Events, e)
		w.next = e.Rev + 1
	}
	if out.Progress {
		w.next = max(w.next, out.Rev+1)
	}
	w.m.stats.WatchEvents += uint64(len(out.Events))
	w.m.k.Note("watch", w.p.idx, uint64(out.Rev), uint64(len(out.Events)), 0, 0)
	w.watch.Responses = append(w.watch.Responses, out)
}

// finish hands the watch to the checkers.
func (w *watcher) finish(through int64) {
	w.watch.Through = through
	w.m.history.Watches = append(w.m.history.Watches, w.watch)
	w.stream = nil
}

// drain reads everything at the end of the run: a watch that is still open must have
// shown all that its replica applied.
func (w *watcher) drain() {
	if w.stream == nil || w.p.proc != w.p {
		return
	}
	current, _ := w.here.machine.Segment().Revision()
	for range 10_000 {
		w.here.hub.run()
		r, err := w.stream.Next(now)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			w.finish(0)
			return
		}
		w.take(r)
	}
	w.finish(current)
}
