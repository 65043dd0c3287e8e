package node

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// Process is what runs on a machine between two crashes.
type Process struct {
	*Computer
	dir     *datadir.Dir
	log     *wal.Log
	store   *mvcc.Store
	Table   *route.Table
	workers []*worker
	writer  writer
	Groups  map[anchormesh.SegmentID]*Group
	Host    host
	shells  []Shell
	asked   map[int]time.Duration // strangers' questions, rate-limited
}

// Boot starts a process from what the disk holds.
func (n *Computer) Boot() {
	if n.Gone || n.Proc != nil {
		return
	}
	p := &Process{Computer: n, Table: route.NewTable(), Groups: make(map[anchormesh.SegmentID]*Group),
		asked: make(map[int]time.Duration)}
	p.Table.Follow(func(id anchormesh.SegmentID) anchormesh.NodeID {
		if g := p.Groups[id]; g != nil {
			return g.Status.Leader
		}
		return ""
	})
	p.writer.init()
	p.Host.init()
	for _, make := range n.Mesh.Shells {
		p.shells = append(p.shells, make(p))
	}
	for range n.Mesh.Cfg.Mesh.Workers {
		p.workers = append(p.workers, newWorker(p))
	}
	n.dark, n.Proc, n.last, n.Paused = false, p, p, false
	before := n.Mesh.Acting
	n.Mesh.Acting = p
	defer func() { n.Mesh.Acting = before }()
	if err := p.open(); err != nil {
		p.broken("boot", err)
	}
	n.Mesh.K.Note("boot", n.Index, uint64(len(p.Groups)), 0, 0, 0)
	n.settle()
	if n.Proc == nil {
		return
	}
	n.setAlive(true)
	p.Every(n.Mesh.Cfg.Mesh.Tick, p.tick)
	p.Every(time.Second, p.rest)
	p.commitSoon()
	for _, s := range slices.Backward(p.shells) {
		s.Booted()
	}
}

func (p *Process) open() error {
	fs := fsys.Wrap(p.files, p.hook)
	var err error
	if p.dir, err = datadir.Open(fs, dataPath); err != nil {
		return err
	}
	if p.log, err = wal.Open(fs, p.dir.Log(), p.options()); err != nil {
		return err
	}
	if p.store, err = mvcc.Open(store{p.backend, p.Computer}, mvcc.DefaultOptions()); err != nil {
		return err
	}
	return p.openReplicas()
}

// broken judges an error that stops a process: without power or room it is what a
// Machine does, anything else is a defect.
func (p *Process) broken(what string, err error) {
	if p.Proc != p {
		return // it ended in the middle of this event
	}
	p.Mesh.K.Note("stop", p.Index, 0, 0, 0, 0)
	if p.rot == rotten && damaged(err) {
		p.rot = found
	} else if !p.dark && !errors.Is(err, fsys.ErrNoSpace) {
		p.Mesh.Fail(fmt.Errorf("node %d: %s: %w", p.Index, what, err))
	}
	p.dark = true
}

// Do runs f as an event of this process: not at all if it has ended, later if it is
// paused.
func (p *Process) Do(f func()) {
	switch {
	case p.Computer.Proc != p:
	case p.Paused:
		if len(p.deferred) < deferredMax {
			p.deferred = append(p.deferred, f)
		}
	default:
		before := p.Mesh.Acting
		p.Mesh.Acting = p
		f()
		p.Mesh.Acting = before
		p.settle()
	}
}

// After runs f later, if the process still runs then.
func (p *Process) After(d time.Duration, f func()) {
	p.Mesh.K.After(d, func() { p.Do(f) })
}

// Every runs f again and again, first after a random part of the interval.
func (p *Process) Every(d time.Duration, f func()) {
	var again func()
	again = func() {
		f()
		p.After(d, again)
	}
	p.After(time.Duration(p.Rng.Int64N(int64(d))), again)
}

// Now is the time by this machine's clock.
func (p *Process) Now() time.Time {
	now := p.Mesh.K.Now()
	if p.Mesh.Cfg.Plant == plan.PlantEarlyExpiry {
		now *= 10
	}
	return p.Clock.Read(now)
}

// Moment is the time that a step of a goroutine takes.
func (p *Process) Moment() time.Duration {
	return time.Duration(p.Rng.ExpFloat64() * float64(100*time.Microsecond))
}

// commitSoon commits the store, and compacts some, at random moments.
func (p *Process) commitSoon() {
	wait := time.Duration(p.Rng.ExpFloat64() * float64(p.Mesh.Cfg.Mesh.CommitEvery))
	p.After(wait, func() {
		if p.store.Pending() > 0 {
			if err := p.store.Commit(); err != nil {
				p.broken("commit", err)
				return
			}
		}
		if _, err := p.store.Scrub(1 + p.Rng.IntN(64)); err != nil {
			p.broken("scrub", err)
			return
		}
		p.commitSoon()
	})
}

// Call is a mesh call: ask runs on the other node and may reply once; failed says
// that the node cannot be reached, or did not answer in time.
func (p *Process) Call(to anchormesh.NodeID, ask func(q *Process, reply func(func())), failed func()) {
	n := p.Mesh.Find(to)
	if n == nil || n.Proc == nil || !p.Mesh.Net.Open(p.Index, n.Index) {
		p.After(p.Moment(), failed)
		return
	}
	over := false
	once := func(f func()) {
		if !over {
			over = true
			f()
		}
	}
	p.After(CallTimeout, func() { once(failed) })
	p.Mesh.Net.Stream(p.Index, n.Index, func() {
		q := n.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			ask(q, func(f func()) {
				p.Mesh.Net.Stream(n.Index, p.Index, func() { p.Do(func() { once(f) }) })
			})
		})
	})
}

// CallTimeout is how long a question to another node may take.
const CallTimeout = 2 * time.Second

var ErrNoAnswer = errors.New("sim: a call ended without an answer")

// ErrRetry marks what took effect nowhere.
var ErrRetry = errors.New("sim: took effect nowhere")

// Exchange asks somebody for descriptors.
func (p *Process) Exchange() {
	var others []*Computer
	for _, n := range p.Mesh.Computers {
		if n.Index != p.Index && n.Proc != nil {
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		p.ask(plan.Pick(p.Rng, others...))
	}
}

// stranger asks a node that spoke to a replica which is not here.
func (p *Process) stranger(from anchormesh.NodeID) {
	n := p.Mesh.Find(from)
	now := p.Mesh.K.Now()
	if last, ok := p.asked[n.Index]; ok && now-last < 200*time.Millisecond {
		return
	}
	p.asked[n.Index] = now
	p.ask(n)
}

func (p *Process) ask(n *Computer) {
	p.Mesh.Net.Stream(p.Index, n.Index, func() {
		q := n.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			told := slices.Clone(q.Table.All())
			p.Mesh.Net.Stream(n.Index, p.Index, func() {
				p.Do(func() {
					for _, d := range told {
						p.Hint(d.Clone())
					}
				})
			})
		})
	})
}

// Shell is a part of a process above engine and host.
type Shell interface {
	// booted is called when the process runs.
	Booted()
	// opened is called before a replica's state is used.
	Opened(segment anchormesh.SegmentID, space *keyspace.Space)
	// follows is called when who leads a group has changed.
	Follows(g *Group)
	// changed is called when a replica here has applied a change of its record.
	Changed(r *ReplicaHere, c machine.Change)
	// held is called when a replica here has applied the prepare of a transaction, or its
	// decision, before the proposer hears of it.
	Held(segment anchormesh.SegmentID, h keyspace.Hold)
}

// Quiet is a shell that does nothing; others embed it.
type Quiet struct{}

func (Quiet) Booted() {}

func (Quiet) Opened(anchormesh.SegmentID, *keyspace.Space) {}

func (Quiet) Follows(*Group) {}

func (Quiet) Changed(*ReplicaHere, machine.Change) {}

func (Quiet) Held(anchormesh.SegmentID, keyspace.Hold) {}

// Part finds a process's shell of type T.
func Part[T Shell](p *Process) T {
	for _, s := range p.shells {
		if t, ok := s.(T); ok {
			return t
		}
	}
	panic("sim: a process lacks one of its parts")
}
