package sim

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// Report is what a run came to.
type Report struct {
	Hash    uint64
	Events  uint64
	Elapsed time.Duration // simulated
	Stats   Stats
	History check.History
}

// Failure is a run that broke a promise.
type Failure struct {
	Config Config
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
func Run(cfg Config) (report *Report, err error) { return run(cfg, nil) }

func run(cfg Config, at map[string]func(*process)) (report *Report, err error) {
	old := rand.Reader
	rand.Reader = &chance{mathrand.NewPCG(cfg.Seed, 0xc4a9ce)}
	defer func() { rand.Reader = old }()
	m := newMesh(cfg)
	m.at = at
	defer m.release()
	defer func() {
		if r := recover(); r != nil {
			m.fail(&errPanic{fmt.Sprintf("%v\n%s", r, debug.Stack())})
		}
		report = &Report{Hash: m.k.Trace.Sum(), Events: m.k.Trace.Count(), Elapsed: m.k.Now(), Stats: m.stats, History: m.history}
		if m.err != nil {
			err = &Failure{Config: cfg, At: m.k.Now(), Err: m.err, Last: m.k.Trace.Last()}
		}
	}()
	m.safety()
	if m.err == nil {
		m.liveness()
	}
	if m.err == nil {
		m.verdict()
	}
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
func (m *mesh) release() {
	for _, p := range m.running() {
		for _, r := range p.host.sorted() {
			r.hub.stop()
		}
	}
}

func (m *mesh) stopped() bool { return m.err != nil }

// safety is the first phase: load and faults.
func (m *mesh) safety() {
	for _, n := range m.computers {
		n.boot()
	}
	m.create()
	for i := range m.cfg.Load.Clients {
		c := newClient(m, i)
		m.clients = append(m.clients, c)
		c.begin()
	}
	for i := range m.cfg.Load.Watchers {
		w := newWatcher(m, i)
		m.watchers = append(m.watchers, w)
		w.start()
	}
	m.observe()
	m.k.After(5*time.Second, m.chaos)
	m.k.Run(m.cfg.Length, m.stopped)
}

// create makes the segments at the first node, again until each is there.
func (m *mesh) create() {
	missing := false
	for _, s := range m.segments {
		if m.born[s.id] {
			continue
		}
		missing = true
		if p := m.computers[0].proc; p != nil && !p.paused {
			p.do(func() { p.genesis(s.id, s.rng, m.cfg.Mesh.Want) })
		}
	}
	if missing {
		m.k.After(500*time.Millisecond, m.create)
	}
}

// observe compares states now and then.
func (m *mesh) observe() {
	m.k.After(3*time.Second, func() {
		m.compareStates()
		m.observe()
	})
}

// patience is how long a healed mesh may take to be whole again: what recruiting
// waits for, and every lease's end.
func (m *mesh) patience() time.Duration {
	return 4*time.Minute + 6*m.cfg.Mesh.ReplaceAfter
}

// liveness is the second phase: without faults everything must come to rest.
func (m *mesh) liveness() {
	m.heal()
	begin := m.k.Now()
	settle := begin + time.Duration(2*m.cfg.Load.TTLMax)*time.Second + 30*time.Second
	m.k.Run(settle, m.stopped)
	for m.err == nil {
		reason := m.unsettled()
		if reason == "" {
			break
		}
		if m.k.Now() > begin+m.patience() {
			m.fail(fmt.Errorf("%w: %s", ErrStuck, reason))
			return
		}
		m.k.Run(m.k.Now()+time.Second, m.stopped)
	}
	if m.err == nil {
		m.probe()
	}
}

// timeout is how long a client waits. All nodes are asked for everything at once in the
// end; that may take longer.
func (m *mesh) timeout() time.Duration {
	if m.probing {
		return m.cfg.Load.Timeout + 5*time.Second
	}
	return m.cfg.Load.Timeout
}

// probe writes and reads once more through every node; all must be answered.
func (m *mesh) probe() {
	c := newClient(m, len(m.clients))
	m.probing = true
	open := make(map[string]bool)
	for _, p := range m.running() {
		for _, s := range m.live {
			key := m.keyIn(s)
			letter := segment0(m, s).letter()
			ops := []check.Request{c.put(key, ""), {Kind: check.Range, Key: key}}
			if m.root(s) {
				ops = append(ops, check.Request{Kind: check.Range, Key: letter, End: letter + "0"})
			}
			for i, op := range ops {
				what := fmt.Sprintf("%s %q through node %d (%s, %d)", op.Kind, op.Key, p.idx, s, i)
				open[what] = true
				c.send(p, check.Op{Client: len(open) + 1000, Line: m.lineOf(s), Request: op}, func(ok bool) {
					if ok {
						delete(open, what)
					}
				})
			}
		}
	}
	m.k.Run(m.k.Now()+m.timeout()+time.Second, m.stopped)
	if m.err == nil && len(open) > 0 {
		m.fail(fmt.Errorf("%w: not answered by a healed mesh: %q", ErrStuck, slices.Sorted(maps.Keys(open))))
	}
}

// verdict lets the checkers judge the whole run.
func (m *mesh) verdict() {
	m.compareStates()
	for _, w := range m.watchers {
		w.drain()
	}
	for _, s := range m.segments {
		m.history.Events = append(m.history.Events, m.events[lineOf(s.id)]...)
	}
	for _, id := range m.live {
		if got := m.highest(id); got < m.acked[id] {
			m.fail(fmt.Errorf("segment %s: %w: index %d was acknowledged, %d is the newest", id, check.ErrLost, m.acked[id], got))
		}
	}
	m.resolve()
	dense, split := m.byLine()
	h := &m.history
	bounds := check.LeaseBounds{Early: 50*time.Millisecond + time.Duration(m.jumps)*m.cfg.Mesh.Lease.StepMax, Late: m.k.Now()}
	if m.cfg.Load.Grant > 0 {
		bounds.Late = 25 * time.Second
	}
	for _, judge := range []func() error{
		func() error { return check.Leases(h.Leases, m.k.Now(), bounds) },
		func() error { return check.Watches(h.Watches, h.Events) },
		func() error { return check.Reads(h.Ops, h.Events) },
		func() error { return check.Explained(h.Ops, h.Events) },
		m.judgeOwners,
		m.judgeLineage,
		func() error { return check.Serial(split, h.Events) },
		func() error { return check.LinearizableKeys(split, 2*time.Minute) },
		func() error { return check.Linearizable(dense, 2*time.Minute) },
	} {
		if m.err == nil {
			m.fail(judge())
		}
	}
}

// resolve looks up in the log what became of operations of unknown outcome. The mesh
// is at rest: what is not in the log now never will be.
func (m *mesh) resolve() {
	kept := m.history.Ops[:0]
	for i, op := range m.history.Ops {
		if command, ok := m.unknown[i]; ok {
			done, ok := m.applies[command]
			if !ok {
				continue
			}
			op.Return, op.RevMin, op.RevMax = int64(done.at), done.before, done.after
		}
		kept = append(kept, op)
	}
	m.history.Ops = kept
}

// byLine parts the operations: those of lines that count by one to the end, and those
// of lines that were split.
func (m *mesh) byLine() (dense, split []check.Op) {
	for _, op := range m.history.Ops {
		if m.splitLines[op.Line] {
			split = append(split, op)
		} else {
			dense = append(dense, op)
		}
	}
	return dense, split
}

// compactSome proposes to compact a segment that this node leads.
func (p *process) compactSome() {
	for _, r := range p.host.sorted() {
		d := r.machine.Descriptor()
		g := p.groups[d.Segment]
		if g == nil || !g.leads() || d.Stamped {
			continue
		}
		current, _ := r.machine.Segment().Revision()
		rev := current - p.rng.Int64N(20)
		if rev > 1 {
			p.propose(d.Segment, d.Generation, keyspace.AppendCommand(nil, keyspace.OpCompact, marshal(compaction(rev))), func(consensus.Result) {})
		}
	}
	if s := pick(p.rng, p.mesh.segments...); p.mesh.splitLines[lineOf(s.id)] {
		p.compactScope(s.rng)
	}
}
