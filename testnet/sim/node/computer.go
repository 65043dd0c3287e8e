package node

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
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// errPower is what every operation of a disk answers once the power is gone.
var errPower = errors.New("sim: the power is gone")

const dataPath = "/data"

// Computer is what processes run on: what survives a crash, and what is wrong with it.
type Computer struct {
	Mesh  *Mesh
	Index int
	ID    anchormesh.NodeID
	zone  string

	files   *fsys.Mem
	backend *bolt.Memory
	Clock   *simkit.Clock
	Disk    *simkit.Disk
	Rng     *rand.Rand

	dark  bool // the power is gone: the process ends with this event
	Fuse  int  // disk operations until it goes; negative: none is burning
	Full  bool // the disk takes no more
	Gone  bool // for ever
	rot   rot
	boots int // of the machine, not of processes
	life  life

	Proc     *Process // nil: down
	last     *Process // Proc, or the one before
	Paused   bool
	deferred []func()
}

func NewComputer(m *Mesh, idx int) *Computer {
	rng := m.K.Stream(fmt.Sprintf("machine %d", idx))
	drift := (2*rng.Float64() - 1) * m.Cfg.Mesh.Drift
	return &Computer{
		Mesh: m, Index: idx, ID: anchormesh.NodeID(fmt.Sprintf("node-%02d", idx)), zone: fmt.Sprintf("zone-%d", idx%m.Cfg.Mesh.Zones),
		files: fsys.NewMem(), backend: bolt.NewMemory(), Rng: rng, Fuse: -1,
		Clock: simkit.NewClock(time.Duration(rng.IntN(3600))*time.Second, drift),
		Disk:  simkit.NewDisk(m.K.Stream(fmt.Sprintf("disk %d", idx)), m.Cfg.Disk),
	}
}

// Darken takes the power away in the middle of an event: what it still writes is lost.
func (n *Computer) Darken() { n.dark = true }

// burn counts one disk operation and reports whether the power is gone.
func (n *Computer) burn() bool {
	if n.Fuse == 0 {
		n.dark = true
	}
	if n.Fuse > 0 {
		n.Fuse--
	}
	return n.dark
}

func (n *Computer) hook(op fsys.Op) fsys.Fault {
	switch {
	case op.Changes() && n.burn(), n.dark:
		return fsys.Fault{Err: errPower}
	case n.Full && (op.Kind == fsys.OpWrite || op.Kind == fsys.OpPreallocate || op.Kind == fsys.OpCreate):
		return fsys.Fault{Err: fsys.ErrNoSpace}
	}
	return fsys.Fault{}
}

// store is the machine's store file: a transaction is all or nothing, and the power
// may go at any of them.
type store struct {
	*bolt.Memory
	n *Computer
}

func (s store) Update(fn func(tx bolt.Tx) error) error {
	switch {
	case s.n.burn():
		return errPower
	case s.n.Full:
		return fsys.ErrNoSpace
	}
	return s.Memory.Update(fn)
}

// options of the log. Housekeeping must run inside Append, on the simulation's one
// goroutine; the option for it is the log's tests' own so far.
func (n *Computer) options() wal.Options {
	o := wal.DefaultOptions()
	o.FileBytes, o.CacheBytes, o.CarryBytes = n.Mesh.Cfg.Mesh.LogFileBytes, 8<<10, 4<<10
	inline := reflect.ValueOf(&o).Elem().FieldByName("inline")
	reflect.NewAt(inline.Type(), unsafe.Pointer(inline.UnsafeAddr())).Elem().SetBool(true)
	return o
}

// rot is what became of a changed bit.
type rot int

const (
	sound  rot = iota
	rotten     // a bit was changed behind the process's back
	found      // a process refused to start from that
)

// Rot changes a bit of what is on the disk of a machine that is down, starts a process from
// it, and reports whether that refused: it has to, or the bit was in nothing that is needed.
// The store's file is not subject to it; of that the machine has only what bbolt gives back.
func (n *Computer) Rot() bool {
	if n.files.Flip(n.Rng) == "" {
		return false
	}
	n.rot = rotten
	n.Mesh.K.Note("rot", n.Index, 0, 0, 0, 0)
	n.Boot()
	was := n.rot
	n.rot = sound
	return was == found
}

// damaged reports whether an error says that what is on a disk is not what was written.
func damaged(err error) bool {
	var corrupt *wal.CorruptError
	return errors.As(err, &corrupt) || errors.Is(err, datadir.ErrDamaged) || errors.Is(err, datadir.ErrNewer) || errors.Is(err, wal.ErrForeign) || errors.Is(err, wal.ErrNewer)
}

// settle ends the process if the power went during the event.
func (n *Computer) settle() {
	if n.dark && n.Proc != nil {
		n.Crash()
	}
}

// Crash stops the machine at once. The disk keeps what was synced, and of the rest
// what chance leaves. Where a light segment would lose a majority by that, only the
// process dies: what a majority of machines loses at one moment is lost by permission.
func (n *Computer) Crash() {
	if n.Proc == nil {
		return
	}
	if !n.Mesh.mayReboot(n) {
		n.Kill()
		return
	}
	n.Mesh.K.Note("crash", n.Index, 0, 0, 0, 0)
	n.Mesh.Stats.Crashes++
	n.files = n.files.CrashClone(n.Rng)
	if n.Mesh.Cfg.Plant == plan.PlantAmnesia && n.Rng.IntN(4) == 0 {
		n.files = fsys.NewMem()
	}
	n.boots++
	n.end()
}

// Kill ends the process alone: the kernel keeps what it wrote.
func (n *Computer) Kill() {
	if n.Proc == nil {
		return
	}
	n.Mesh.K.Note("kill", n.Index, 0, 0, 0, 0)
	n.Mesh.Stats.Kills++
	n.files.FreeLocks()
	n.end()
}

// end is what the end of a process is to the others.
func (n *Computer) end() {
	p := n.Proc
	n.Proc, n.Paused, n.deferred, n.dark, n.Fuse = nil, false, nil, false, -1
	n.backend = n.backend.Clone()
	for _, r := range p.Host.Sorted() {
		r.closeHub()
	}
	n.setAlive(false)
	n.Mesh.connectionsEnd(n)
	n.Revive()
}

// life is what gossip would tell of a machine, if it were never late.
type life struct {
	alive bool
	since time.Duration
}

func (n *Computer) setAlive(alive bool) { n.life = life{alive, n.Mesh.K.Now()} }

// Pause stops the process for a while, as a suspended machine does: nothing runs,
// and what arrives waits.
func (n *Computer) Pause(d time.Duration) {
	if n.Proc == nil || n.Paused {
		return
	}
	n.Mesh.K.Note("pause", n.Index, uint64(d), 0, 0, 0)
	n.Paused = true
	n.setAlive(false)
	p := n.Proc
	n.Mesh.K.After(d, func() {
		if n.Proc != p {
			return
		}
		n.Paused = false
		n.setAlive(true)
		todo := n.deferred
		n.deferred = nil
		for _, f := range todo {
			p.Do(f)
		}
	})
}

// deferredMax bounds what waits for a paused process, as socket buffers do.
const deferredMax = 4096

// Defuse ends a power cut that found nothing to cut.
func (n *Computer) Defuse() { n.Fuse = -1 }

// Revive boots the node after a while. A boot that fails (a full disk) is a crash,
// and leads here again.
func (n *Computer) Revive() { n.Mesh.Later(n.Mesh.Span(n.Mesh.Cfg.Faults.Down), n.Boot) }
