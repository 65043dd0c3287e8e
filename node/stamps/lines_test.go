package stamps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/route"
)

// The world of these tests: two segments, "left" (the home) and "right", each led by
// a node of its own, with logs that commit and apply after a while.
const (
	left  anchormesh.SegmentID = 10
	right anchormesh.SegmentID = 20
)

type world struct {
	t     *testing.T
	mu    sync.Mutex
	segs  map[anchormesh.SegmentID]*group
	nodes map[anchormesh.NodeID]*member
	mute  anchormesh.NodeID // takes requests and never answers
}

// group is a segment: who leads it, and what is applied, on all replicas at once.
type group struct {
	desc    *anchormesh.Descriptor
	leader  anchormesh.NodeID
	term    uint64
	window  anchormesh.Revision
	last    anchormesh.Revision
	applied uint64
	writes  []anchormesh.Revision // applied stamps, in order
	log     chan func()           // entries on their way
}

type member struct {
	w     *world
	id    anchormesh.NodeID
	lines *Lines
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, segs: map[anchormesh.SegmentID]*group{}, nodes: map[anchormesh.NodeID]*member{}}
	w.segs[left] = &group{leader: "a", term: 2, last: 100, window: 100, applied: 50, desc: &anchormesh.Descriptor{
		Segment: left, Generation: 2, Range: anchormesh.KeyRange{End: []byte("m")}, Stamped: true}}
	w.segs[right] = &group{leader: "b", term: 2, last: 100, applied: 5, desc: &anchormesh.Descriptor{
		Segment: right, Generation: 2, Range: anchormesh.KeyRange{Start: []byte("m")}, Stamped: true}}
	for _, g := range w.segs {
		g.log = make(chan func(), 1024)
	}
	for _, id := range []anchormesh.NodeID{"a", "b", "c"} {
		m := &member{w: w, id: id}
		table := route.NewTable()
		table.Follow(func(seg anchormesh.SegmentID) anchormesh.NodeID {
			st, _ := m.Status(seg)
			return st.Leader
		})
		for seg, g := range w.segs {
			table.Learn(g.desc)
			table.SetLeader(seg, g.leader)
		}
		cfg := DefaultConfig(id)
		cfg.Commands = Commands{
			Stamp: func(rev anchormesh.Revision, c []byte) []byte {
				return append(binary.BigEndian.AppendUint64([]byte{'s'}, uint64(rev)), c...)
			},
			Window: func(v anchormesh.Revision) []byte { return binary.BigEndian.AppendUint64([]byte{'w'}, uint64(v)) },
		}
		m.lines = New(cfg, m, m, table, m)
		w.nodes[id] = m
	}
	return w
}

// run runs the nodes' lines until ctx ends, and makes the leaders lead.
func (w *world) run(ctx context.Context) (join func()) {
	var wg sync.WaitGroup
	for _, m := range w.nodes {
		wg.Go(func() { _ = m.lines.Run(ctx) })
	}
	for seg, g := range w.segs {
		st, _ := w.nodes[g.leader].Status(seg)
		w.nodes[g.leader].lines.StatusChanged(seg, st)
	}
	var logs sync.WaitGroup
	for _, g := range w.segs {
		logs.Go(func() {
			for apply := range g.log {
				delay()
				apply()
			}
		})
	}
	return func() {
		wg.Wait()
		for _, g := range w.segs {
			close(g.log)
		}
		logs.Wait()
		time.Sleep(time.Second) // rounds that are under way end, too
	}
}

// lead makes another node the leader of a segment and tells both.
func (w *world) lead(seg anchormesh.SegmentID, who anchormesh.NodeID) {
	w.mu.Lock()
	g := w.segs[seg]
	was := g.leader
	g.leader, g.term = who, g.term+1
	w.mu.Unlock()
	for _, id := range []anchormesh.NodeID{was, who} {
		st, _ := w.nodes[id].Status(seg)
		w.nodes[id].lines.StatusChanged(seg, st)
	}
}

func delay() { time.Sleep(time.Duration(1+rand.IntN(3)) * time.Millisecond) }

// Counts implements Segments.
func (m *member) Counts(anchormesh.SegmentID) bool { return false }

// Submit implements Engine: entries of a segment are applied in their order.
func (m *member) Submit(seg anchormesh.SegmentID, p consensus.Proposal) {
	w := m.w
	w.mu.Lock()
	g := w.segs[seg]
	if g.leader != m.id || (p.Term != 0 && p.Term != g.term) {
		w.mu.Unlock()
		p.Done(consensus.Result{Err: consensus.ErrNotLeader})
		return
	}
	w.mu.Unlock()
	g.log <- func() {
		w.mu.Lock()
		g.applied++
		rev := anchormesh.Revision(binary.BigEndian.Uint64(p.Payload[1:]))
		var err error
		switch {
		case p.Generation != g.desc.Generation:
			err = errors.New("another generation")
		case p.Payload[0] == 'w':
			g.window = max(g.window, rev)
			at := w.standing(seg)
			m.lines.Changed(seg, at)
		case rev <= g.last:
			err = errors.New("stamps must grow")
			w.t.Errorf("segment %d: stamp %d behind %d", seg, rev, g.last)
		default:
			for rest := p.Payload[1:]; len(rest) >= 8; rest = rest[8:] { // of a batch, several
				rev = anchormesh.Revision(binary.BigEndian.Uint64(rest))
				if rev <= g.last {
					w.t.Errorf("segment %d: stamp %d of a batch behind %d", seg, rev, g.last)
				}
				g.last = rev
				g.writes = append(g.writes, rev)
			}
		}
		res := consensus.Result{Index: g.applied, Err: err}
		res.Response = p.Payload
		w.mu.Unlock()
		p.Done(res)
	}
}

func (m *member) ReadIndex(seg anchormesh.SegmentID, done func(uint64, error)) {
	go func() {
		delay()
		m.w.mu.Lock()
		index := m.w.segs[seg].applied
		m.w.mu.Unlock()
		done(index, nil)
	}()
}

func (m *member) Status(seg anchormesh.SegmentID) (consensus.Status, bool) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	g := m.w.segs[seg]
	here := func(a anchormesh.Anchor) bool { return a.Node == m.id }
	if len(g.desc.Anchors) > 0 && !slices.ContainsFunc(g.desc.Anchors, here) {
		return consensus.Status{}, false
	}
	st := consensus.Status{Replica: 1, Leader: g.leader, Status: replica.Status{Term: g.term, Leader: 2}}
	if g.leader == m.id {
		st.Status.Leader = 1
	}
	return st, true
}

func (m *member) Seek(anchormesh.SegmentID) {}

func (m *member) Standing(seg anchormesh.SegmentID) (Standing, bool) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return m.w.standing(seg), true
}

func (w *world) standing(seg anchormesh.SegmentID) Standing {
	g := w.segs[seg]
	return Standing{
		Descriptor: g.desc, Line: line.ID(left), Window: g.window, Last: g.last, Applied: g.applied, Term: g.term,
	}
}

// Connected implements Caller.
func (m *member) Connected(anchormesh.NodeID) bool { return true }

// Call implements Caller.
func (m *member) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	delay()
	m.w.mu.Lock()
	mute := m.w.mute == to
	m.w.mu.Unlock()
	if mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a := &answerer{done: make(chan struct{})}
	m.w.nodes[to].lines.Serve(m.id, parts[0], wire.NewResponder(a, 1, time.Time{}))
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	delay()
	if a.code != 0 {
		return nil, &mesh.RemoteError{Code: a.code, Text: string(a.body)}
	}
	return a.body, nil
}

type answerer struct {
	code uint16
	body []byte
	done chan struct{}
}

func (a *answerer) Answer(_ uint64, code uint16, payload [][]byte) {
	a.code = code
	for _, p := range payload {
		a.body = append(a.body, p...)
	}
	close(a.done)
}

// write writes through the segment's leader and returns the stamp.
func (w *world) write(seg anchormesh.SegmentID) (anchormesh.Revision, error) {
	w.mu.Lock()
	g := w.segs[seg]
	lines, desc := w.nodes[g.leader].lines, g.desc
	w.mu.Unlock()
	done := make(chan consensus.Result, 1)
	lines.Propose(desc, []byte("x"), func(r consensus.Result) { done <- r })
	res := <-done
	if res.Err != nil {
		return 0, res.Err
	}
	return anchormesh.Revision(binary.BigEndian.Uint64(res.Response[1:])), nil
}

// writeBatch writes three at once, and returns the last stamp.
func (w *world) writeBatch(seg anchormesh.SegmentID) (anchormesh.Revision, error) {
	w.mu.Lock()
	g := w.segs[seg]
	lines, desc := w.nodes[g.leader].lines, g.desc
	w.mu.Unlock()
	var got []anchormesh.Revision
	done := make(chan consensus.Result, 1)
	payload := func(stamps []anchormesh.Revision) []byte {
		got = slices.Clone(stamps)
		b := []byte{'b'}
		for _, s := range stamps {
			b = binary.BigEndian.AppendUint64(b, uint64(s))
		}
		return b
	}
	lines.ProposeBatch(desc, 3, payload, func(r consensus.Result) { done <- r })
	res := <-done
	if res.Err != nil {
		return 0, res.Err
	}
	if len(got) != 3 || !slices.IsSorted(got) {
		w.t.Errorf("a batch of three got the stamps %v", got)
	}
	return got[2], nil
}

// The home's leader falls silent with a question of a node whose replica soon follows
// another one: what waits for the answer, and all behind it, goes on then.
func TestAQuestionToASilentHomeEndsWhenAnotherLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		written := func() error {
			_, err := w.write(right)
			for ; errors.Is(err, consensus.ErrNotLeader); _, err = w.write(right) {
				delay()
			}
			return err
		}
		if err := written(); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.mute = "a"
		w.mu.Unlock()
		begun := time.Now()
		time.AfterFunc(100*time.Millisecond, func() { w.lead(left, "c") })
		if err := written(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 100*time.Millisecond || took > 700*time.Millisecond {
			t.Errorf("a write waited for %v", took)
		}
		cancel()
		join()
	})
}

// Nobody tells a node without a replica of the home who leads it. It asks the voters,
// who know, and does not go on asking one that leads no more.
func TestHomeIsFoundWithoutReplicaAndHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.segs[left].desc.Anchors = []anchormesh.Anchor{
			{Node: "c", Replica: 1, Role: anchormesh.Voter}, {Node: "a", Replica: 2, Role: anchormesh.Voter},
		}
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		b := w.nodes["b"].lines
		for _, hint := range []anchormesh.NodeID{"", "c", "b"} {
			for range 4 { // wherever the turn begins
				b.table.SetLeader(left, hint)
				_, err := w.write(right)
				for ; errors.Is(err, consensus.ErrNotLeader); _, err = w.write(right) {
					delay() // the term has just begun
				}
				if err != nil {
					t.Errorf("a write with hint %q: %v", hint, err)
				}
				if known, _ := b.table.Leader(left); known != "a" {
					t.Errorf("after a write with hint %q the leader is believed to be %q", hint, known)
				}
			}
			b.table.SetLeader(left, hint)
			var err error
			for range 3 { // the caller tries again
				if _, err = b.Barrier(ctx, w.segs[left].desc, 90); err == nil {
					break
				}
			}
			if err != nil {
				t.Errorf("a barrier with hint %q: %v", hint, err)
			}
		}
		cancel()
		join()
	})
}

// Writers on both segments and readers of both: stamps are unique and follow real
// time, and a read at T has all that was acknowledged before it began, and nothing
// at or below T comes later.
func TestWritesAndReadsOfTwoSegmentsShareOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		var mu sync.Mutex
		acked := map[anchormesh.Revision]bool{}
		newest := anchormesh.Revision(0)
		var writers, readers sync.WaitGroup
		for i := range 8 {
			seg := []anchormesh.SegmentID{left, right}[i%2]
			writers.Go(func() {
				for range 40 {
					mu.Lock()
					before := newest
					mu.Unlock()
					write := w.write
					if i >= 6 {
						write = w.writeBatch
					}
					rev, err := write(seg)
					if errors.Is(err, consensus.ErrNotLeader) || errors.Is(err, consensus.ErrDropped) {
						delay()
						continue
					}
					mu.Lock()
					switch {
					case err != nil:
						t.Error(err)
					case acked[rev]:
						t.Errorf("revision %d was given twice", rev)
					case rev <= before:
						t.Errorf("a write that began after revision %d was acknowledged got %d", before, rev)
					}
					acked[rev] = true
					newest = max(newest, rev)
					mu.Unlock()
				}
			})
		}
		for _, id := range []anchormesh.NodeID{"a", "b"} {
			readers.Go(func() {
				for range 30 {
					mu.Lock()
					before := newest
					mu.Unlock()
					if err := w.read(ctx, id, before); err != nil && !Retry(err) {
						t.Error(err)
					}
					delay()
				}
			})
		}
		writers.Wait()
		readers.Wait()
		if len(acked) < 100 {
			t.Errorf("only %d writes were acknowledged", len(acked))
		}
		cancel()
		join()
	})
}

// read reads both segments at one T.
func (w *world) read(ctx context.Context, from anchormesh.NodeID, before anchormesh.Revision) error {
	lines := w.nodes[from].lines
	at, err := lines.Now(ctx, nil)
	if err != nil {
		return err
	}
	if at < before {
		return fmt.Errorf("%w: T is %d, %d was acknowledged before", errMalformed, at, before)
	}
	for _, seg := range []anchormesh.SegmentID{left, right} {
		w.mu.Lock()
		desc := w.segs[seg].desc
		w.mu.Unlock()
		if _, err := lines.Barrier(ctx, desc, at); err != nil {
			return err
		}
		below := w.below(seg, at)
		time.Sleep(20 * time.Millisecond)
		if later := w.below(seg, at); later != below {
			return fmt.Errorf("%w: segment %d had %d writes up to %d behind a barrier, later %d", errMalformed, seg, below, at, later)
		}
	}
	return nil
}

func (w *world) below(seg anchormesh.SegmentID, t anchormesh.Revision) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, rev := range w.segs[seg].writes {
		if rev <= t {
			n++
		}
	}
	return n
}

// What waits ends when the node stops, and what comes later is refused.
func TestStopEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		synctest.Wait()
		w.nodes["a"].lines.mu.Lock() // holds Run up, so that all of this waits
		done := make(chan error, 3)
		go func() { _, err := w.write(left); done <- err }()
		go func() { _, err := w.nodes["a"].lines.Now(context.Background(), nil); done <- err }()
		go func() {
			_, err := w.nodes["a"].lines.Barrier(context.Background(), w.segs[left].desc, 90)
			done <- err
		}()
		cancel()
		w.nodes["a"].lines.mu.Unlock()
		for range 3 {
			<-done // with or without an error: but it ends
		}
		join()
		if _, err := w.write(left); !errors.Is(err, consensus.ErrStopped) {
			t.Errorf("a write behind the stop ended with %v", err)
		}
	})
}

// A home that cannot be reached is an error that took effect nowhere, not a wait.
func TestNoHomeIsARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		b := w.nodes["b"].lines
		lead := func(who anchormesh.NodeID) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.segs[left].leader = who
		}
		b.table.SetLeader(left, "")
		lead("")
		if _, err := b.Now(ctx, nil); !Retry(err) {
			t.Errorf("without a home: %v", err)
		}
		lead("a")
		time.Sleep(50 * time.Millisecond)
		if at, err := b.Now(ctx, nil); err != nil || at < 100 {
			t.Errorf("with the home back: %d, %v", at, err)
		}
		cancel()
		join()
	})
}

func FuzzServe(f *testing.F) {
	f.Add(appendRequest([]byte{askNumbers}, &line.Request{Line: 1, Segment: 10, Asks: []line.Ask{{Segment: 20, Count: 3}}, Since: []anchormesh.Revision{7}}))
	f.Add(appendBarrier([]byte{askBarrier}, &line.Barrier{Line: 1, Segment: 10, Generation: 3, T: 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		if req, err := parseRequest(b[1:]); err == nil {
			again, err := parseRequest(appendRequest(nil, &req))
			if err != nil || fmt.Sprint(again) != fmt.Sprint(req) {
				t.Errorf("%+v comes back as %+v, %v", req, again, err)
			}
		}
		if a, err := parseAnswer(b[1:]); err == nil {
			again, err := parseAnswer(appendAnswer(nil, &a))
			if err != nil || fmt.Sprint(again) != fmt.Sprint(a) {
				t.Errorf("%+v comes back as %+v, %v", a, again, err)
			}
		}
		if q, err := parseBarrier(b[1:]); err == nil {
			if again, err := parseBarrier(appendBarrier(nil, &q)); err != nil || again != q {
				t.Errorf("%+v comes back as %+v, %v", q, again, err)
			}
		}
	})
}

// What comes while a new leader is on its way to lead the cores waits for that, and is
// not refused: a refusal costs its client a pause.
func TestWhatComesBeforeTheLeadWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		if _, err := w.write(right); err != nil { // nobody has led anything yet
			t.Errorf("a write: %v", err)
		}
		w.lead(right, "c")
		if _, err := w.nodes["a"].lines.Barrier(ctx, w.segs[right].desc, 90); err != nil {
			t.Errorf("a barrier behind a change of leaders: %v", err)
		}
		w.lead(left, "c")
		w.nodes["a"].lines.table.SetLeader(left, "c")
		if _, err := w.nodes["a"].lines.Now(ctx, nil); err != nil {
			t.Errorf("a question to a new home: %v", err)
		}
		cancel()
		join()
	})
}

// A search that ends with another leader refuses what waited for it.
func TestASearchThatLosesItsTermRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		join := w.run(ctx)
		done := make(chan consensus.Result, 1)
		b := w.nodes["b"].lines
		b.Propose(w.segs[right].desc, []byte("x"), func(r consensus.Result) { done <- r })
		w.lead(right, "c") // b's round is under way
		if res := <-done; !errors.Is(res.Err, consensus.ErrNotLeader) {
			t.Errorf("a write of a leader that was deposed: %v", res.Err)
		}
		if _, err := w.write(right); err != nil {
			t.Errorf("a write through its successor: %v", err)
		}
		cancel()
		join()
	})
}

// A home that refuses rests, but not longer than until the routes change, once.
func TestTheRoutesEndTheHomesRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		b := w.nodes["b"].lines
		b.cfg.Pause = time.Second // far above what messages take
		join := w.run(ctx)
		if _, err := w.write(right); err != nil {
			t.Fatal(err)
		}
		next := w.segs[left].desc.Clone()
		next.Generation++
		next.Changed++
		w.mu.Lock()
		w.segs[left].desc = next
		w.segs[left].applied++
		at := w.standing(left)
		w.mu.Unlock()
		w.nodes["a"].lines.Changed(left, at)
		time.Sleep(time.Millisecond)
		begin := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			b.table.Learn(next)
		}()
		if _, err := w.write(right); err != nil {
			t.Errorf("a write: %v", err)
		}
		if took := time.Since(begin); took < 10*time.Millisecond || took >= b.cfg.Pause {
			t.Errorf("a write waited for %v, its node heard of the home's split after 10ms", took)
		}
		cancel()
		join()
	})
}
