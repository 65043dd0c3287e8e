package weave

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// plant is a fault that a run carries on purpose.
type plant string

const (
	nothing        plant = ""
	markAhead      plant = "a mark overtakes its events"
	markMissing    plant = "marks are lost"
	openAtSplit    plant = "a child is opened at s instead of s+1"
	openBeyond     plant = "a child is opened at s+2"
	toldHoldersAll plant = "the home names only who still holds a stamp"
	toldNobody     plant = "the home names nobody"
	barrierKeeps   plant = "a barrier leaves held stamps alive"
	indexIgnored   plant = "a mark does not wait for the read index"
	noHold         plant = "the hub is not told of prepared transactions"
	noBound        plant = "the hub is not told of splits"
	staleHome      plant = "the home answers with what it told before"
	eventsHear     plant = "an event counts as a barrier"
)

const replicas = 2

// world is a scope: its home, its segments with two replicas each, and clients. One
// goroutine, one seed; what travels is delivered in random order.
type world struct {
	rng      *rand.Rand
	plant    plant
	now      time.Time
	step     int
	line     int64 // highest stamp given out
	toldOnce int64
	stamps   []*stamp
	table    []*segment // live ones, by range
	nextSeg  anchormesh.SegmentID
	bag      []func()
	frontier *Frontier
	clients  []*client
	writes   map[string]*write // by "revision key"
	answered int64             // highest revision that anybody was shown
	limits   watch.Limits
	calm     bool // no more faults, everything is to come to rest
	stats    map[string]int
	broken   error
}

// stamp is a revision that the home gave out for a segment.
type stamp struct {
	rev  int64
	keys anchormesh.KeyRange
	held bool // neither on an entry nor thrown away
}

// write is one event as the oracle knows it.
type write struct {
	rev    int64
	key    string
	logged int // step in which its segment took it
}

type kind int

const (
	writing kind = iota
	preparing
	committing
	splitting
	absorbing
	compacting
)

type entry struct {
	kind   kind
	rev    int64
	p      int64 // stamp of the prepare that this resolves, or is
	events []mvcc.Event
	other  *segment
	keys   anchormesh.KeyRange // what the segment holds afterwards
	right  anchormesh.KeyRange // what the child holds
}

// segment is a log and what its leader knows.
type segment struct {
	id       anchormesh.SegmentID
	keys     anchormesh.KeyRange
	log      []entry
	last     int64
	held     []*stamp
	prepared []int64
	leader   bool
	frozen   bool
	merged   bool
	replicas [replicas]*replica
}

// replica applies a segment's log at its own pace.
type replica struct {
	w       *world
	node    int
	seg     *segment
	applied int
	pending []int64 // prepared and not resolved
	state   history
	hub     *watch.Hub
}

// history is what a replica holds; it implements watch.History.
type history struct {
	keys               anchormesh.KeyRange
	events             []mvcc.Event
	current, compacted int64
}

func (h *history) Revision() (int64, int64) { return h.current, h.compacted }

func (h *history) History(from, to int64, keys anchormesh.KeyRange, maxBytes int) ([]mvcc.Event, int64, error) {
	if from < h.compacted {
		return nil, 0, mvcc.ErrCompacted
	}
	var out []mvcc.Event
	size := 0
	i := sort.Search(len(h.events), func(i int) bool { return h.events[i].Main >= from })
	for _, e := range h.events[i:] {
		if e.Main > to {
			break
		}
		if !keys.Contains(e.KV.Key) {
			continue
		}
		if size >= maxBytes && e.Main != out[len(out)-1].Main {
			return out, e.Main, nil
		}
		size += len(e.KV.Raw)
		out = append(out, e)
	}
	return out, to + 1, nil
}

func (h *history) PrevKV(key []byte, mod int64) (mvcc.KV, bool) {
	for i := len(h.events) - 1; i >= 0; i-- {
		if e := h.events[i]; e.Main < mod && string(e.KV.Key) == string(key) {
			return e.KV, true
		}
	}
	return mvcc.KV{}, false
}

func (h *history) add(events []mvcc.Event) {
	h.events = append(h.events, events...)
	slices.SortStableFunc(h.events, func(a, b mvcc.Event) int { return int(a.Main - b.Main) })
}

// within returns the events of keys.
func (h *history) within(keys anchormesh.KeyRange) (out []mvcc.Event) {
	for _, e := range h.events {
		if keys.Contains(e.KV.Key) {
			out = append(out, e)
		}
	}
	return out
}

var errMoved = errors.New("test: the segment holds other keys, or left")

// never is a context that does not wait.
var never = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newWorld(seed uint64, p plant) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 5)), plant: p, now: time.Unix(0, 0), line: 1, answered: 1,
		writes: map[string]*write{}, stats: map[string]int{},
		frontier: nil, limits: watch.DefaultLimits(),
	}
	pick := func(c ...int) int { return c[w.rng.IntN(len(c))] }
	w.frontier = NewFrontier(pick(1, 2))
	w.limits.QueueBytes, w.limits.StepBytes = pick(200, 1<<20), pick(1, 300, 1<<20)
	w.limits.StreamBytes, w.limits.ResponseBytes = pick(1, 300, 1<<20), pick(1, 100, 1<<20)
	w.limits.StreamControls = 1 << 20
	first := w.newSegment(anchormesh.KeyRange{})
	for i := range first.replicas {
		first.replicas[i] = w.newReplica(first, i, history{current: 1})
	}
	w.table = []*segment{first}
	for range pick(0, 1, 2, 4, 5) {
		w.split(w.table[w.rng.IntN(len(w.table))])
		w.applyAll()
	}
	for i := range 1 + w.rng.IntN(3) {
		w.clients = append(w.clients, w.newClient(uint64(i)))
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

func (w *world) post(f func()) { w.bag = append(w.bag, f) }

func (w *world) newSegment(keys anchormesh.KeyRange) *segment {
	w.nextSeg++
	return &segment{id: w.nextSeg, keys: keys, leader: true, last: 1}
}

func (w *world) newReplica(s *segment, node int, state history) *replica {
	r := &replica{w: w, node: node, seg: s, state: state}
	r.restart()
	return r
}

// restart gives the replica a new hub, as a node that starts does.
func (r *replica) restart() {
	r.hub, _ = watch.NewHub(&r.state, r.w.limits)
	r.hub.Bound(r.state.keys, errMoved)
	r.hold()
}

func (r *replica) hold() {
	if r.w.plant == noHold {
		return
	}
	if len(r.pending) == 0 {
		r.hub.Hold(0)
		return
	}
	r.hub.Hold(slices.Min(r.pending))
}

// apply applies the next entry.
func (r *replica) apply() bool {
	if r.applied == len(r.seg.log) {
		return false
	}
	e := r.seg.log[r.applied]
	if e.kind == absorbing && (e.other.replicas[r.node] == nil || e.other.replicas[r.node].applied < len(e.other.log)) {
		return false
	}
	r.applied++
	switch e.kind {
	case writing, committing:
		r.state.add(e.events)
		r.state.current = max(r.state.current, e.rev)
		if len(e.events) > 0 {
			r.hub.Publish(slices.Clone(e.events), r.state.current)
		}
		r.pending = slices.DeleteFunc(r.pending, func(p int64) bool { return p == e.p })
		r.hold()
	case preparing:
		r.pending = append(r.pending, e.p)
		r.hold()
	case splitting:
		child := history{keys: e.right, events: r.state.within(e.right), current: r.state.current, compacted: r.state.compacted}
		if r.w.plant != noBound {
			r.hub.Bound(e.keys, errMoved)
		}
		r.state.keys, r.state.events = e.keys, r.state.within(e.keys)
		e.other.replicas[r.node] = r.w.newReplica(e.other, r.node, child)
	case absorbing:
		right := e.other.replicas[r.node]
		r.state.keys = e.keys
		r.state.current = max(r.state.current, right.state.current)
		r.state.compacted = max(r.state.compacted, right.state.compacted)
		r.state.add(right.state.events)
		r.hub.Bound(e.keys, errMoved)
		right.hub.Stop(errMoved)
		r.w.post(func() { right.turn() })
	case compacting:
		r.state.compacted = max(r.state.compacted, e.rev)
	}
	return true
}

// applyAll lets every replica apply everything.
func (w *world) applyAll() {
	for more := true; more; {
		more = false
		for _, s := range w.table {
			for _, r := range s.replicas {
				more = more || r != nil && r.apply()
			}
		}
	}
}

// stamp is the home giving out a revision for a segment.
func (w *world) stamp(segs ...*segment) (out []*stamp) {
	w.line += 1 + w.rng.Int64N(2)
	for _, s := range segs {
		st := &stamp{rev: w.line, keys: s.keys, held: true}
		w.stamps = append(w.stamps, st)
		out = append(out, st)
	}
	return out
}

// tell is the home answering a question.
func (w *world) tell(q Question) {
	revision := w.line
	if w.plant == staleHome && w.toldOnce > 0 && w.rng.IntN(4) == 0 {
		revision = w.toldOnce
	}
	w.toldOnce = revision
	var named []anchormesh.KeyRange
	for _, s := range w.stamps {
		got := s.rev > q.Since
		if w.plant == toldHoldersAll {
			got = s.held
		}
		if s.rev <= revision && got && w.plant != toldNobody {
			named = append(named, s.keys)
		}
	}
	if w.rng.IntN(20) == 0 && w.plant == nothing {
		named = []anchormesh.KeyRange{{}} // a home that has forgotten says "all"
	}
	w.post(func() { // the answer travels
		tell, next, ok := w.frontier.Answer(q, revision, named)
		for _, t := range tell {
			w.clients[t.Weave].do(t.Told)
		}
		if ok {
			w.post(func() { w.tell(next) })
		}
	})
}

// bar is the leader of a segment answering a barrier.
func (w *world) bar(b Bar) {
	s := w.find(b.Segment)
	if s == nil {
		w.stats["barriers without segment"]++
		w.frontier.Left(b.Segment)
		return
	}
	blocked := slices.ContainsFunc(s.prepared, func(p int64) bool { return p <= b.Revision })
	if !s.leader || blocked {
		w.post(func() { w.bar(b) })
		return
	}
	if w.plant != barrierKeeps {
		for _, st := range s.held {
			if st.rev <= b.Revision {
				st.held = false
			}
		}
	}
	index := len(s.log)
	w.post(func() {
		marks, next, ok := w.frontier.Barred(b)
		for _, m := range marks {
			for _, t := range m.Threads {
				w.mark(w.clients[m.Weave], t, m.Revision, index)
			}
		}
		if ok {
			w.post(func() { w.bar(next) })
		}
	})
}

// mark puts a mark on a thread once its replica applied the read index.
func (w *world) mark(c *client, thread, revision int64, index int) {
	p := c.threads[thread]
	switch {
	case p == nil || p.dead:
	case p.replica.applied < index && w.plant != indexIgnored:
		w.post(func() { w.mark(c, thread, revision, index) })
	case w.plant == markMissing && w.rng.IntN(4) == 0:
	case w.plant == markAhead:
		c.do(Came{watch.Response{ID: thread, Revision: revision, Mark: true}})
	default:
		w.stats["marks"]++
		p.stream.Mark(revision, thread)
	}
}

func (w *world) find(id anchormesh.SegmentID) *segment {
	for _, s := range w.table {
		if s.id == id && !s.merged {
			return s
		}
	}
	return nil
}

// event makes a write of key at rev.
func (w *world) event(key string, rev int64) mvcc.Event {
	raw, err := proto.Marshal(&mvccpb.KeyValue{Key: []byte(key), Value: []byte("v"), CreateRevision: 1, ModRevision: rev})
	if err != nil {
		panic(err)
	}
	return mvcc.Event{KV: mvcc.KV{Key: []byte(key), Create: 1, Mod: rev, Raw: raw}, Main: rev}
}

// append appends an entry and tells the oracle of its events.
func (s *segment) append(w *world, e entry) {
	s.log = append(s.log, e)
	if e.kind != compacting {
		s.last = max(s.last, e.rev, e.p)
	}
	for _, ev := range e.events {
		wr := &write{rev: ev.Main, key: string(ev.KV.Key), logged: w.step}
		w.writes[fmt.Sprint(wr.rev, " ", wr.key)] = wr
	}
	if len(e.events) > 0 {
		w.post(func() { w.answered = max(w.answered, e.rev) })
	}
}

var letters = "abcdefghijklmnopqr"

// keysOf lists the plain keys of a segment.
func keysOf(s *segment) (out []string) {
	for _, l := range letters {
		if k := string(l); s.keys.Contains([]byte(k)) {
			out = append(out, k)
		}
	}
	return out
}

func (w *world) write() {
	s := w.table[w.rng.IntN(len(w.table))]
	keys := keysOf(s)
	if len(keys) == 0 || s.frozen {
		return
	}
	st := w.stamp(s)[0]
	s.held = append(s.held, st)
	w.post(func() {
		defer func() { st.held = false }()
		if !st.held || s.merged || s.frozen || !s.leader || st.rev <= s.last {
			w.stats["stamps thrown away"]++
			return
		}
		e := entry{kind: writing, rev: st.rev}
		for _, i := range w.rng.Perm(len(keys))[:1+w.rng.IntN(min(3, len(keys)))] {
			if s.keys.Contains([]byte(keys[i])) {
				e.events = append(e.events, w.event(keys[i], st.rev))
			}
		}
		if len(e.events) > 0 {
			s.append(w, e)
			w.stats["writes"]++
		}
	})
}

// txn is a transaction over two segments, on keys that no other write touches.
func (w *world) txn() {
	i, j := w.rng.IntN(len(w.table)), w.rng.IntN(len(w.table))
	a, b := w.table[i], w.table[j]
	if i == j || a.frozen || b.frozen || len(keysOf(a)) == 0 || len(keysOf(b)) == 0 {
		return
	}
	parts := []*segment{a, b}
	prepared := map[*segment]int64{}
	voted := 0
	for _, s := range parts {
		st := w.stamp(s)[0]
		s.held = append(s.held, st)
		w.post(func() {
			if voted++; st.held && !s.frozen && !s.merged && s.leader && st.rev > s.last {
				prepared[s] = st.rev
				s.prepared = append(s.prepared, st.rev)
				s.append(w, entry{kind: preparing, p: st.rev})
			}
			st.held = false
			if voted == len(parts) {
				w.decide(parts, prepared)
			}
		})
	}
}

func (w *world) decide(parts []*segment, prepared map[*segment]int64) {
	commit, number := len(prepared) == len(parts), int64(0)
	if commit {
		w.stamp() // a bare one, for no segment
		number = w.line
		w.stats["transactions"]++
	}
	for _, s := range parts {
		p, ok := prepared[s]
		if !ok {
			continue
		}
		w.post(func() {
			e := entry{kind: committing, p: p}
			if commit {
				e.rev = number
				e.events = []mvcc.Event{w.event(keysOf(s)[0]+"/txn", e.rev)}
			}
			s.prepared = slices.DeleteFunc(s.prepared, func(q int64) bool { return q == p })
			s.append(w, e)
		})
	}
}

// drop throws away the stamps of a segment whose generation ends.
func (s *segment) drop() {
	for _, st := range s.held {
		st.held = false
	}
	s.held = nil
}

func (w *world) split(s *segment) {
	keys := keysOf(s)
	if len(keys) < 2 || len(s.prepared) > 0 || s.frozen || !s.leader {
		return
	}
	at := []byte(keys[1+w.rng.IntN(len(keys)-1)])
	s.drop()
	child := w.newSegment(anchormesh.KeyRange{Start: at, End: s.keys.End})
	child.last = s.last
	s.keys = anchormesh.KeyRange{Start: s.keys.Start, End: at}
	s.append(w, entry{kind: splitting, other: child, keys: s.keys, right: child.keys})
	i := slices.Index(w.table, s)
	w.table = slices.Insert(w.table, i+1, child)
	w.stats["splits"]++
}

// merge freezes the right neighbour of a segment; when all its replicas have caught
// up, the left absorbs it.
func (w *world) merge() {
	i := w.rng.IntN(len(w.table))
	if i+1 >= len(w.table) {
		return
	}
	left, right := w.table[i], w.table[i+1]
	if left.frozen || right.frozen || len(left.prepared) > 0 || len(right.prepared) > 0 {
		return
	}
	left.frozen, right.frozen = true, true
	left.drop()
	right.drop()
	var try func()
	try = func() {
		for _, r := range right.replicas {
			if r == nil || r.applied < len(right.log) {
				w.post(try)
				return
			}
		}
		right.merged, left.frozen = true, false
		left.keys.End = right.keys.End
		left.last = max(left.last, right.last)
		left.append(w, entry{kind: absorbing, other: right, keys: left.keys})
		w.table = slices.DeleteFunc(w.table, func(s *segment) bool { return s == right })
		w.stats["merges"]++
	}
	w.post(try)
}

func (w *world) compact() {
	rev := 1 + w.rng.Int64N(w.line)
	for _, s := range w.table {
		s.append(w, entry{kind: compacting, rev: rev})
	}
	w.stats["compactions"]++
}

// replicas of live segments, in order.
func (w *world) replicas() (out []*replica) {
	for _, s := range w.table {
		for _, r := range s.replicas {
			if r != nil {
				out = append(out, r)
			}
		}
	}
	return out
}

func (r *replica) turn() bool {
	next, over, err := r.hub.Step(r.w.now)
	if err != nil {
		r.w.fail("hub of segment %d: %v", r.seg.id, err)
	}
	return !over && next.Equal(r.w.now)
}
