package weave

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// pipe is the flow of one replica's hub to one weave: its stream, and what travels.
type pipe struct {
	replica *replica
	stream  *watch.Stream
	queue   []watch.Response
	dead    bool
}

// client is a shell around a weave, and behind it the oracle.
type client struct {
	w       *world
	id      uint64
	weave   *Weave
	pipes   []*pipe
	threads map[int64]*pipe
	out     []watch.Response
	slow    int // how many unread responses stop the flows
	next    time.Time

	watches map[int64]*seen
	all     []*seen
	creates []*seen // in the order of the requests
	asked   int64   // lower bound of the request for progress
	bound   []int64 // the same of the answers that were not read
	got     int     // responses
}

func (w *world) newClient(id uint64) *client {
	pick := func(c ...int) int { return c[w.rng.IntN(len(c))] }
	limits := DefaultLimits()
	limits.HeldBytes, limits.ResponseBytes = pick(1, 300, 1000, 1<<20), pick(1, 100, 1<<20)
	limits.Asks, limits.Direct = pick(1, 2), pick(0, 0, 2, 10)
	limits.ProgressInterval = 10 * time.Second
	core, err := New(limits)
	if err != nil {
		panic(err)
	}
	return &client{w: w, id: id, weave: core, threads: map[int64]*pipe{}, watches: map[int64]*seen{}, slow: pick(1, 5, 100)}
}

// do steps the weave and does what follows.
func (c *client) do(ev Event) {
	fx := c.weave.Step(c.w.now, ev)
	for _, r := range fx.Send {
		if c.out = append(c.out, r); r.Created {
			c.watches[r.ID].sent = c.w.step
		}
		if s := c.watches[r.ID]; r.Canceled {
			s.stillborn = s.sent == c.w.step
		}
		if r.ID == watch.StreamID {
			c.bound = append(c.bound, c.asked)
		}
	}
	c.next = fx.Next
	for _, id := range fx.Close {
		if p := c.threads[id]; p != nil {
			p.stream.Cancel(id)
			delete(c.threads, id)
		}
	}
	for _, l := range fx.Locate {
		c.w.post(func() { c.locate(l) })
	}
	for _, o := range fx.Open {
		c.open(o)
	}
	for _, b := range fx.Barrier {
		c.w.stats["barrier requests"]++
		if bar, ok := c.w.frontier.Barrier(c.id, b); ok {
			c.w.stats["barriers"]++
			c.w.post(func() { c.w.bar(bar) })
		}
	}
	if fx.Ask != nil {
		c.w.stats["asks"]++
		if q, ok := c.w.frontier.Ask(c.id, *fx.Ask); ok {
			c.w.stats["questions"]++
			c.w.post(func() { c.w.tell(q) })
		}
	}
}

func (c *client) locate(l Locate) {
	parts := make([]Part, len(c.w.table))
	for i, s := range c.w.table {
		parts[i] = Part{Segment: s.id, Range: s.keys}
	}
	c.do(Located{Thread: l.Thread, Parts: parts})
}

// open begins a flow at one of the segment's replicas that has it.
func (c *client) open(o Open) {
	var at []*replica
	if s := c.w.find(o.Segment); s != nil {
		at = slices.DeleteFunc(slices.Clone(s.replicas[:]), func(r *replica) bool { return r == nil })
	}
	if len(at) == 0 {
		c.w.post(func() { c.do(Broke{o.Request.ID}) })
		return
	}
	switch {
	case c.w.plant == openAtSplit && o.Request.StartRevision > 2:
		o.Request.StartRevision--
	case c.w.plant == openBeyond:
		o.Request.StartRevision++
	}
	p := c.pipe(at[c.w.rng.IntN(len(at))])
	c.threads[o.Request.ID] = p
	if _, _, err := p.stream.Create(never, o.Request); err != nil {
		c.w.post(func() { c.do(Broke{o.Request.ID}) })
	}
}

func (c *client) pipe(r *replica) *pipe {
	for _, p := range c.pipes {
		if p.replica == r && !p.dead {
			return p
		}
	}
	p := &pipe{replica: r, stream: r.hub.NewStream()}
	c.pipes = append(c.pipes, p)
	return p
}

// pull takes one response from a hub's stream to the wire.
func (p *pipe) pull(c *client) bool {
	r, err := p.stream.Next(never)
	if err != nil {
		return false
	}
	if p.replica.node == 1 { // another node's: what it brings was decoded
		for i, ev := range r.Events {
			r.Events[i] = watch.Received(ev.Revision(), ev.Sub(), ev.Field(r.PrevKV), r.PrevKV)
		}
	}
	p.queue = append(p.queue, r)
	return true
}

// push takes one response from the wire to the weave.
func (p *pipe) push(c *client) bool {
	if len(p.queue) == 0 {
		return false
	}
	r := p.queue[0]
	p.queue = p.queue[1:]
	if c.threads[r.ID] == p {
		if r.Canceled {
			delete(c.threads, r.ID)
		}
		t := c.weave.threads[r.ID]
		c.do(Came{r})
		if c.w.plant == eventsHear && t != nil {
			t.heard = max(t.heard, t.closed)
		}
	}
	return true
}

// kill breaks a pipe without a word.
func (p *pipe) kill(c *client) {
	p.dead = true
	p.stream.Close()
	c.pipes = slices.DeleteFunc(c.pipes, func(q *pipe) bool { return q == p })
	var lost []int64
	for id, q := range c.threads {
		if q == p {
			lost = append(lost, id)
		}
	}
	slices.Sort(lost)
	for _, id := range lost {
		delete(c.threads, id)
		c.do(Broke{id})
	}
}

// seen is one watch as its client knows it.
type seen struct {
	id        int64
	req       Create
	start     int64 // first revision wanted, once created
	sent      int   // step in which Created was sent
	created   bool  // and read
	stillborn bool  // ended before it was created
	over      bool
	compact   int64
	reason    error
	cancel    bool // the client cancelled it
	leader    bool // its keys had no leader
	events    []*mvccpb.Event
	last      int64 // highest revision of an event
	response  int   // that brought it
	progress  int64
}

func (c *client) create() {
	r := Create{RequireLeader: c.w.rng.IntN(3) == 0}
	a, b := c.w.rng.IntN(len(letters)+1), c.w.rng.IntN(len(letters)+1)
	switch {
	case c.w.rng.IntN(3) == 0:
	case a == b:
		r.Range = anchormesh.RequestRange([]byte{letters[a%len(letters)]}, nil)
	default:
		bound := func(i int) []byte { return []byte{byte('a' + i)} }
		r.Range = anchormesh.KeyRange{Start: bound(min(a, b)), End: bound(max(a, b))}
	}
	r.PrevKV, r.ProgressNotify = c.w.rng.IntN(2) == 0, c.w.rng.IntN(3) == 0
	if c.w.rng.IntN(2) == 0 {
		r.StartRevision = 1 + c.w.rng.Int64N(c.w.line+3)
	}
	id, err := c.weave.Pick(0)
	if err != nil {
		panic(err)
	}
	r.ID = id
	s := &seen{id: id, req: r}
	c.watches[id] = s
	c.all = append(c.all, s)
	c.creates = append(c.creates, s)
	c.w.stats["watches"]++
	c.do(r)
}

// read takes one response and checks what can be checked at once.
func (c *client) read() bool {
	if len(c.out) == 0 {
		return false
	}
	r := c.out[0]
	c.out = c.out[1:]
	c.got++
	if err := c.take(r); err != nil {
		c.w.fail("client %d: %w", c.id, err)
	}
	return true
}

func (c *client) take(r watch.Response) error {
	if r.ID == watch.StreamID {
		if r.Revision < c.bound[0] {
			return fmt.Errorf("Bookmarkable: progress at %d, but %d was shown before the request", r.Revision, c.bound[0])
		}
		c.bound = c.bound[1:]
		for _, s := range c.all {
			if s.created && !s.over {
				if err := s.bookmark(r.Revision); err != nil {
					return err
				}
			}
		}
		return nil
	}
	s := c.watches[r.ID]
	switch {
	case s == nil || s.over:
		return fmt.Errorf("response for watch %d, which is over", r.ID)
	case r.Created:
		if c.creates[0] != s {
			return fmt.Errorf("watch %d was created before %d", r.ID, c.creates[0].id)
		}
		c.creates = c.creates[1:]
		s.created = true
		if s.start = s.req.StartRevision; s.start == 0 {
			s.start = r.Revision + 1
		}
		c.w.answered = max(c.w.answered, r.Revision)
	case !s.created:
		return fmt.Errorf("watch %d: a response before Created", r.ID)
	case r.Canceled:
		s.over, s.compact, s.reason = true, r.CompactRevision, r.Reason
		if r.Reason == ErrPromise {
			return fmt.Errorf("watch %d: %w", r.ID, r.Reason)
		}
	case r.Progress:
		if err := s.bookmark(r.Revision); err != nil {
			return err
		}
	default:
		return s.take(r, c.got)
	}
	return nil
}

func (s *seen) bookmark(rev int64) error {
	if rev < s.progress || rev < s.last || s.req.StartRevision != 0 && rev < s.start {
		return fmt.Errorf("Bookmarkable: progress at %d of a watch from %d behind event %d and progress %d", rev, s.start, s.last, s.progress)
	}
	s.progress = rev
	return nil
}

func (s *seen) take(r watch.Response, response int) error {
	for _, ev := range r.Events {
		rev := ev.Revision()
		switch { // what comes twice inside a response, check sees
		case rev <= s.progress:
			return fmt.Errorf("Bookmarkable: event at %d behind progress at %d", rev, s.progress)
		case rev < s.last:
			return fmt.Errorf("Ordered: event at %d behind %d", rev, s.last)
		case rev == s.last && response != s.response:
			return fmt.Errorf("Atomic: revision %d is in two responses", rev)
		}
		s.last, s.response = rev, response
		var pb mvccpb.Event
		if err := proto.Unmarshal(ev.Message(r.PrevKV), &pb); err != nil {
			return err
		}
		s.events = append(s.events, &pb)
	}
	if r.Revision != s.last {
		return fmt.Errorf("response with events up to %d is at revision %d", s.last, r.Revision)
	}
	return nil
}

// check compares a watch with all that was ever written.
func (s *seen) check(w *world) error {
	got := map[string]bool{}
	for _, ev := range s.events {
		name := fmt.Sprint(ev.Kv.ModRevision, " ", string(ev.Kv.Key))
		wr := w.writes[name]
		switch {
		case got[name]:
			return fmt.Errorf("Unique: %s came twice", name)
		case wr == nil || !s.req.Range.Contains(ev.Kv.Key) || wr.rev < s.start:
			return fmt.Errorf("watch from %d of %v got %s", s.start, s.req.Range, name)
		}
		got[name] = true
		if err := s.previous(w, ev); err != nil {
			return err
		}
	}
	to := s.last // of a watch that is over
	if !s.over {
		to = w.line
	}
	for name, wr := range w.writes {
		if !s.req.Range.Contains([]byte(wr.key)) || !s.created {
			continue
		}
		if wr.rev >= s.start && wr.rev <= to && !got[name] {
			return fmt.Errorf("Reliable: watch %d from %d of %v lacks %s (over %v, sent up to %d)", s.id, s.start, s.req.Range, name, s.over, s.last)
		}
		if s.req.StartRevision == 0 && !s.stillborn && wr.rev < s.start && wr.logged > s.sent {
			return fmt.Errorf("Reliable: watch %d from now at %d of %v, then a write appeared at %d", s.id, s.start, s.req.Range, wr.rev)
		}
	}
	switch {
	case s.over && s.compact == 0 && s.reason != ErrNoLeader && !s.cancel:
		return fmt.Errorf("watch %d ended for nothing: %v", s.id, s.reason)
	case s.reason == ErrNoLeader && (!s.req.RequireLeader || !s.leader):
		return fmt.Errorf("watch %d was cancelled for want of a leader that it does not need", s.id)
	case s.compact != 0 && (s.compact <= max(s.last, s.progress, s.start-1)+1):
		return fmt.Errorf("watch %d, next %d, was cancelled with compact revision %d", s.id, max(s.last, s.progress)+1, s.compact)
	}
	return nil
}

// previous checks prev_kv: what the key had before, or nothing once that may be
// compacted.
func (s *seen) previous(w *world, ev *mvccpb.Event) error {
	if !s.req.PrevKV {
		if ev.PrevKv != nil {
			return fmt.Errorf("PrevKV: came unasked")
		}
		return nil
	}
	best := int64(0)
	for _, wr := range w.writes {
		if wr.key == string(ev.Kv.Key) && wr.rev < ev.Kv.ModRevision {
			best = max(best, wr.rev)
		}
	}
	if got := ev.PrevKv.GetModRevision(); got != best {
		return fmt.Errorf("PrevKV: %s at %d came with %d, want %d", ev.Kv.Key, ev.Kv.ModRevision, got, best)
	}
	return nil
}
