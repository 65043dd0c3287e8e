package turns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
)

const (
	// look is how often hand-overs are looked for that nobody drives.
	look = 250 * time.Millisecond
	// askPause is the pause before segments that moved or were busy are asked again.
	askPause = 5 * time.Millisecond
	// segmentsAtOnce bounds how many segments are asked at the same time.
	segmentsAtOnce = 32
)

// Engine is what hand-overs need of consensus.Engine.
type Engine interface {
	Submit(segment anchormesh.SegmentID, p consensus.Proposal)
	ReadIndex(segment anchormesh.SegmentID, done func(index uint64, err error))
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
}

// Lines are what they need of the lines of revisions; *stamps.Lines is one.
type Lines interface {
	Cede(ctx context.Context, outer []byte, by anchormesh.SegmentID, keys anchormesh.KeyRange, above anchormesh.Revision) (anchormesh.Revision, error)
	AskAdopt(ctx context.Context, d *anchormesh.Descriptor, adoption []byte) ([]byte, error)
}

// Config of Turns.
type Config struct {
	// Patience is how long the others are waited for before a hand-over is turned back.
	Patience time.Duration
	Logger   *slog.Logger
	// Ended is told of each hand-over: whether it got where it went, and how long the
	// home served nothing.
	Ended func(own, turnedBack bool, silent time.Duration)
}

// Turns drives the hand-overs whose homes this node leads.
type Turns struct {
	cfg    Config
	host   *host.Host
	engine Engine
	lines  Lines
	table  *route.Table
	kick   chan struct{}

	mu      sync.Mutex
	driven  map[anchormesh.SegmentID]bool
	tried   map[anchormesh.SegmentID]time.Time
	running sync.WaitGroup
}

// New returns hand-overs that Run drives.
func New(cfg Config, h *host.Host, e Engine, l Lines, t *route.Table) *Turns {
	return &Turns{cfg: cfg, host: h, engine: e, lines: l, table: t, kick: make(chan struct{}, 1), driven: make(map[anchormesh.SegmentID]bool), tried: make(map[anchormesh.SegmentID]time.Time)}
}

// Kick makes Run look at once.
func (x *Turns) Kick() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

// Run drives until ctx ends.
func (x *Turns) Run(ctx context.Context) error {
	defer x.running.Wait()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-x.kick:
		}
		for _, id := range x.host.Turning() {
			r, here := x.host.Get(id)
			if !here {
				continue
			}
			s := r.Machine.State()
			if s.Turn.Phase != machine.Settled {
				x.start(ctx, r, x.drive)
			} else if line, ok := wanted(s); ok && time.Now().After(x.rested(id)) {
				if line == nil {
					line = x.outer(s.Descriptor.Scope)
				}
				x.start(ctx, r, func(ctx context.Context, r *host.Replica, _ uint64) { x.follow(ctx, r, line) })
			}
		}
	}
}

// rest is the pause after a hand-over that a policy asks for and that could not be made.
const rest = time.Second

func (x *Turns) rested(home anchormesh.SegmentID) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tried[home].Add(rest)
}

// outer is the line of the scope around one, as far as this node knows.
func (x *Turns) outer(scope []byte) []byte {
	for n := len(scope) - 1; n > 0; n-- {
		if d, ok := x.table.Lookup(scope[:n]); ok && d.Home() && len(d.Scope) == n {
			return d.Line
		}
	}
	return nil
}

// follow makes the hand-over that a policy asks for.
func (x *Turns) follow(ctx context.Context, r *host.Replica, to []byte) {
	short, cancel := context.WithTimeout(ctx, x.cfg.Patience)
	defer cancel()
	d := r.Machine.Descriptor()
	x.mu.Lock()
	x.tried[d.Segment] = time.Now()
	x.mu.Unlock()
	if err := x.turn(short, r, to); err != nil {
		x.cfg.Logger.Info("the policy asks for another line of revisions, and the scope cannot change now", "scope", string(d.Scope),
			"from", string(d.Line), "to", string(to), "err", err)
	}
}

// start runs a task of a home that this node leads, one at a time.
func (x *Turns) start(ctx context.Context, r *host.Replica, task func(context.Context, *host.Replica, uint64)) {
	id := r.Machine.Descriptor().Segment
	st, ok := x.engine.Status(id)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !ok || !st.Leads() || x.driven[id] {
		return
	}
	x.driven[id] = true
	x.running.Go(func() {
		task(ctx, r, st.Term)
		x.mu.Lock()
		delete(x.driven, id)
		x.mu.Unlock()
		x.Kick()
	})
}

// turn begins to hand the keys of the scope that begins with a segment over to a line,
// if every segment answers: before anything stops.
func (x *Turns) turn(ctx context.Context, r *host.Replica, to []byte) error {
	s := r.Machine.State()
	st, ok := x.engine.Status(s.Descriptor.Segment)
	if !ok || !st.Leads() {
		return line.ErrNotLeader
	}
	if err := x.adopted(ctx, s, nil); err != nil {
		return fmt.Errorf("a segment of the scope does not answer: %w", err)
	}
	return x.submit(ctx, r, st.Term, machine.Turning(to))
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(askPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// submit puts a command into the log of a segment that is led here in a term.
func (x *Turns) submit(ctx context.Context, r *host.Replica, term uint64, command []byte) error {
	d := r.Machine.Descriptor()
	done := make(chan error, 1)
	x.engine.Submit(d.Segment, consensus.Proposal{
		Generation: d.Generation, Term: term, Alone: true, Payload: command,
		Done: func(res consensus.Result) { done <- res.Err },
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drive does what is next until the hand-over is over, or this node leads no more.
func (x *Turns) drive(ctx context.Context, r *host.Replica, term uint64) {
	begun, began := r.Machine.State().Turn, time.Now()
	for {
		s := r.Machine.State()
		st, ok := x.engine.Status(s.Descriptor.Segment)
		if s.Turn.Phase == machine.Settled || !ok || !st.Leads() || st.Term != term || ctx.Err() != nil {
			break
		}
		err := x.step(ctx, r, term, s)
		if err == nil {
			continue
		}
		x.cfg.Logger.Warn("a hand-over of a line of revisions waits", "segment", s.Descriptor.Segment, "from", string(s.Turn.From),
			"to", string(s.Turn.To), "phase", s.Turn.Phase.String(), "err", err)
		if to, can := back(s); can {
			_ = x.submit(ctx, r, term, machine.Turning(to)) // refused: then it is looked at again
		}
		if pause(ctx) != nil {
			break
		}
	}
	now := r.Machine.State()
	if now.Turn.Phase == machine.Settled {
		x.over(now, &begun, time.Since(began))
	}
}

func (x *Turns) over(now *machine.State, begun *machine.Turn, took time.Duration) {
	d := now.Descriptor
	backed := !bytes.Equal(d.Line, begun.To)
	x.cfg.Logger.Info("line of revisions handed over", "segment", d.Segment, "generation", d.Generation, "from", string(begun.From),
		"to", string(d.Line), "turned_back", backed, "counts", now.Counts(), "window", now.Window, "took", took)
	if x.cfg.Ended != nil {
		x.cfg.Ended(d.LineHome(), backed, took)
	}
}

func (x *Turns) step(ctx context.Context, r *host.Replica, term uint64, s *machine.State) error {
	d, t := s.Descriptor, &s.Turn
	wait := x.cfg.Patience
	if next(s) == spread {
		wait = time.Hour // nobody waits for it
	}
	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	keys := anchormesh.PrefixRange(d.Range.Start)
	switch next(s) {
	case gather:
		if err := x.adopted(short, s, &machine.Switching{By: d.Segment, Number: t.Number, Line: t.To, Home: d.Segment}); err != nil {
			return err
		}
		base, err := x.lines.Cede(short, t.From, d.Segment, keys, t.Above)
		if err != nil {
			return err
		}
		return x.submit(short, r, term, machine.Begin(t.Number, base))
	case resume:
		return x.submit(short, r, term, machine.Begin(t.Number, t.Above))
	case join:
		outer, ok := x.table.Lookup(t.To)
		if !ok || !bytes.Equal(outer.Range.Start, t.To) || !outer.LineHome() {
			return fmt.Errorf("the home of the line of %q is not known", t.To)
		}
		if _, err := x.lines.Cede(short, t.To, d.Segment, keys, t.Above); err != nil {
			return err
		}
		return x.submit(short, r, term, machine.Switch(&machine.Switching{By: d.Segment, Number: t.Number, Line: t.To, Home: outer.Segment}))
	case spread:
		a := &machine.Switching{By: d.Segment, Number: t.Number, Line: t.To, Home: anchormesh.SegmentID(s.Line)}
		if err := x.adopted(short, s, a); err != nil {
			return err
		}
		return x.submit(short, r, term, machine.Settle(t.Number))
	}
	return nil
}

// adopted returns when every other segment of the home's scope that is on one of the two
// lines has adopted; without an adoption when every one has answered.
func (x *Turns) adopted(ctx context.Context, s *machine.State, a *machine.Switching) error {
	home := s.Descriptor
	keys := anchormesh.PrefixRange(home.Range.Start)
	have := []anchormesh.KeyRange{home.Range}
	var mu sync.Mutex
	var last error
	for {
		parts, whole := x.table.Covering(keys)
		if whole && !within(parts, keys) {
			return fmt.Errorf("%w: keys of the scope share a segment with others", machine.ErrRefused)
		}
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(segmentsAtOnce)
		for _, d := range parts {
			if d.Segment == home.Segment || covers(have, d.Range) {
				continue
			}
			group.Go(func() error {
				got, err := x.wish(inner, d, &s.Turn, a)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					last = err
				} else if got != nil {
					have = append(have, *got)
				}
				return nil
			})
		}
		_ = group.Wait()
		if covers(have, keys) {
			return nil
		}
		if err := pause(ctx); err != nil {
			return errors.Join(err, last)
		}
	}
}

// within reports whether segments hold keys of a range only.
func within(parts []*anchormesh.Descriptor, keys anchormesh.KeyRange) bool {
	for _, d := range parts {
		if !keys.Covers(d.Range) {
			return false
		}
	}
	return true
}
