package watch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// seen is what a client knows of one watch, and what it must not see.
type seen struct {
	req        Request
	start      int64
	created    bool
	over       bool
	compact    int64 // compact revision it was cancelled with
	events     []*mvccpb.Event
	progress   int64
	marked     int64
	owed       int64         // marks asked for
	responseOf map[int64]int // revision -> number of the response it came in
}

// client reads one stream and checks the named guarantees as responses come.
type client struct {
	stream    *Stream
	watches   map[int64]*seen
	ended     []*seen
	responses int
}

func (c *client) take(r Response) error {
	c.responses++
	if r.ID == StreamID {
		for id, w := range c.watches {
			if w.created && !w.over {
				if err := w.bookmark(r.Revision); err != nil {
					return fmt.Errorf("watch %d: %w", id, err)
				}
			}
		}
		return nil
	}
	w := c.watches[r.ID]
	switch {
	case w == nil || w.over:
		return fmt.Errorf("response for watch %d, which is over or never was", r.ID)
	case !w.created && !r.Created:
		return errors.New("response before Created")
	case r.Created:
		w.created = true
	case r.Canceled:
		w.over, w.compact = true, r.CompactRevision
		delete(c.watches, r.ID)
		c.ended = append(c.ended, w)
	case r.Progress:
		return w.bookmark(r.Revision)
	case r.Mark:
		w.marked = max(w.marked, r.Revision)
	default:
		return w.take(r, c.responses)
	}
	return nil
}

func (w *seen) take(r Response, response int) error {
	for _, pb := range r.Events {
		rev := pb.Revision()
		if rev <= w.marked {
			return fmt.Errorf("Mark: event at %d behind the mark at %d", rev, w.marked)
		}
		if rev <= w.progress {
			return fmt.Errorf("Bookmarkable: event at %d after progress at %d", rev, w.progress)
		}
		if n, ok := w.responseOf[rev]; ok && n != response {
			return fmt.Errorf("Atomic: revision %d is in two responses", rev)
		}
		w.responseOf[rev] = response
		var ev mvccpb.Event
		if err := proto.Unmarshal(pb.Message(r.PrevKV), &ev); err != nil {
			return err
		}
		w.events = append(w.events, &ev)
	}
	return nil
}

func (w *seen) bookmark(rev int64) error {
	if rev < w.progress {
		return fmt.Errorf("Bookmarkable: progress went back from %d to %d", w.progress, rev)
	}
	if n := len(w.events); n > 0 && w.events[n-1].Kv.ModRevision > rev {
		return fmt.Errorf("Bookmarkable: progress at %d behind event at %d", rev, w.events[n-1].Kv.ModRevision)
	}
	if rev < w.start && w.req.StartRevision != 0 {
		return fmt.Errorf("Bookmarkable: progress at %d of a watch that starts at %d", rev, w.start)
	}
	w.progress = rev
	return nil
}

// check compares what a watch got with what was written: every event it wants
// from its start on, in order, nothing else (Ordered, Unique, Reliable); up to
// the end, or up to where it was cancelled.
func (w *seen) check(seg *segment, complete bool) error {
	i := 0
	for _, e := range seg.written {
		if e.Main < w.start || !w.req.Range.Contains(e.KV.Key) ||
			(e.Delete && w.req.NoDelete) || (!e.Delete && w.req.NoPut) {
			continue
		}
		if i == len(w.events) {
			switch {
			case w.compact != 0 && w.compact > w.start:
				return nil // its next event, or one before, was gone
			case w.over && w.compact == 0, !complete:
				return nil
			}
			return fmt.Errorf("Reliable: watch of %v from %d lacks revision %d of %q", w.req.Range, w.start, e.Main, e.KV.Key)
		}
		if err := w.same(seg, w.events[i], e); err != nil {
			return err
		}
		i++
	}
	if i < len(w.events) {
		return fmt.Errorf("Unique: watch of %v from %d got %v too much", w.req.Range, w.start, w.events[i])
	}
	if w.marked < w.owed && !w.over {
		return fmt.Errorf("Mark: asked for %d, marked up to %d", w.owed, w.marked)
	}
	if w.progress > seg.current {
		return fmt.Errorf("Bookmarkable: progress at %d, segment at %d", w.progress, seg.current)
	}
	return nil
}

func (w *seen) same(seg *segment, got *mvccpb.Event, want mvcc.Event) error {
	var kv mvccpb.KeyValue
	if err := proto.Unmarshal(want.KV.Raw, &kv); err != nil {
		return err
	}
	if !proto.Equal(got.Kv, &kv) || (got.Type == mvccpb.Event_DELETE) != want.Delete {
		return fmt.Errorf("Ordered: watch of %v from %d got %v, want %v", w.req.Range, w.start, got, &kv)
	}
	var prev *mvccpb.KeyValue
	if old, ok := seg.PrevKV(want.KV.Key, want.Main); ok && w.req.PrevKV {
		prev = &mvccpb.KeyValue{}
		if err := proto.Unmarshal(old.Raw, prev); err != nil {
			return err
		}
	}
	if !proto.Equal(got.PrevKv, prev) {
		return fmt.Errorf("PrevKV: revision %d came with %v, want %v", want.Main, got.PrevKv, prev)
	}
	return nil
}

// world is a hub, its segment and clients, driven one random move at a time.
type world struct {
	rng     *rand.Rand
	seg     *segment
	hub     *Hub
	clients []*client
	all     []*seen
	now     time.Time
	slow    int // 1 of slow reads happens
}

// TestGuarantees drives a hub with random moves under random, tiny limits and
// checks what every client saw.
func TestGuarantees(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	base := rand.Uint64()
	for i := range rounds {
		seed := base + uint64(i)
		if err := newWorld(seed).live(400); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 7))
	l := DefaultLimits()
	pick := func(choices ...int) int { return choices[rng.IntN(len(choices))] }
	l.QueueBytes = pick(100, 400, 1<<20)
	l.StepBytes = pick(1, 100, 1<<20)
	l.StreamBytes = pick(1, 300, 2000, 1<<20)
	l.ResponseBytes = pick(1, 50, 1<<20)
	l.ScanWatches = pick(1, 2, 100)
	l.StreamControls = 1 << 20
	l.ProgressInterval = time.Second
	w := &world{rng: rng, seg: newSegment(), now: time.Unix(0, 0), slow: pick(1, 3, 10)}
	w.hub, _ = NewHub(w.seg, l)
	for range 1 + rng.IntN(4) {
		w.clients = append(w.clients, w.newClient())
	}
	return w
}

func (w *world) newClient() *client {
	return &client{stream: w.hub.NewStream(), watches: map[int64]*seen{}}
}

func (w *world) live(moves int) error {
	compacting := w.rng.IntN(2) == 0
	for range moves {
		if err := w.move(compacting); err != nil {
			return err
		}
	}
	return w.settle()
}

func (w *world) move(compacting bool) error {
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch n := w.rng.IntN(100); {
	case n < 35:
		w.seg.hidden = append(w.seg.hidden, w.seg.write(w.ops()...))
	case n < 55:
		w.publish()
	case n < 57 && compacting:
		w.seg.compact(w.seg.compacted + w.rng.Int64N(w.seg.current-w.seg.compacted+1))
	case n < 63:
		return w.create(c)
	case n < 65:
		for id := range c.watches {
			c.stream.Cancel(id)
			break
		}
	case n < 66:
		c.stream.RequestProgress()
	case n < 67:
		// Marks speak of what was published.
		for id := range c.watches {
			rev := 1 + w.rng.Int64N(w.hub.queue.markAt(0))
			c.stream.Mark(rev, id)
			c.watches[id].owed = max(c.watches[id].owed, rev)
		}
	case n < 68:
		w.now = w.now.Add(time.Second)
	case n < 69:
		w.seg.hidden = nil
		w.hub.Restored()
	case n < 70:
		return w.reopen()
	case n < 85:
		_, err := w.hub.step(w.now)
		return err
	default:
		if w.rng.IntN(w.slow) == 0 {
			_, err := w.read(c)
			return err
		}
	}
	return nil
}

// reopen closes a stream and replaces it.
func (w *world) reopen() error {
	i := w.rng.IntN(len(w.clients))
	w.clients[i].stream.Close()
	for _, s := range w.clients[i].watches {
		s.over = true
	}
	w.clients[i] = w.newClient()
	return nil
}

func (w *world) ops() (out []op) {
	for _, k := range w.rng.Perm(6)[:1+w.rng.IntN(3)] {
		v := fmt.Sprint("value", w.rng.IntN(1000))
		if w.rng.IntN(4) == 0 {
			v = "-"
		}
		out = append(out, op{string(rune('a' + k)), v})
	}
	return out
}

func (w *world) publish() {
	for n := 1 + w.rng.IntN(3); n > 0 && len(w.seg.hidden) > 0; n-- {
		p := w.seg.hidden[0]
		w.seg.hidden = w.seg.hidden[1:]
		w.hub.Publish(p.events, p.rev)
	}
}

func (w *world) create(c *client) error {
	a, b := byte('a'+w.rng.IntN(6)), byte('a'+w.rng.IntN(7))
	r := Request{
		Range:  anchormesh.RequestRange([]byte{min(a, b)}, nil),
		PrevKV: w.rng.IntN(2) == 0, ProgressNotify: w.rng.IntN(2) == 0,
		NoPut: w.rng.IntN(8) == 0, NoDelete: w.rng.IntN(8) == 0,
	}
	if a != b && w.rng.IntN(2) == 0 {
		r.Range = anchormesh.KeyRange{Start: []byte{min(a, b)}, End: []byte{max(a, b)}}
	}
	if w.rng.IntN(2) == 0 {
		r.StartRevision = 1 + w.rng.Int64N(w.seg.current+8)
	}
	id, rev, err := c.stream.Create(nil, r)
	if err != nil {
		return err
	}
	s := &seen{req: r, start: r.StartRevision, responseOf: map[int64]int{}}
	if s.start == 0 {
		s.start = rev + 1
	}
	// The Created response of a dead watch with this ID may still be unread.
	if c.watches[id] != nil {
		return fmt.Errorf("ID %d given out twice", id)
	}
	c.watches[id] = s
	w.all = append(w.all, s)
	return nil
}

func (w *world) read(c *client) (bool, error) {
	r, err, ok := tryNext(c.stream)
	if err != nil || !ok {
		return false, err
	}
	return true, c.take(r)
}

// settle publishes everything, lets the hub come to rest and reads all of it.
func (w *world) settle() error {
	for len(w.seg.hidden) > 0 {
		w.publish()
	}
	for round := 0; ; round++ {
		if round == 100_000 {
			return errors.New("the hub never comes to rest")
		}
		more, err := w.hub.step(w.now)
		if err != nil {
			return err
		}
		for _, c := range w.clients {
			got, err := w.read(c)
			if err != nil {
				return err
			}
			more = more || got
		}
		if !more {
			break
		}
	}
	for _, s := range w.all {
		if err := s.check(w.seg, true); err != nil {
			return err
		}
	}
	if lag := w.hub.Stats().Lagging; lag != 0 {
		return fmt.Errorf("%d watches still lag at rest", lag)
	}
	return w.forget()
}

// forget closes everything and checks that the hub kept nothing.
func (w *world) forget() error {
	for _, c := range w.clients {
		c.stream.Close()
	}
	if st := w.hub.Stats(); st.Watches != 0 || st.Streams != 0 || st.Lagging != 0 || st.QueueBytes != 0 {
		return fmt.Errorf("left behind: %+v", st)
	}
	if slices.ContainsFunc(w.hub.core.notify, func(w *watch) bool { return w != nil }) {
		return errors.New("closed watches still wait for progress")
	}
	return nil
}
