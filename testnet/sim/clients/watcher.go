package clients

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
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/wire"
)

// Watcher keeps one watch after the other, each on a replica of its choice, and
// reads them at its own pace.
type Watcher struct {
	m      *node.Mesh
	rng    *rand.Rand
	p      *node.Process
	here   *node.ReplicaHere
	stream *watch.Stream
	watch  check.Watch
	next   int64 // where to resume
	until  time.Duration
}

func NewWatcher(m *node.Mesh, idx int) *Watcher {
	return &Watcher{m: m, rng: m.K.Stream(fmt.Sprintf("watcher %d", idx))}
}

func (w *Watcher) Start() { w.m.K.After(w.pause(), w.act) }

func (w *Watcher) pause() time.Duration {
	if w.rng.IntN(20) == 0 {
		return time.Duration(w.rng.Int64N(int64(10 * time.Second))) // a slow reader
	}
	return time.Duration(w.rng.ExpFloat64() * float64(200*time.Millisecond))
}

func (w *Watcher) act() {
	switch {
	case w.stream == nil:
		w.open()
	case w.p.Proc != w.p:
		w.finish(0) // the connection broke: what was not read is lost
	case w.p.Paused:
	default:
		w.read()
		if w.stream != nil && w.m.K.Now() > w.until {
			w.stream.Close()
			w.here.Hub.Kick()
			w.finish(0)
		}
	}
	if !w.m.Healed {
		w.Start()
	}
}

// open begins a watch: where the last one ended, from now, or from the past.
func (w *Watcher) open() {
	running := w.m.Running()
	if len(running) == 0 {
		return
	}
	w.p = plan.Pick(w.rng, running...)
	held := w.p.Host.Sorted()
	if len(held) == 0 || w.p.Paused {
		return
	}
	w.here = plan.Pick(w.rng, held...)
	segment := w.here.Machine.Segment()
	line, keys := w.here.Hub.Line, segment.KeyRange()
	letter := node.Segment0(w.m, segment.ID()).Letter()
	req := watch.Request{PrevKV: w.rng.IntN(2) == 0, NoPut: w.rng.IntN(10) == 0, NoDelete: w.rng.IntN(10) == 0}
	ck := check.Watch{Line: line, Key: letter, End: letter + "0", Prev: req.PrevKV, NoPut: req.NoPut, NoDelete: req.NoDelete}
	if w.rng.IntN(3) == 0 {
		ck.Key, ck.End = fmt.Sprintf("%s/%02d", letter, w.rng.IntN(w.m.Cfg.Load.Keys)), ""
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
	w.stream = w.here.Hub.Hub.NewStream()
	if _, _, err := w.stream.Create(node.Now, req); errors.Is(err, node.ErrMoved) {
		w.stream = nil // absorbed a moment ago
		return
	} else if err != nil {
		w.m.Fail(fmt.Errorf("watch: %w", err))
	}
	w.here.Hub.Kick()
	w.until = w.m.K.Now() + time.Duration(w.rng.Int64N(int64(2*time.Minute)))
}

// read takes what is there.
func (w *Watcher) read() {
	if w.rng.IntN(10) == 0 {
		w.stream.RequestProgress()
	}
	w.here.Hub.Kick()
	for range 1 + w.rng.IntN(20) {
		r, err := w.stream.Next(node.Now)
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

func (w *Watcher) take(r watch.Response) {
	out := check.Response{Rev: r.Revision, Created: r.Created, Progress: r.Progress || r.ID == watch.StreamID, Canceled: r.Canceled, Compact: r.CompactRevision}
	for _, ev := range r.Events {
		var pb mvccpb.Event
		if err := proto.Unmarshal(ev.Message(w.watch.Prev), &pb); err != nil {
			w.m.Fail(fmt.Errorf("watch event: %w", err))
			return
		}
		e := check.Event{Rev: ev.Revision(), Delete: pb.GetType() == mvccpb.Event_DELETE, KV: wire.ConvertKV(pb.GetKv())}
		if pb.GetPrevKv() != nil {
			prev := wire.ConvertKV(pb.GetPrevKv())
			e.Prev = &prev
		}
		out.Events = append(out.Events, e)
		w.next = e.Rev + 1
	}
	if out.Progress {
		w.next = max(w.next, out.Rev+1)
	}
	w.m.Stats.WatchEvents += uint64(len(out.Events))
	w.m.K.Note("watch", w.p.Index, uint64(out.Rev), uint64(len(out.Events)), 0, 0)
	w.watch.Responses = append(w.watch.Responses, out)
}

// finish hands the watch to the checkers.
func (w *Watcher) finish(through int64) {
	w.watch.Through = through
	w.m.History.Watches = append(w.m.History.Watches, w.watch)
	w.stream = nil
}

// Drain reads everything at the end of the run: a watch that is still open must have
// shown all that its replica applied.
func (w *Watcher) Drain() {
	if w.stream == nil || w.p.Proc != w.p {
		return
	}
	current, _ := w.here.Machine.Segment().Revision()
	for range 10_000 {
		w.here.Hub.Run()
		r, err := w.stream.Next(node.Now)
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
