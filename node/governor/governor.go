package governor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 13

const (
	// interval is how often the homes here are looked at.
	interval = 200 * time.Millisecond
	// callTimeout bounds a question to another node, stepTimeout a round of what is
	// carried out.
	callTimeout = 2 * time.Second
	stepTimeout = 10 * time.Second
	// lookEvery is how often a scope is looked over that nothing is open for.
	lookEvery = 5 * time.Second
	// affirmAfter is how long a proof may take: signatures are asked for again after one
	// and after two seconds more.
	affirmAfter = 4 * time.Second
	// expiry is how long a proposal stays open where the policy does not say.
	expiry = 10 * time.Minute
	// homeWait is how long an operator's request waits for a home to have a leader.
	homeWait = 5 * time.Second
	// orderKept is how long it is tried to carry out an order that was decided.
	orderKept = time.Minute
)

// Mesh is what the governor needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	Connected(id anchormesh.NodeID) bool
}

// Config of a governor. Its functions must not call back.
type Config struct {
	Self   anchormesh.NodeID
	Logger *slog.Logger
	// Sign signs with the node's key.
	Sign func(statement []byte) ([]byte, error)
	// Compile says why a rule cannot be compiled; nil: they are trusted.
	Compile policy.Compile
	// Split cuts a segment led here by a decision; see package steward.
	Split func(ctx context.Context, segment anchormesh.SegmentID, split *machine.Split, by *machine.Decision) error
	// Merge and Move carry out orders to a segment led here; dry ones are only looked at.
	Merge    func(ctx context.Context, left anchormesh.SegmentID, by *machine.Decision) error
	CanMerge func(ctx context.Context, left anchormesh.SegmentID) error
	Move     func(segment anchormesh.SegmentID, from, to anchormesh.NodeID, dry bool) error
	// Group says whether an anchor of a segment led here is missing or lags, and
	// whether a change of it is under way.
	Group func(anchormesh.SegmentID) (degraded, changing bool)
	// Proof returns what proves an entry of a lineage, nil if it is not complete yet.
	Proof func(segment anchormesh.SegmentID, entry anchormesh.Hash) *lineage.Proof
	// Recover makes the replica of a segment here the only one of a new generation.
	Recover func(segment anchormesh.SegmentID, how host.Order) (*anchormesh.Descriptor, error)
	// Number returns a number of a line that is above all that it gave before.
	Number   func(ctx context.Context, line []byte) (anchormesh.Revision, error)
	Listener Listener
}

// Listener hears what happens; fields may be nil. Funcs must not block.
type Listener struct {
	Proposed func(kind string)
	Voted    func(verdict string) // approve or refuse
	Ended    func(kind, outcome string)
}

// Governor governs the scopes whose homes are here, and votes for this node.
type Governor struct {
	cfg    Config
	host   *host.Host
	engine *consensus.Engine
	table  *route.Table
	mesh   Mesh
	kick   chan struct{}

	ctx  context.Context // ends with Run
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	stopped  bool
	busy     map[task]bool
	seen     map[task]time.Time            // when this node, leading a home, saw a proposal first
	unproven map[unproven]time.Time        // since when a proof is waited for
	active   map[anchormesh.SegmentID]bool // homes for which something is to be done, perhaps
}

// unproven is a home's decision whose proof is waited for. A home may wait for two: its
// newest version's and that of what it carries out.
type unproven struct {
	home  anchormesh.SegmentID
	entry anchormesh.Hash
}

// task is something done for a home: for one of its proposals, or (0) for the scope.
type task struct {
	home anchormesh.SegmentID
	term uint64 // 0: a vote
	id   uint64
	lost anchormesh.SegmentID // which is to begin anew
}

// New returns a governor; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine, t *route.Table, m Mesh) *Governor {
	ctx, stop := context.WithCancel(context.Background())
	return &Governor{
		cfg: cfg, host: h, engine: e, table: t, mesh: m, kick: make(chan struct{}, 1), ctx: ctx, stop: stop,
		busy: make(map[task]bool), seen: make(map[task]time.Time), active: make(map[anchormesh.SegmentID]bool),
		unproven: make(map[unproven]time.Time),
	}
}

// Kick makes the governor look at once; it does not block.
func (g *Governor) Kick() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// Run looks after the homes here until ctx ends.
func (g *Governor) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var swept time.Time
	for {
		if now := time.Now(); now.Sub(swept) >= lookEvery {
			swept = now
			g.sweep()
		}
		g.look(time.Now())
		select {
		case <-ctx.Done():
			g.close()
			return nil
		case <-ticker.C:
		case <-g.kick:
		}
	}
}

// Changed is told of every change of a segment's record here; it does not block.
func (g *Governor) Changed(c machine.Change) {
	if c.State.Scope == nil {
		return
	}
	for _, e := range c.Ended {
		g.cfg.Logger.Debug("a proposal has ended", "scope", string(c.State.Descriptor.Scope), "proposal", e.ID, "kind", e.Kind.String(),
			"outcome", e.Outcome.String(), "why", e.Note, "index", e.Index)
		if g.leads(c.State.Descriptor.Segment) && g.cfg.Listener.Ended != nil {
			g.cfg.Listener.Ended(e.Kind.String(), e.Outcome.String())
		}
	}
	if pending(c.State) {
		g.activate(c.State.Descriptor.Segment)
		g.Kick()
	}
}

// pending reports whether something is open at a home, or not in force everywhere.
func pending(s *machine.State) bool {
	r := s.Scope
	return len(r.Open) > 0 || r.Doing != nil || r.Recovering != nil || r.InForce < r.Newest().Number || s.Keeper != nil && len(s.Keeper.Cases) > 0
}

func (g *Governor) activate(id anchormesh.SegmentID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active[id] = true
}

// sweep finds the homes here for which something is to be done: that were opened so, or
// that have strayed segments. A scope inside may have been given back to one at an older
// version.
func (g *Governor) sweep() {
	for _, id := range g.host.ScopeHomes() {
		if h, ok := g.homeOf(id); ok && (pending(h.State) || h.leads && !h.asleep && g.stray(h)) {
			g.activate(id)
		}
	}
}

// close ends everything under way.
func (g *Governor) close() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	g.stop()
	g.wg.Wait()
}

// run starts f unless the governor is stopped or the task is being done.
func (g *Governor) run(t task, f func(ctx context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped || g.busy[t] {
		return
	}
	g.busy[t] = true
	g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, stepTimeout)
		defer cancel()
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.busy, t)
		}()
		f(ctx)
	})
}

// home is a home here, at one moment.
type home struct {
	*machine.State
	segment anchormesh.SegmentID
	term    uint64
	leads   bool
	asleep  bool
}

// homes returns the active homes here.
func (g *Governor) homes() (out []home) {
	g.mu.Lock()
	ids := slices.Sorted(maps.Keys(g.active))
	g.mu.Unlock()
	for _, id := range ids {
		if h, ok := g.homeOf(id); ok {
			out = append(out, h)
		} else {
			g.rested(id)
		}
	}
	return out
}

func (g *Governor) rested(id anchormesh.SegmentID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.active, id)
	maps.DeleteFunc(g.unproven, func(u unproven, _ time.Time) bool { return u.home == id })
}

func (g *Governor) homeOf(id anchormesh.SegmentID) (home, bool) {
	r, here := g.host.Get(id)
	st, ok := g.engine.Status(id)
	if !here || !ok {
		return home{}, false
	}
	s := r.Machine.State()
	if !s.Home() {
		return home{}, false
	}
	return home{State: s, segment: id, term: st.Term, leads: st.Leads(), asleep: st.Asleep}, true
}

// look starts what the homes here need.
func (g *Governor) look(now time.Time) {
	for _, h := range g.homes() {
		g.voteFor(h)
		r := h.Scope
		stray := h.leads && g.stray(h)
		if !pending(h.State) && !stray {
			g.rested(h.segment)
		}
		if !h.leads || h.Merging() {
			continue
		}
		g.expire(now, h)
		g.keep(h)
		for _, p := range []*scope.Proposal{r.Doing, r.Recovering} {
			if p != nil {
				g.run(task{home: h.segment, term: h.term, id: p.ID}, func(ctx context.Context) { g.carryOut(ctx, h, p) })
			}
		}
		// Beside it, not behind it: a scope that is made inside a new one may need a cut in
		// a segment that has not adopted the new one yet. What is being given back is not
		// to be taken again.
		if (r.InForce < r.Newest().Number || stray) && (r.Doing == nil || r.Doing.Kind != scope.Delete) {
			g.run(task{home: h.segment, term: h.term}, func(ctx context.Context) { g.spread(ctx, h) })
		}
	}
}

// stray reports whether the routes show a segment that lags behind the scope's policy.
func (g *Governor) stray(h home) bool {
	d := h.Descriptor
	if h.Scope.Newest().Number == 0 {
		return false
	}
	found, _ := g.table.Covering(anchormesh.PrefixRange(d.Scope))
	return slices.ContainsFunc(found, func(o *anchormesh.Descriptor) bool {
		return len(o.Scope) < len(d.Scope) && len(o.Range.Start) >= len(d.Scope) || bytes.Equal(o.Scope, d.Scope) && o.Policy < h.Scope.Newest().Number
	})
}

// expire ends proposals that were open for too long while this node led.
func (g *Governor) expire(now time.Time, h home) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit := expiry
	if p := h.Policy; p != nil {
		limit = p.AmendExpiry()
	}
	for t := range g.seen {
		if _, open := h.Scope.Proposal(t.id); t.home == h.segment && (t.term != h.term || !open) {
			delete(g.seen, t)
		}
	}
	for _, p := range h.Scope.Open {
		t := task{home: h.segment, term: h.term, id: p.ID}
		if first, ok := g.seen[t]; !ok {
			g.seen[t] = now
		} else if now.Sub(first) >= limit {
			g.seen[t] = now // once more after as long, if it did not work
			g.submit(h, machine.Close(p.ID, scope.Expired, "not decided within "+limit.String()))
		}
	}
}

// submit proposes an entry and waits for nothing.
func (g *Governor) submit(h home, command []byte) {
	g.engine.Submit(h.segment, consensus.Proposal{
		Generation: h.Descriptor.Generation, Term: h.term, Alone: true, Payload: command, Done: func(consensus.Result) { g.Kick() },
	})
}

// propose puts an entry into the log of a segment led here and waits for it.
func (g *Governor) propose(ctx context.Context, h home, command []byte) (uint64, error) {
	done := make(chan consensus.Result, 1)
	g.engine.Submit(h.segment, consensus.Proposal{
		Generation: h.Descriptor.Generation, Term: h.term, Alone: true, Payload: command,
		Done: func(res consensus.Result) { done <- res },
	})
	select {
	case res := <-done:
		g.Kick()
		return res.Index, outcome(res.Err)
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// outcome words the end of an entry.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, scope.ErrBusy):
		return fmt.Errorf("%w: %w", ErrNotNow, err)
	case errors.Is(err, machine.ErrRefused):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.Is(err, consensus.ErrUnknown):
		return ErrUnknown
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err) // no leader, dropped, or of another generation: it took effect nowhere
}
