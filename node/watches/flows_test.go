package watches

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
	"github.com/anchormesh/anchormesh/node/host"
)

// segment is a replica with a hub that turns when told.
type segment struct {
	t       *testing.T
	changes []mvcc.Event
	current int64
	hub     *watch.Hub
	limits  watch.Limits
}

func newSegment(t *testing.T, controls int) *segment {
	s := &segment{t: t, current: 1, limits: watch.DefaultLimits()}
	s.limits.StreamControls = controls
	hub, err := watch.NewHub(s, s.limits)
	if err != nil {
		t.Fatal(err)
	}
	s.hub = hub
	return s
}

func (s *segment) Get(id anchormesh.SegmentID) (*host.Replica, bool) {
	return &host.Replica{Hub: s.hub}, id == 1
}

func (s *segment) Revision() (current, compacted int64) { return s.current, 0 }

func (s *segment) PrevKV([]byte, int64) (mvcc.KV, bool) { return mvcc.KV{}, false }

func (s *segment) History(from, to int64, keys anchormesh.KeyRange, _ int) (out []mvcc.Event, next int64, err error) {
	for _, c := range s.changes {
		if c.Main >= from && c.Main <= to && keys.Contains(c.KV.Key) {
			out = append(out, c)
		}
	}
	return out, to + 1, nil
}

func (s *segment) put(key string) {
	s.current++
	raw, err := proto.Marshal(&mvccpb.KeyValue{Key: []byte(key), ModRevision: s.current})
	if err != nil {
		s.t.Fatal(err)
	}
	ev := mvcc.Event{KV: mvcc.KV{Key: []byte(key), Create: s.current, Mod: s.current, Raw: raw}, Main: s.current}
	s.changes = append(s.changes, ev)
	s.hub.Publish([]mvcc.Event{ev}, s.current)
}

// turn lets the hub do all that there is to do.
func (s *segment) turn() {
	now := time.Unix(1, 0)
	for {
		next, over, err := s.hub.Step(now)
		if err != nil {
			s.t.Fatal(err)
		}
		if over || !next.Equal(now) {
			return
		}
	}
}

// drain returns what the flows bring until nothing more comes.
func (s *segment) drain(in *inlets) (out []string) {
	for {
		s.turn()
		ev, ok := in.next()
		if !ok {
			s.turn()
			if ev, ok = in.next(); !ok {
				return out
			}
		}
		switch ev := ev.(type) {
		case weave.Broke:
			out = append(out, fmt.Sprintf("%d broke", ev.Thread))
		case weave.Came:
			switch {
			case ev.Canceled:
				out = append(out, fmt.Sprintf("%d ends at %d", ev.ID, ev.Revision))
			case ev.Mark:
				out = append(out, fmt.Sprintf("%d mark %d", ev.ID, ev.Revision))
			default:
				out = append(out, fmt.Sprintf("%d events to %d", ev.ID, ev.Revision))
			}
		}
	}
}

func (s *segment) flows() (*flows, *inlets) {
	in := &inlets{notify: make(chan struct{}, 1)}
	return newFlows(s, in), in
}

func from(thread, start int64, first, end string) watch.Request {
	return watch.Request{ID: thread, StartRevision: start, Range: anchormesh.KeyRange{Start: []byte(first), End: []byte(end)}}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A mark stands behind the events, and only on threads whose keys the barrier was for.
func TestFlowsBringEventsAndMarks(t *testing.T) {
	s := newSegment(t, 100)
	f, in := s.flows()
	if err := f.open(2, from(1, 1, "a", "b")); !errors.Is(err, errAbsent) {
		t.Errorf("a segment that is not here: %v", err)
	}
	f.open(1, from(1, 2, "a", "m"))
	f.open(1, from(2, 2, "m", "z"))
	s.put("b")
	f.mark(1, anchormesh.KeyRange{End: []byte("m")}, 9, []int64{1, 2, 3})
	f.mark(4, anchormesh.KeyRange{}, 9, []int64{2})
	expect(t, s.drain(in), "1 events to 2", "1 mark 9")
	s.put("b")
	s.put("n")
	f.cancel(1)
	expect(t, s.drain(in), "2 events to 4")
	f.cancel(2)
	if st := s.hub.Stats(); st.Watches != 0 || st.Streams != 0 {
		t.Errorf("left at the hub: %+v", st)
	}
}

// A hub that takes few watches at once gets the others as its answers are read, and
// the marks that were asked for meanwhile are put then.
func TestFlowsWaitForRoom(t *testing.T) {
	s := newSegment(t, 2)
	f, in := s.flows()
	var all []int64
	var want []string
	for id := int64(1); id <= 7; id++ {
		f.open(1, from(id, 2, "a", "b"))
		all = append(all, id)
	}
	f.mark(1, anchormesh.KeyRange{}, 1, all)
	f.cancel(6)
	marks := map[string]int{}
	for _, m := range s.drain(in) {
		marks[m]++
	}
	for _, id := range all {
		if id != 6 {
			want = append(want, fmt.Sprintf("%d mark 1", id))
		}
	}
	for _, m := range want {
		if marks[m] != 1 || len(marks) != len(want) {
			t.Fatalf("got %v, want each of %v once", marks, want)
		}
	}
	if n := s.hub.Stats().Watches; n != 6 {
		t.Errorf("%d watches at the hub", n)
	}
}

// Threads that reach beyond a split end at a position, the others live on; when the
// segment leaves, all end, and what did not begin breaks.
func TestFlowsEnd(t *testing.T) {
	s := newSegment(t, 100)
	f, in := s.flows()
	f.open(1, from(1, 2, "a", "m"))
	f.open(1, from(2, 2, "a", "z"))
	s.put("b")
	expect(t, s.drain(in), "1 events to 2", "2 events to 2")
	s.hub.Bound(anchormesh.KeyRange{End: []byte("m")}, host.ErrSplit)
	s.put("b")
	expect(t, s.drain(in), "2 ends at 2", "1 events to 3")
	f.open(1, from(3, 4, "b", "z"))
	expect(t, s.drain(in), "3 ends at 3")
	s.hub.Stop(host.ErrMoved)
	expect(t, s.drain(in), "1 ends at 3")
	f.open(1, from(4, 4, "a", "b"))
	expect(t, s.drain(in), "4 broke")
}
