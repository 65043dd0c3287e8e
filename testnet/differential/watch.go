package differential

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// watchStream is one gRPC stream of watches and all that came over it.
type watchStream struct {
	rpc    pb.Watch_WatchClient
	strict bool // false: strip a prev_kv that was not asked for
	lined  bool // one of the two servers has a line of its own
	line   *line

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced whenever something came
	logs       map[int64][]seen
	prevKV     map[int64]bool
	asked      []*pb.WatchCreateRequest // sent and not answered, in order
	canceled   map[int64]bool
	refused    int   // creations refused (their answers carry no usable ID)
	progressed int64 // largest revision of a progress answer
	sentinel   int64 // mod revision of the last event of the sentinel watch
	fragments  int   // responses marked as fragments
	answered   int64 // largest revision that a creation's header may not be below
	err        error // why the stream ended
}

// seen is what a watch brought: an event, or something else in words.
type seen struct {
	text      string
	canceled  bool
	compacted int64 // of a cancellation
	event     *mvccpb.Event
}

// refusedID is the watch ID in answers to creations that failed, and in progress
// answers.
const refusedID = -1

// openStream opens a stream of watches; lined says that one of the two servers has a line.
func (s *Server) openStream(ctx context.Context, lined bool) (*watchStream, error) {
	rpc, err := s.watch.Watch(ctx)
	if err != nil {
		return nil, err
	}
	w := &watchStream{
		rpc: rpc, strict: !s.Etcd, lined: lined, line: s.line, changed: make(chan struct{}),
		logs: map[int64][]seen{}, prevKV: map[int64]bool{}, canceled: map[int64]bool{},
	}
	go w.receive()
	a := w.control(ctx, creation(&pb.WatchCreateRequest{Key: []byte(sentinelKey), WatchId: sentinelID}))
	return w, a.err
}

func creation(c *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}}
}

// receive files responses until the stream ends.
func (w *watchStream) receive() {
	for {
		r, err := w.rpc.Recv()
		w.mu.Lock()
		if err != nil {
			w.err = err
		} else {
			w.fileLocked(r)
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (w *watchStream) fileLocked(r *pb.WatchResponse) {
	id := r.WatchId
	add := func(format string, args ...any) {
		w.logs[id] = append(w.logs[id], seen{text: fmt.Sprintf(format, args...)})
	}
	switch {
	case r.Created:
		request := w.asked[0]
		w.asked = w.asked[1:]
		if r.Canceled {
			w.refused++
		} else {
			w.canceled[id], w.prevKV[id] = false, request.PrevKv
		}
		add("created%s, canceled %t %q", w.showCreated(r), r.Canceled, r.CancelReason)
		return
	case len(r.Events) == 0 && !r.Canceled:
		w.progressed = max(w.progressed, r.Header.GetRevision())
		return
	case id == sentinelID && len(r.Events) > 0:
		w.sentinel = r.Events[len(r.Events)-1].Kv.ModRevision
		return
	}
	if r.Fragment {
		w.fragments++
	}
	for _, ev := range r.Events {
		// Settling ends with the sentinel's event at the sentinel's watch; when
		// another watch of the stream sees the same event is open.
		if ev.Type == mvccpb.Event_PUT && string(ev.Kv.Key) == sentinelKey {
			continue
		}
		w.logs[id] = append(w.logs[id], seen{event: w.strippedLocked(id, ev)})
	}
	if r.Canceled && !w.canceled[id] {
		w.canceled[id] = true
		w.logs[id] = append(w.logs[id], seen{text: r.CancelReason, canceled: true, compacted: r.CompactRevision})
		if r.CompactRevision != 0 {
			// clientv3 too cancels such a watch; etcd gives no progress before.
			_ = w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
				CancelRequest: &pb.WatchCancelRequest{WatchId: id},
			}})
		}
	}
}

// showCreated shows the revision of a creation's header. Beside a line it says only whether
// it is as fresh as it must be; that of a watch that is refused need not be.
func (w *watchStream) showCreated(r *pb.WatchResponse) string {
	switch {
	case !w.lined:
		return fmt.Sprintf(" at %d", r.Header.GetRevision())
	case !r.Canceled && r.Header.GetRevision() < w.answered:
		return " below what was answered before"
	}
	return ""
}

func (w *watchStream) strippedLocked(id int64, ev *mvccpb.Event) *mvccpb.Event {
	if !w.strict && !w.prevKV[id] && ev.PrevKv != nil {
		ev = proto.Clone(ev).(*mvccpb.Event)
		ev.PrevKv = nil
	}
	return ev
}

// control sends a creation or cancellation and a fence behind it, and waits for
// the fence's answer; control answers come in order. What the request itself
// brought is in the logs. The fence is a creation that every server refuses.
func (w *watchStream) control(ctx context.Context, r *pb.WatchRequest) answer {
	fence := &pb.WatchCreateRequest{Key: []byte{0}, StartRevision: -1}
	w.mu.Lock()
	if c := r.GetCreateRequest(); c != nil {
		w.asked = append(w.asked, c)
	}
	w.asked = append(w.asked, fence)
	w.mu.Unlock()
	for _, request := range []*pb.WatchRequest{r, creation(fence)} {
		if err := w.rpc.Send(request); err != nil {
			return answer{err: err}
		}
	}
	err := w.wait(ctx, func() bool { return len(w.asked) == 0 })
	return answer{message: &pb.WatchResponse{}, err: err}
}

// wait returns when ok, called with mu held, is true.
func (w *watchStream) wait(ctx context.Context, ok func() bool) error {
	for {
		w.mu.Lock()
		done, err, changed := ok(), w.err, w.changed
		w.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// progressEvery is how often progress is asked for until it is given; etcd drops
// requests that come while a watch is behind.
const progressEvery = 20 * time.Millisecond

// settleProgress returns when a progress answer has reached rev.
func (w *watchStream) settleProgress(ctx context.Context, rev int64) error {
	for ctx.Err() == nil {
		err := w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		if err != nil {
			return err
		}
		attempt, cancel := context.WithTimeout(ctx, progressEvery)
		err = w.wait(attempt, func() bool { return w.progressed >= rev })
		cancel()
		if err == nil {
			return nil
		}
		if attempt.Err() == nil {
			return err
		}
	}
	return fmt.Errorf("no progress answer reached revision %d: %w", rev, ctx.Err())
}

// settleSentinel returns when the sentinel's event of rev was delivered.
func (w *watchStream) settleSentinel(ctx context.Context, rev int64) error {
	if err := w.wait(ctx, func() bool { return w.sentinel >= rev }); err != nil {
		return fmt.Errorf("the event of revision %d was not delivered: %w", rev, err)
	}
	return nil
}

// settle returns when everything up to now has been delivered on the given
// streams. The sentinel is put first, so that neither an event nor a progress
// answer from before can be taken for the awaited one.
func (s *Server) settle(ctx context.Context, which ...int) error {
	r, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(sentinelKey)})
	if err != nil {
		return err
	}
	rev := r.Header.Revision
	s.seen = rev
	for _, stream := range which {
		w, settle := s.streams[stream], (*watchStream).settleProgress
		if stream == lateStream {
			settle = (*watchStream).settleSentinel
		}
		if err := settle(w, ctx, rev); err != nil {
			return fmt.Errorf("stream %d: %w", stream, err)
		}
	}
	return nil
}

// transcript returns all that a stream's watches saw, as lines.
func (w *watchStream) transcript() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []int64
	for id := range w.logs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var out []string
	for _, id := range ids {
		for _, text := range w.showLocked(w.logs[id]) {
			out = append(out, fmt.Sprintf("watch %d: %s", id, text))
		}
	}
	return out
}

// showLocked shows what a watch saw.
func (w *watchStream) showLocked(log []seen) []string {
	log = slices.Clone(log)
	if w.line != nil {
		for i := range log {
			log[i].compacted = w.line.toReference(log[i].compacted)
			if ev := log[i].event; ev != nil {
				log[i].event = proto.Clone(ev).(*mvccpb.Event)
				w.line.translate(log[i].event.ProtoReflect())
			}
		}
	}
	if w.lined {
		sortWithin(log)
	}
	var out []string
	for _, one := range log {
		switch {
		case one.event != nil:
			out = append(out, oneLine(one.event))
		case one.canceled:
			out = append(out, fmt.Sprintf("canceled, compact revision %d %q", one.compacted, one.text))
		default:
			out = append(out, one.text)
		}
	}
	return out
}

// sortWithin sorts events of one revision by key: a call may have taken several numbers,
// and in which segment a lease ends first is nobody's promise.
func sortWithin(log []seen) {
	same := func(a, b seen) bool {
		return a.event != nil && b.event != nil && a.event.Kv.ModRevision == b.event.Kv.ModRevision
	}
	for from := 0; from < len(log); {
		to := from + 1
		for to < len(log) && same(log[from], log[to]) {
			to++
		}
		slices.SortStableFunc(log[from:to], func(a, b seen) int {
			if a.event == nil {
				return 0 // alone in its run
			}
			return bytes.Compare(a.event.Kv.Key, b.event.Kv.Key)
		})
		from = to
	}
}
