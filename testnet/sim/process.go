package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"
	"unsafe"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/route"
)

// errPower is what every operation of a disk answers once the power is gone.
var errPower = errors.New("sim: the power is gone")

const dataPath = "/data"

// computer is what processes run on: what survives a crash, and what is wrong with it.
type computer struct {
	mesh *mesh
	idx  int
	id   anchormesh.NodeID
	zone string

	files   *fsys.Mem
	backend *bolt.Memory
	clock   *simkit.Clock
	disk    *simkit.Disk
	rng     *rand.Rand

	dark  bool // the power is gone: the process ends with this event
	fuse  int  // disk operations until it goes; negative: none is burning
	full  bool // the disk takes no more
	gone  bool // for ever
	alive bool // as gossip would tell, if it were never late
	since time.Duration

	proc     *process // nil: down
	paused   bool
	deferred []func()
}

func newComputer(m *mesh, idx int) *computer {
	rng := m.k.Stream(fmt.Sprintf("machine %d", idx))
	drift := (2*rng.Float64() - 1) * m.cfg.Mesh.Drift
	return &computer{
		mesh: m, idx: idx, id: anchormesh.NodeID(fmt.Sprintf("node-%02d", idx)), zone: fmt.Sprintf("zone-%d", idx%m.cfg.Mesh.Zones),
		files: fsys.NewMem(), backend: bolt.NewMemory(), rng: rng, fuse: -1,
		clock: simkit.NewClock(time.Duration(rng.IntN(3600))*time.Second, drift),
		disk:  simkit.NewDisk(m.k.Stream(fmt.Sprintf("disk %d", idx)), m.cfg.Disk),
	}
}

// burn counts one disk operation and reports whether the power is gone.
func (n *computer) burn() bool {
	if n.fuse == 0 {
		n.dark = true
	}
	if n.fuse > 0 {
		n.fuse--
	}
	return n.dark
}

func (n *computer) hook(op fsys.Op) fsys.Fault {
	switch {
	case op.Changes() && n.burn(), n.dark:
		return fsys.Fault{Err: errPower}
	case n.full && (op.Kind == fsys.OpWrite || op.Kind == fsys.OpPreallocate || op.Kind == fsys.OpCreate):
		return fsys.Fault{Err: fsys.ErrNoSpace}
	}
	return fsys.Fault{}
}

// store is the machine's store file: a transaction is all or nothing, and the power
// may go at any of them.
type store struct {
	*bolt.Memory
	n *computer
}

func (s store) Update(fn func(tx bolt.Tx) error) error {
	switch {
	case s.n.burn():
		return errPower
	case s.n.full:
		return fsys.ErrNoSpace
	}
	return s.Memory.Update(fn)
}

// process is what runs on a machine between two crashes.
type process struct {
	*computer
	dir      *datadir.Dir
	log      *wal.Log
	store    *mvcc.Store
	table    *route.Table
	workers  []*worker
	writer   writer
	groups   map[anchormesh.SegmentID]*group
	host     host
	lessor   lessor
	lines    lines
	stewards map[anchormesh.SegmentID]*tended
	asked    map[int]time.Duration // strangers' questions, rate-limited
}

// options of the log. Housekeeping must run inside Append, on the simulation's one
// goroutine; the option for it is the log's tests' own so far.
func (n *computer) options() wal.Options {
	o := wal.DefaultOptions()
	o.FileBytes, o.CacheBytes, o.CarryBytes = n.mesh.cfg.Mesh.LogFileBytes, 8<<10, 4<<10
	inline := reflect.ValueOf(&o).Elem().FieldByName("inline")
	reflect.NewAt(inline.Type(), unsafe.Pointer(inline.UnsafeAddr())).Elem().SetBool(true)
	return o
}

// boot starts a process from what the disk holds.
func (n *computer) boot() {
	if n.gone || n.proc != nil {
		return
	}
	p := &process{computer: n, table: route.NewTable(), groups: make(map[anchormesh.SegmentID]*group),
		stewards: make(map[anchormesh.SegmentID]*tended), asked: make(map[int]time.Duration)}
	p.writer.lazy = newLazy()
	p.host.init()
	p.lessor.init(p)
	p.lines.init(p)
	for range n.mesh.cfg.Mesh.Workers {
		p.workers = append(p.workers, newWorker(p))
	}
	n.dark, n.proc, n.paused = false, p, false
	if err := p.open(); err != nil {
		p.broken("boot", err)
	}
	n.mesh.k.Note("boot", n.idx, uint64(len(p.groups)), 0, 0, 0)
	n.settle()
	if n.proc == nil {
		return
	}
	n.setAlive(true)
	p.every(n.mesh.cfg.Mesh.Tick, p.tick)
	p.commitSoon()
	p.every(time.Second, p.steward)
	p.every(5*time.Second, p.exchange)
	p.every(leaseTick, p.lessor.tick)
}

func (p *process) open() error {
	fs := fsys.Wrap(p.files, p.hook)
	var err error
	if p.dir, err = datadir.Open(fs, dataPath); err != nil {
		return err
	}
	if p.log, err = wal.Open(fs, p.dir.Log(), p.options()); err != nil {
		return err
	}
	if p.store, err = mvcc.Open(store{p.backend, p.computer}, mvcc.DefaultOptions()); err != nil {
		return err
	}
	return p.openReplicas()
}

// broken judges an error that stops a process: without power or room it is what a
// machine does, anything else is a defect.
func (p *process) broken(what string, err error) {
	if p.proc != p {
		return // it ended in the middle of this event
	}
	p.mesh.k.Note("stop", p.idx, 0, 0, 0, 0)
	if !p.dark && !errors.Is(err, fsys.ErrNoSpace) {
		p.mesh.fail(fmt.Errorf("node %d: %s: %w", p.idx, what, err))
	}
	p.dark = true
}

// settle ends the process if the power went during the event.
func (n *computer) settle() {
	if n.dark && n.proc != nil {
		n.crash()
	}
}

// crash ends the process at once. The disk keeps what was synced, and of the rest
// what chance leaves.
func (n *computer) crash() {
	p := n.proc
	if p == nil {
		return
	}
	n.mesh.k.Note("crash", n.idx, 0, 0, 0, 0)
	n.mesh.stats.Crashes++
	n.proc, n.paused, n.deferred, n.dark, n.fuse = nil, false, nil, false, -1
	n.files = n.files.CrashClone(n.rng)
	n.backend = n.backend.Clone()
	if n.mesh.cfg.Plant == PlantAmnesia && n.rng.IntN(4) == 0 {
		n.files = fsys.NewMem()
	}
	for _, r := range p.host.sorted() {
		r.closeHub()
	}
	n.setAlive(false)
	n.mesh.connectionsEnd(n)
	n.revive()
}

func (n *computer) setAlive(alive bool) { n.alive, n.since = alive, n.mesh.k.Now() }

// pause stops the process for a while, as a suspended machine does: nothing runs,
// and what arrives waits.
func (n *computer) pause(d time.Duration) {
	if n.proc == nil || n.paused {
		return
	}
	n.mesh.k.Note("pause", n.idx, uint64(d), 0, 0, 0)
	n.paused = true
	n.alive, n.since = false, n.mesh.k.Now()
	p := n.proc
	n.mesh.k.After(d, func() {
		if n.proc != p {
			return
		}
		n.paused = false
		n.setAlive(true)
		todo := n.deferred
		n.deferred = nil
		for _, f := range todo {
			p.do(f)
		}
	})
}

// deferredMax bounds what waits for a paused process, as socket buffers do.
const deferredMax = 4096

// do runs f as an event of this process: not at all if it has ended, later if it is
// paused.
func (p *process) do(f func()) {
	switch {
	case p.computer.proc != p:
	case p.paused:
		if len(p.deferred) < deferredMax {
			p.deferred = append(p.deferred, f)
		}
	default:
		f()
		p.settle()
	}
}

// after runs f later, if the process still runs then.
func (p *process) after(d time.Duration, f func()) {
	p.mesh.k.After(d, func() { p.do(f) })
}

// every runs f again and again, first after a random part of the interval.
func (p *process) every(d time.Duration, f func()) {
	var again func()
	again = func() {
		f()
		p.after(d, again)
	}
	p.after(time.Duration(p.rng.Int64N(int64(d))), again)
}

// now is the time by this machine's clock.
func (p *process) now() time.Time {
	now := p.mesh.k.Now()
	if p.mesh.cfg.Plant == PlantEarlyExpiry {
		now *= 10
	}
	return p.clock.Read(now)
}

// moment is the time that a step of a goroutine takes.
func (p *process) moment() time.Duration {
	return time.Duration(p.rng.ExpFloat64() * float64(100*time.Microsecond))
}

// commitSoon commits the store, and compacts some, at random moments.
func (p *process) commitSoon() {
	wait := time.Duration(p.rng.ExpFloat64() * float64(p.mesh.cfg.Mesh.CommitEvery))
	p.after(wait, func() {
		if p.store.Pending() > 0 {
			if err := p.store.Commit(); err != nil {
				p.broken("commit", err)
				return
			}
		}
		if _, err := p.store.Scrub(1 + p.rng.IntN(64)); err != nil {
			p.broken("scrub", err)
			return
		}
		p.commitSoon()
	})
}
