package merger

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
)

const (
	// interval is how often the replicas here are looked at.
	interval = 100 * time.Millisecond
	// sweepEvery is how often replicas are looked for that nobody needs any more.
	sweepEvery = 5 * time.Second
	// sweepShare is how many times as long as that took is not looked again.
	sweepShare = 1000
	sweepMost  = 30 * time.Second
	// tick is a driver's clock.
	tick = 25 * time.Millisecond
	// readyTimeout bounds the wait for one node before anything is frozen, and
	// callTimeout any other question.
	readyTimeout = 5 * time.Second
	callTimeout  = time.Second
)

// Mesh is what the merger needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	Connected(id anchormesh.NodeID) bool
}

// Config of a merger.
type Config struct {
	Self   anchormesh.NodeID
	Logger *slog.Logger
	// Ended hears how an attempt driven here ended: in "order" or "load", what was
	// wanted, or in "aborted". It must not block; nil: nobody.
	Ended func(outcome string)
	// Agree has the voters of a led segment vote on an attempt, and returns the command
	// that opens it with their votes; nil: it is proposed as it is.
	Agree func(ctx context.Context, left anchormesh.SegmentID, command []byte) ([]byte, error)
}

// Merger runs attempts to merge.
type Merger struct {
	self   anchormesh.NodeID
	ended  func(outcome string)
	agree  func(ctx context.Context, left anchormesh.SegmentID, command []byte) ([]byte, error)
	host   *host.Host
	engine *consensus.Engine
	table  *route.Table
	mesh   Mesh
	log    *slog.Logger

	ctx  context.Context // ends with Stop
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	drives  map[anchormesh.SegmentID]bool // left segments whose attempt is driven here
	askers  map[anchormesh.SegmentID]*merge.Asker
	asking  map[anchormesh.SegmentID]bool
	stopped bool
}

// New returns a merger; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine, t *route.Table, m Mesh) *Merger {
	ctx, stop := context.WithCancel(context.Background())
	if cfg.Ended == nil {
		cfg.Ended = func(string) {}
	}
	return &Merger{
		self: cfg.Self, ended: cfg.Ended, agree: cfg.Agree, host: h, engine: e, table: t, mesh: m, log: cfg.Logger, ctx: ctx, stop: stop,
		drives: make(map[anchormesh.SegmentID]bool), askers: make(map[anchormesh.SegmentID]*merge.Asker),
		asking: make(map[anchormesh.SegmentID]bool),
	}
}

// Run looks after open attempts and frozen segments until ctx ends.
func (m *Merger) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	begin := time.Now()
	next := begin.Add(sweepEvery)
	for {
		select {
		case <-ctx.Done():
			m.close()
			return nil
		case now := <-ticker.C:
			m.look(now.Sub(begin))
			if !now.Before(next) {
				m.sweep()
				next = now.Add(max(sweepEvery, min(sweepShare*time.Since(now), sweepMost)))
			}
		}
	}
}

// close ends everything under way.
func (m *Merger) close() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
}

// run starts f unless the merger is stopped, or what f does is being done: busy says
// so.
func (m *Merger) run(busy map[anchormesh.SegmentID]bool, id anchormesh.SegmentID, f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || busy[id] {
		return false
	}
	busy[id] = true
	m.wg.Go(func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(busy, id)
		}()
		f()
	})
	return true
}

// look starts what the segments led here need.
func (m *Merger) look(now time.Duration) {
	merging := m.host.Merging()
	m.forgetBut(merging)
	for _, id := range merging {
		r, here := m.host.Get(id)
		st, ok := m.engine.Status(id)
		if !here || !ok || !st.Leads() {
			m.forget(id)
			continue
		}
		state := r.Machine.State()
		if state.Left.Open {
			m.run(m.drives, id, func() {
				d, fx := merge.Inherit(&state.Left)
				m.log.Info("an attempt to merge is aborted: its leader is gone", "segment", id)
				m.newDrive(d, r, st.Term, lineage.Evidence{}).run(fx)
			})
		}
		if state.Right.Frozen && m.asker(id, state).Tick(now) {
			m.run(m.asking, id, func() { m.ask(r, st.Term, state) })
		}
	}
}

func (m *Merger) asker(id anchormesh.SegmentID, state *machine.State) *merge.Asker {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.askers[id]; a != nil && a.Hear(state.Right.By, merge.Aborted) {
		return a
	}
	m.askers[id] = merge.NewAsker(&state.Right)
	return m.askers[id]
}

func (m *Merger) forget(id anchormesh.SegmentID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.askers, id)
}

// forgetBut forgets all that are not among those sorted.
func (m *Merger) forgetBut(merging []anchormesh.SegmentID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.askers {
		if _, still := slices.BinarySearch(merging, id); !still {
			delete(m.askers, id)
		}
	}
}

// ask finds out what became of the attempt that froze a segment led here.
func (m *Merger) ask(r *host.Replica, term uint64, state *machine.State) {
	by, key := &state.Right, state.Descriptor.Range.Start
	left, ok := m.table.Before(key)
	if !ok {
		return
	}
	q := question{kind: askJudge, number: uint64(left.Segment), key: key, attempt: by.By, pair: by.Pair}
	answer, ok := m.inquire(left, &q)
	if !ok || len(answer) != 1 || m.overtaken(state) {
		return
	}
	if merge.NewAsker(by).Hear(by.By, merge.Verdict(answer[0])) {
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		defer cancel()
		m.log.Info("a segment is thawed: the merge was aborted", "segment", state.Descriptor.Segment)
		if _, err := m.propose(ctx, state, term, machine.Thaw(by.By, merge.Verdict(answer[0]))); err != nil {
			m.log.Warn("a segment could not be thawed; it is tried again", "segment", state.Descriptor.Segment, "err", err)
		}
	}
}

// inquire asks a segment's leader, or whoever may be it: the one last seen, then the
// anchors in turn. Who does not lead says so at once.
func (m *Merger) inquire(d *anchormesh.Descriptor, q *question) ([]byte, bool) {
	for _, node := range m.table.Candidates(d) {
		if node != m.self && !m.mesh.Connected(node) {
			continue
		}
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		answer, err := m.call(ctx, node, q)
		cancel()
		if err == nil {
			return answer, true
		}
	}
	return nil, false
}

// sweep gives up replicas here that nobody needs any more: of segments that were
// absorbed, while this node had nothing of the left, by the word of who holds their
// keys now. It needs no tombstone, and so no memory of how long ago that was.
func (m *Merger) sweep() {
	for _, r := range m.host.Stray() {
		was := r.Machine.Descriptor()
		now, ok := m.table.Lookup(was.Range.Start)
		if !ok || now.Segment == was.Segment {
			continue
		}
		m.run(m.asking, was.Segment, func() {
			q := question{kind: askOwner, number: uint64(now.Segment), key: was.Range.Start}
			answer, ok := m.inquire(now, &q)
			if g, n := binary.Uvarint(answer); ok && n > 0 && anchormesh.Generation(g) > was.Generation {
				m.log.Info("a replica's keys belong to a later segment", "segment", was.Segment, "generation", was.Generation, "to", now.Segment, "in", g)
				m.host.Superseded(r)
			}
		})
	}
}

// overtaken reports whether somebody claims the keys of a frozen segment with a higher
// generation. It may be a wrong hint, but then it is worth waiting for a better one.
func (m *Merger) overtaken(state *machine.State) bool {
	d, ok := m.table.Lookup(state.Descriptor.Range.Start)
	return ok && d.Segment != state.Descriptor.Segment && d.Generation > state.Descriptor.Generation
}

// propose puts a structural command into the log of a segment led here, and returns its
// index.
func (m *Merger) propose(ctx context.Context, state *machine.State, term uint64, command []byte) (uint64, error) {
	done := make(chan consensus.Result, 1)
	m.engine.Submit(state.Descriptor.Segment, consensus.Proposal{
		Generation: state.Descriptor.Generation, Term: term, Alone: true, Payload: command,
		Done: func(res consensus.Result) { done <- res },
	})
	select {
	case res := <-done:
		return res.Index, res.Err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
