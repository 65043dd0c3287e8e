package watches

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// pause is how long a thread that ended waits before it goes back to where it was: the
// route, or a replica, is about to be known.
const pause = 5 * time.Millisecond

// absentMax is how long the replica of a segment whose descriptor names this node is
// waited for: a child begins when its parent's cut is on disk.
const absentMax = time.Second

// unreadMax is how many Created responses may be owed to the client before Create
// waits.
const unreadMax = 1024

// woven serves the watches of one client stream in a scope that was split. It is the
// shell of a weave.
type woven struct {
	watches *Watches
	at      map[*frontier]uint64 // those asked so far, and the name there
	in      *inlets

	mu      sync.Mutex
	core    *weave.Weave
	todo    []weave.Event
	out     []watch.Response
	unread  int           // Created responses that the client has not read
	room    chan struct{} // non-nil while a Create waits; closed when it may go on
	closed  bool
	silent  map[int64]bool // watches whose Created the client has had from somebody else
	local   *flows
	remote  map[anchormesh.NodeID]*remote
	threads map[int64]*thread
	located map[anchormesh.SegmentID]struct{} // segments that threads were sent to
	tick    time.Time                         // when the weave wants to know the time
	later   []delayed
}

// thread is where a thread of the weave was opened.
type thread struct {
	segment    anchormesh.SegmentID
	keys       anchormesh.KeyRange
	generation anchormesh.Generation
	marked     bool   // a barrier was answered,
	line       string // on this line
	over       bool   // it ended, and is to be located anew
	here       bool   // its source is on this node
	remote     *remote
	wanted     int64     // a barrier was wanted before the source was known
	asked      time.Time // when its segment was first looked for on this node, in vain
}

// delayed is something to do later.
type delayed struct {
	at time.Time
	do func()
}

func newWoven(w *Watches, in *inlets) *woven {
	limits := weave.DefaultLimits()
	limits.ProgressInterval = w.cfg.ProgressInterval
	core, err := weave.New(limits)
	if err != nil {
		panic("watches: limits were not validated: " + err.Error())
	}
	o := &woven{
		watches: w, at: make(map[*frontier]uint64), in: in, core: core, located: make(map[anchormesh.SegmentID]struct{}),
		silent: make(map[int64]bool), local: newFlows(w.host, in),
		remote: make(map[anchormesh.NodeID]*remote), threads: make(map[int64]*thread),
	}
	return o
}

// frontier returns the one of the lines that the threads are on now, as far as this node
// knows, and the name of this weave there.
func (o *woven) frontier() (*frontier, uint64) {
	var on []*anchormesh.Descriptor
	for id := range o.located {
		if d, ok := o.watches.table.Segment(id); ok {
			on = append(on, d)
		} else {
			delete(o.located, id)
		}
	}
	lines := stamps.LinesOf(on)
	if len(lines) == 0 {
		lines = [][]byte{nil} // the segments are just becoming others: the root's is always there
	}
	f := o.watches.frontier(lines, len(lines) > 1)
	id, joined := o.at[f]
	if !joined {
		id = f.join(o)
		o.at[f] = id
	}
	return f, id
}

// create begins a watch.
func (o *woven) create(ctx context.Context, r watch.Request) (id int64, err error) {
	if r.Range.Empty() {
		return 0, watch.ErrEmptyRange
	}
	if r.StartRevision < 0 {
		return 0, watch.ErrStartRevision
	}
	if err := o.lockWithRoom(ctx); err != nil {
		return 0, err
	}
	defer o.mu.Unlock()
	if r.ID, err = o.core.Pick(r.ID); err != nil {
		return 0, err
	}
	o.unread++
	o.step(weave.Create{Request: r})
	o.in.nudge()
	return r.ID, nil
}

// adopt goes on with a watch that the client has had from somebody else.
func (o *woven) adopt(r watch.Request, resumed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.silent[r.ID] = true
	o.step(weave.Create{Request: r, Resumed: resumed})
	o.in.nudge()
}

// skip keeps away from the IDs below floor, which the stream before has given.
func (o *woven) skip(floor int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.core.Skip(floor)
}

// lockWithRoom waits until the client has read enough, and locks.
func (o *woven) lockWithRoom(ctx context.Context) error {
	for {
		o.mu.Lock()
		switch {
		case o.closed:
			o.mu.Unlock()
			return watch.ErrStreamClosed
		case o.unread < unreadMax:
			return nil
		case o.room == nil:
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *woven) cancel(id int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || !o.core.Has(id) {
		return false
	}
	o.step(weave.Cancel{ID: id})
	o.in.nudge()
	return true
}

func (o *woven) requestProgress() { o.take(weave.Progress{}) }

// told implements member.
//
// A home knows nothing of keys that are on another line. Those are asked: the line of a
// thread is that of its last mark, and a hand-over gives its keys a number of the outer line.
func (o *woven) told(t weave.Told, lines [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	asked := make(map[string]bool, len(lines))
	for _, line := range lines {
		asked[string(line)] = true
	}
	ranges := t.Ranges[:len(t.Ranges):len(t.Ranges)]
	for _, th := range o.threads {
		if th.marked && !asked[th.line] {
			ranges = append(ranges, th.keys)
		}
	}
	t.Ranges = ranges
	o.step(t)
	o.in.nudge()
}

func (o *woven) take(ev weave.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.step(ev)
		o.in.nudge()
	}
}

// mark implements member.
func (o *woven) mark(on *anchormesh.Descriptor, revision int64, threads []int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range threads {
		o.tag(id, string(on.Line))
	}
	o.local.mark(on.Segment, on.Range, revision, threads)
}

// poll returns the next response for the client, or when to come again without being
// woken; zero is never. While the client does not read, nothing is read from the
// sources either: hubs let its watches lag.
func (o *woven) poll(now time.Time) (r watch.Response, ok bool, next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.due(now)
	for len(o.out) == 0 {
		ev, more := o.in.next()
		if !more {
			break
		}
		o.step(ev)
	}
	if len(o.out) > 0 {
		return o.pop(), true, next
	}
	next = o.tick
	for _, d := range o.later {
		if next.IsZero() || d.at.Before(next) {
			next = d.at
		}
	}
	return r, false, next
}

func (o *woven) pop() watch.Response {
	r := o.out[0]
	o.out[0] = watch.Response{}
	if o.out = o.out[1:]; len(o.out) == 0 {
		o.out = nil
	}
	if r.Created {
		o.unread--
		if o.room != nil && o.unread <= unreadMax/2 {
			close(o.room)
			o.room = nil
		}
	}
	return r
}

// due does what was put off.
func (o *woven) due(now time.Time) {
	if !o.tick.IsZero() && !now.Before(o.tick) {
		o.step(weave.Tick{})
	}
	if len(o.later) == 0 {
		return
	}
	all := o.later
	o.later = nil
	for _, d := range all {
		if now.Before(d.at) {
			o.later = append(o.later, d)
		} else {
			d.do()
		}
	}
}

func (o *woven) delay(do func()) {
	o.later = append(o.later, delayed{time.Now().Add(pause), do})
	o.in.nudge()
}

// tag notes on which line a thread has been marked.
func (o *woven) tag(id int64, line string) {
	if t := o.threads[id]; t != nil {
		t.marked, t.line = true, line
	}
}

// step gives the weave an event, and those that follow from it at once.
func (o *woven) step(ev weave.Event) {
	o.todo = append(o.todo, ev)
	if len(o.todo) > 1 {
		return // from inside a step
	}
	for ; len(o.todo) > 0; o.todo = o.todo[1:] {
		if m, ok := o.todo[0].(marked); ok {
			o.tag(m.ID, m.line)
			o.todo[0] = m.Came
		}
		switch ev := o.todo[0].(type) {
		case weave.Came:
			if ev.Canceled {
				o.over(ev.ID)
			}
		case weave.Broke:
			o.over(ev.Thread)
		}
		o.carryOut(o.core.Step(time.Now(), o.todo[0]))
	}
	o.todo = nil
}

func (o *woven) over(id int64) {
	if t := o.threads[id]; t != nil {
		t.over = true
	}
}

// carryOut does what the weave wants, in the order of the fields.
func (o *woven) carryOut(fx weave.Effects) {
	for _, r := range fx.Send {
		if r.Created && o.silent[r.ID] {
			delete(o.silent, r.ID)
			continue
		}
		o.out = append(o.out, r)
	}
	for _, id := range fx.Close {
		o.end(id)
	}
	for _, l := range fx.Locate {
		o.locate(l)
	}
	for _, p := range fx.Open {
		o.threads[p.Request.ID] = &thread{segment: p.Segment, keys: p.Request.Range, generation: math.MaxUint64}
		o.open(p)
	}
	for _, b := range fx.Barrier {
		o.barrier(b)
	}
	if fx.Ask != nil {
		f, id := o.frontier()
		f.ask(id, *fx.Ask)
	}
	o.tick = fx.Next
}

func (o *woven) end(id int64) {
	t := o.threads[id]
	if t == nil {
		return
	}
	delete(o.threads, id)
	switch {
	case t.here:
		o.local.cancel(id)
	case t.remote != nil:
		t.remote.cancel(id)
	}
}

// locate answers which segments hold the keys of a thread. One that ended is not sent
// back at once to where it was.
func (o *woven) locate(l weave.Locate) {
	if o.closed {
		return
	}
	parts, whole := o.watches.table.Parts(l.Range)
	t := o.threads[l.Thread]
	delete(o.threads, l.Thread)
	if !whole || t != nil && t.over && t.among(parts) {
		o.delay(func() { o.locate(l) })
		return
	}
	located := weave.Located{Thread: l.Thread}
	for _, p := range parts {
		o.located[p.Descriptor.Segment] = struct{}{}
		located.Parts = append(located.Parts, weave.Part{Segment: p.Descriptor.Segment, Range: p.Range})
	}
	o.step(located)
}

// among reports whether a route leads back to where the thread was.
func (t *thread) among(parts []route.Part) bool {
	for _, p := range parts {
		if d := p.Descriptor; d.Segment == t.segment && d.Generation <= t.generation {
			return true
		}
	}
	return false
}

// open begins a thread at the hub here, or at another node. A segment that has still to
// begin here is waited for.
func (o *woven) open(p weave.Open) {
	t := o.threads[p.Request.ID]
	if t == nil || o.closed {
		return // closed meanwhile
	}
	d, known := o.watches.table.Segment(p.Segment)
	if known {
		t.generation = d.Generation
	}
	switch {
	case o.local.open(p.Segment, p.Request) == nil:
		t.here = true
	case known && o.soon(t, d):
		o.delay(func() { o.open(p) })
		return
	case !known || !o.openAway(t, d, p):
		o.step(weave.Broke{Thread: p.Request.ID})
		return
	}
	if t.wanted != 0 {
		o.barrier(weave.Barrier{Segment: p.Segment, Revision: t.wanted, Threads: []int64{p.Request.ID}})
	}
}

// soon reports whether a segment that is not here may be soon.
func (o *woven) soon(t *thread, d *anchormesh.Descriptor) bool {
	if _, mine := d.AnchorOn(o.watches.cfg.Self); !mine {
		return false
	}
	if t.asked.IsZero() {
		t.asked = time.Now()
	}
	return time.Since(t.asked) < absentMax
}

// openAway begins a thread at another node.
func (o *woven) openAway(t *thread, d *anchormesh.Descriptor, p weave.Open) bool {
	node, ok := o.watches.near(d)
	if !ok {
		return false
	}
	r := o.remote[node]
	if r == nil || r.dead() {
		r = newRemote(o.watches, node, o.in)
		o.remote[node] = r
	}
	t.remote = r
	r.open(p)
	return true
}

// barrier has marks put on threads: by the frontier here, or by the other nodes that
// serve them.
func (o *woven) barrier(b weave.Barrier) {
	var here []int64
	away := make(map[*remote][]int64)
	for _, id := range b.Threads {
		switch t := o.threads[id]; {
		case t == nil:
		case !t.here && t.remote == nil:
			t.wanted = max(t.wanted, b.Revision)
		case t.remote != nil:
			away[t.remote] = append(away[t.remote], id)
		default:
			here = append(here, id)
		}
	}
	if len(here) > 0 {
		f, id := o.frontier()
		f.barrier(id, weave.Barrier{Segment: b.Segment, Revision: b.Revision, Threads: here})
	}
	for r, ids := range away {
		f, _ := o.frontier()
		r.barrier(f.over, weave.Barrier{Segment: b.Segment, Revision: b.Revision, Threads: ids})
	}
}

// close ends everything.
func (o *woven) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	o.local.close()
	for _, r := range o.remote {
		r.close()
	}
	for f, id := range o.at {
		f.leave(id)
	}
}

// pick returns one of the nodes.
func pick(nodes []anchormesh.NodeID) (anchormesh.NodeID, bool) {
	if len(nodes) == 0 {
		return "", false
	}
	return nodes[rand.IntN(len(nodes))], true
}
