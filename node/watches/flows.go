package watches

import (
	"context"
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
	"github.com/anchormesh/anchormesh/node/host"
)

// flows are the threads of one weave at the hubs of this node: one stream for each
// segment. Who owns them serialises the calls.
type flows struct {
	host     replicas
	in       *inlets
	segments map[anchormesh.SegmentID]*flow
	threads  map[int64]*flow
	failed   []int64 // threads whose watch could not begin
	slot     slot
}

// replicas finds what runs on this node; *host.Host does.
type replicas interface {
	Get(segment anchormesh.SegmentID) (*host.Replica, bool)
}

// flow is one hub's stream.
type flow struct {
	flows   *flows
	segment anchormesh.SegmentID
	hub     *watch.Hub
	stream  *watch.Stream
	threads map[int64]anchormesh.KeyRange
	opening []watch.Request // wait until answers to those before them are read
	early   map[int64]int64 // marks for these
	slot    slot
}

func newFlows(h replicas, in *inlets) *flows {
	f := &flows{
		host: h, in: in,
		segments: make(map[anchormesh.SegmentID]*flow), threads: make(map[int64]*flow),
	}
	f.slot.source = f
	return f
}

// errAbsent says that no replica of the segment runs on this node.
var errAbsent = errors.New("watches: the segment is not here")

// never is a context that does not wait.
var never = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// open begins a thread. The error is errAbsent; whatever else fails comes as Broke.
func (f *flows) open(segment anchormesh.SegmentID, req watch.Request) error {
	r, here := f.host.Get(segment)
	if !here {
		return errAbsent
	}
	s := f.segments[segment]
	if s == nil || s.hub != r.Hub {
		s = &flow{flows: f, segment: segment, hub: r.Hub, threads: make(map[int64]anchormesh.KeyRange)}
		s.slot.source = s
		s.stream = r.Hub.NewStreamFunc(func() { f.in.raise(&s.slot) })
		f.segments[segment] = s
	}
	s.threads[req.ID] = req.Range
	f.threads[req.ID] = s
	s.opening = append(s.opening, req)
	s.begin()
	return nil
}

// begin opens what waits, as far as the hub takes it: a stream on which many answers
// wait unread takes no more.
func (s *flow) begin() {
	for len(s.opening) > 0 {
		req := s.opening[0]
		if _, wanted := s.threads[req.ID]; wanted {
			_, _, err := s.stream.Create(never, req)
			if errors.Is(err, context.Canceled) {
				return
			}
			if err != nil {
				s.flows.fail(req.ID)
			} else if revision := s.early[req.ID]; revision != 0 {
				s.stream.Mark(revision, req.ID)
			}
		}
		delete(s.early, req.ID)
		s.opening = s.opening[1:]
	}
	s.opening, s.early = nil, nil
}

// fail ends a thread without a word.
func (f *flows) fail(thread int64) {
	f.drop(thread)
	f.failed = append(f.failed, thread)
	f.in.raise(&f.slot)
}

// poll tells of the threads that failed.
func (f *flows) poll() (weave.Event, bool) {
	if len(f.failed) == 0 {
		return nil, false
	}
	thread := f.failed[0]
	f.failed = f.failed[1:]
	return weave.Broke{Thread: thread}, true
}

// poll returns what the hub has for one of the threads. After a hub has stopped, and
// all was read, what is left of its threads has failed.
func (s *flow) poll() (weave.Event, bool) {
	for {
		r, ok, err := s.stream.Poll()
		if !ok {
			if err != nil {
				for thread := range s.threads {
					s.flows.fail(thread)
				}
				s.leave()
			}
			return nil, false
		}
		s.begin()
		if _, mine := s.threads[r.ID]; !mine || r.Created {
			continue
		}
		if r.Canceled {
			s.flows.drop(r.ID)
		}
		return weave.Came{Response: r}, true
	}
}

// drop forgets a thread, and the stream behind the last one.
func (f *flows) drop(thread int64) {
	s := f.threads[thread]
	if s == nil {
		return
	}
	delete(f.threads, thread)
	if delete(s.threads, thread); len(s.threads) == 0 {
		s.leave()
	}
}

func (s *flow) leave() {
	if s.flows.segments[s.segment] == s {
		delete(s.flows.segments, s.segment)
	}
	s.stream.Close()
}

// cancel ends a thread; nothing of it comes any more.
func (f *flows) cancel(thread int64) {
	if s := f.threads[thread]; s != nil {
		s.stream.Cancel(thread)
		f.drop(thread)
	}
}

// mark asks for marks on the threads that lie in keys, for which a barrier was
// answered. A thread that reaches beyond is about to end: its segment was split.
func (f *flows) mark(segment anchormesh.SegmentID, keys anchormesh.KeyRange, revision int64, threads []int64) {
	byFlow := make(map[*flow][]int64, 1)
	for _, id := range threads {
		if s := f.threads[id]; s != nil && s.segment == segment && keys.Covers(s.threads[id]) {
			byFlow[s] = append(byFlow[s], id)
		}
	}
	for s, ids := range byFlow {
		for _, req := range s.opening {
			if slices.Contains(ids, req.ID) {
				if s.early == nil {
					s.early = make(map[int64]int64)
				}
				s.early[req.ID] = max(s.early[req.ID], revision)
			}
		}
		s.stream.Mark(revision, ids...)
	}
}

// close ends everything.
func (f *flows) close() {
	for _, s := range f.segments {
		s.stream.Close()
	}
	clear(f.segments)
	clear(f.threads)
}
