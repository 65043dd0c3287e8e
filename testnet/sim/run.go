package sim

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/classes"
	"github.com/anchormesh/anchormesh/testnet/sim/clients"
	"github.com/anchormesh/anchormesh/testnet/sim/dispatch"
	"github.com/anchormesh/anchormesh/testnet/sim/govern"
	"github.com/anchormesh/anchormesh/testnet/sim/leases"
	"github.com/anchormesh/anchormesh/testnet/sim/merger"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/stamps"
	"github.com/anchormesh/anchormesh/testnet/sim/steward"
	"github.com/anchormesh/anchormesh/testnet/sim/txns"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// Report is what a run came to.
type Report struct {
	Hash    uint64
	Events  uint64
	Elapsed time.Duration // simulated
	Stats   witness.Stats
	History check.History
}

// Failure is a run that broke a promise.
type Failure struct {
	Config plan.Config
	At     time.Duration
	Err    error
	Last   []simkit.Note
}

// Error is the whole report: what, where, with which configuration, and what
// happened last.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d at %v: %v\nconfiguration: %+v\nlast events:\n", f.Config.Seed, f.At, f.Err, f.Config)
	for _, n := range f.Last[max(0, len(f.Last)-60):] {
		fmt.Fprintf(&b, "  %v\n", n)
	}
	return b.String()
}

func (f *Failure) Unwrap() error { return f.Err }

// errPanic says that the program stopped itself.
type errPanic struct{ text string }

func (e *errPanic) Error() string { return "panic: " + e.text }

// Run carries one run out. It replaces crypto/rand.Reader meanwhile, which Raft
// draws its election jitter from: one run at a time per process.
func Run(cfg plan.Config) (report *Report, err error) { return run(cfg, nil) }

func run(cfg plan.Config, at map[string]func(*node.Process)) (report *Report, err error) {
	return simulate(cfg, at, (*world).play)
}

// play runs both phases, and judges them.
func (m *world) play() {
	m.safety()
	if m.Err == nil {
		m.liveness()
	}
	if m.Err == nil {
		m.verdict()
	}
}

// simulate makes a world, and lets body run it.
func simulate(cfg plan.Config, at map[string]func(*node.Process), body func(*world)) (report *Report, err error) {
	old := rand.Reader
	rand.Reader = &chance{mathrand.NewPCG(cfg.Seed, 0xc4a9ce)}
	defer func() { rand.Reader = old }()
	m := &world{Mesh: node.NewMesh(cfg), stands: make(map[post]stand)}
	m.Shells = []func(*node.Process) node.Shell{leases.NewLessor, stamps.NewLines, txns.New, dispatch.NewDispatcher, steward.NewSteward, classes.New, govern.NewGovernor, merger.New, approvals.New}
	m.operators = govern.NewOperators(m.Mesh)
	m.At = at
	defer m.release()
	defer func() {
		if r := recover(); r != nil {
			m.Fail(&errPanic{fmt.Sprintf("%v\n%s", r, debug.Stack())})
		}
		report = &Report{Hash: m.K.Trace.Sum(), Events: m.K.Trace.Count(), Elapsed: m.K.Now(), Stats: m.Stats, History: m.History}
		if m.Err != nil {
			err = &Failure{Config: cfg, At: m.K.Now(), Err: m.Err, Last: m.K.Trace.Last()}
		}
	}()
	body(m)
	return nil, nil
}

// chance is a reader of random bytes that one seed determines.
type chance struct{ src *mathrand.PCG }

func (c *chance) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c.src.Uint64())
	}
	return len(p), nil
}

var _ io.Reader = (*chance)(nil)

// release ends the coroutines of the watch hubs, which would keep the mesh in memory.
func (m *world) release() {
	for _, p := range m.Running() {
		for _, r := range p.Host.Sorted() {
			r.Hub.Stop()
		}
	}
}

func (m *world) stopped() bool { return m.Err != nil }

// safety is the first phase: load and faults.
func (m *world) safety() {
	for _, n := range m.Computers {
		n.Boot()
	}
	m.create()
	for i := range m.Cfg.Load.Clients {
		c := clients.NewClient(m.Mesh, i)
		m.clients = append(m.clients, c)
		c.Begin()
	}
	for i := range m.Cfg.Load.Watchers {
		w := clients.NewWatcher(m.Mesh, i)
		m.watchers = append(m.watchers, w)
		w.Start()
	}
	m.observe()
	m.K.After(5*time.Second, m.chaos)
	m.K.Run(m.Cfg.Length, m.stopped)
}

// create makes the segments at the first node, again until each is there.
func (m *world) create() {
	missing := false
	for _, s := range m.Segments {
		if m.Born[s.ID] {
			continue
		}
		missing = true
		if p := m.Computers[0].Proc; p != nil && !p.Paused {
			p.Do(func() { p.Genesis(s.ID, s.Rng, m.Cfg.Mesh.Want) })
		}
	}
	if missing {
		m.K.After(500*time.Millisecond, m.create)
	}
}

// patience is how long a healed mesh may take to be whole again: what recruiting
// waits for, and every lease's end.
func (m *world) patience() time.Duration {
	return 4*time.Minute + 6*m.Cfg.Mesh.ReplaceAfter
}

// liveness is the second phase: without faults everything must come to rest.
func (m *world) liveness() {
	m.heal()
	begin := m.K.Now()
	settle := begin + time.Duration(2*m.Cfg.Load.TTLMax)*time.Second + 30*time.Second
	m.K.Run(settle, m.stopped)
	for m.Err == nil {
		reason := m.unsettled()
		if reason == "" {
			break
		}
		if m.K.Now() > begin+m.patience() {
			m.Fail(fmt.Errorf("%w: %s", ErrStuck, reason))
			return
		}
		m.K.Run(m.K.Now()+time.Second, m.stopped)
	}
	if m.Err == nil {
		m.probe()
	}
}

// probe writes and reads once more through every node; all must be answered.
func (m *world) probe() {
	c := clients.NewClient(m.Mesh, len(m.clients))
	m.Probing = true
	open := make(map[string]bool)
	for _, p := range m.Running() {
		for _, s := range m.Live {
			key := m.keyIn(s)
			letter := node.Segment0(m.Mesh, s).Letter()
			put := c.Put(key, "")
			put.Value = "!" + strconv.FormatInt(int64(len(open)), 36) // short enough for every policy
			ops := []check.Request{put, {Kind: check.Range, Key: key}}
			if m.Root(s) {
				ops = append(ops, check.Request{Kind: check.Range, Key: letter, End: letter + "0"})
			}
			for i, op := range ops {
				what := fmt.Sprintf("%s %q through node %d (%s, %d)", op.Kind, op.Key, p.Index, s, i)
				open[what] = true
				c.Send(p, check.Op{Client: len(open) + 1000, Line: m.LineOf(s), Request: op}, func(ok bool) {
					if ok {
						delete(open, what)
					}
				})
			}
		}
	}
	m.K.Run(m.K.Now()+m.Timeout()+time.Second, m.stopped)
	if m.Err == nil && len(open) > 0 {
		m.Fail(fmt.Errorf("%w: not answered by a healed mesh: %q", ErrStuck, slices.Sorted(maps.Keys(open))))
	}
}

// world is a mesh with its clients.
type world struct {
	*node.Mesh
	clients   []*clients.Client
	watchers  []*clients.Watcher
	operators *govern.Operators
	stands    map[post]stand
	looks     int // at all states
}
