package wal

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
)

// lazyLife writes batches and syncs some of them. states are what the log may be after
// a power cut: as it was at the last sync, and after every batch since.
type lazyLife struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	mem    *fsys.Mem
	states []model
	cuts   int
	lost   int
}

func (c *lazyLife) newest() model { return c.states[len(c.states)-1] }

// cut opens what a power cut leaves and compares it with every state that it may be.
func (c *lazyLife) cut(where string) {
	c.cuts++
	left := c.mem.CrashClone(c.rng)
	l, err := Open(left, "wal", testOptions())
	if err != nil {
		c.t.Fatalf("seed %d: power cut before %q: %v", c.seed, where, err)
	}
	if l.Lost() {
		c.lost++
	}
	for i, m := range c.states {
		if m.compare(l, true) == nil {
			c.goOn(left, l, m, where)
			return
		}
		if i == len(c.states)-1 {
			c.t.Fatalf("seed %d: power cut before %q: none of %d states: synced %v, newest %v",
				c.seed, where, len(c.states), c.states[0].compare(l, true), m.compare(l, true))
		}
	}
}

// goOn appends to some of the recovered logs: nothing that was cut off may come back.
func (c *lazyLife) goOn(left *fsys.Mem, l *Log, found model, where string) {
	w := &workload{rng: c.rng, model: found.clone(), groups: 4}
	batch := w.batch()
	if err := l.Append(batch); err != nil {
		c.t.Fatalf("seed %d: appending after a power cut before %q: %v", c.seed, where, err)
	}
	w.model.apply(batch)
	l.Close()
	again, err := Open(left.CrashClone(c.rng), "wal", testOptions())
	if err == nil {
		err = w.model.compare(again, true)
	}
	if err != nil {
		c.t.Fatalf("seed %d: second power cut after one before %q: %v", c.seed, where, err)
	}
	again.Close()
}

func (c *lazyLife) run() {
	fs := fsys.Wrap(c.mem, func(op fsys.Op) fsys.Fault {
		if op.Changes() && c.rng.IntN(6) == 0 {
			c.cut(op.String())
		}
		return fsys.Fault{}
	})
	l := mustOpen(c.t, fs, testOptions())
	w := &workload{rng: c.rng, model: c.newest(), groups: 1 + c.rng.IntN(6)}
	for range 100 {
		switch c.rng.IntN(8) {
		case 0:
			l.Truncate(w.truncate())
		case 1:
			if err := l.Sync(); err != nil {
				c.t.Fatalf("seed %d: %v", c.seed, err)
			}
			c.states = []model{c.newest()}
		default:
			batch := w.batch()
			next := c.newest().clone()
			next.apply(batch)
			c.states = append(c.states, next)
			if err := l.Write(batch); err != nil {
				c.t.Fatalf("seed %d: %v", c.seed, err)
			}
			w.model = next
		}
		if err := c.newest().compare(l, true); err != nil {
			c.t.Fatalf("seed %d: %v", c.seed, err)
		}
	}
	// A killed process loses nothing that Write returned for.
	c.mem.FreeLocks()
	killed := mustOpen(c.t, c.mem, testOptions())
	if err := c.newest().compare(killed, true); err != nil || killed.Lost() {
		c.t.Fatalf("seed %d: after a kill: %v, lost %v", c.seed, err, killed.Lost())
	}
	// And what the next one has shown is safe from the power.
	left := mustOpen(c.t, c.mem.CrashClone(c.rng), testOptions())
	if err := c.newest().compare(left, true); err != nil {
		c.t.Fatalf("seed %d: shown after the kill, gone after the power cut: %v", c.seed, err)
	}
}

// TestPowerCutsBetweenSyncs: a power cut leaves everything that was synced, and of the
// batches behind it those up to some place, each as a whole.
func TestPowerCutsBetweenSyncs(t *testing.T) {
	lives := uint64(150)
	if testing.Short() {
		lives = 40
	}
	cuts, lost := 0, 0
	for seed := range lives {
		rng := rand.New(rand.NewPCG(seed, 77))
		c := &lazyLife{t: t, seed: seed, rng: rng, mem: fsys.NewMem(), states: []model{{}}}
		c.run()
		cuts, lost = cuts+c.cuts, lost+c.lost
	}
	t.Logf("%d power cuts, %d left whole batches behind a torn one", cuts, lost)
	if cuts < int(lives)*5 || lost == 0 {
		t.Fatalf("%d power cuts in %d lives, %d of them left whole batches behind a torn one", cuts, lives, lost)
	}
}

// TestTheDiskIsNotAskedByWrite: only Sync waits for it.
func TestTheDiskIsNotAskedByWrite(t *testing.T) {
	boom := errors.New("no sync now")
	on := false
	l := mustOpen(t, fsys.Wrap(fsys.NewMem(), func(op fsys.Op) fsys.Fault {
		if on && (op.Kind == fsys.OpDatasync || op.Kind == fsys.OpSync) {
			return fsys.Fault{Err: boom}
		}
		return fsys.Fault{}
	}), testOptions())
	on = true
	w := &workload{rng: rand.New(rand.NewPCG(1, 1)), model: model{}, groups: 2}
	batch := w.batch()
	if err := l.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(); !errors.Is(err, boom) {
		t.Fatalf("the sync ended with %v", err)
	}
	if err := l.Write(batch); !errors.Is(err, boom) {
		t.Fatalf("the write after a failed sync ended with %v", err)
	}
}

// TestThePromiseIsKept: every record of a group states it, and it ends with the group.
func TestThePromiseIsKept(t *testing.T) {
	mem := fsys.NewMem()
	l := mustOpen(t, mem, testOptions())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(l *Log, memory bool) {
		t.Helper()
		if got := l.Group(7).Memory(); got != memory {
			t.Fatalf("acknowledged from memory: %v, want %v", got, memory)
		}
	}
	must(l.Append([]Update{{Group: 7, Snapshot: &Mark{Index: 5, Term: 1}}}))
	want(l, false)
	must(l.Append([]Update{{Group: 7, Promise: Memory}}))
	must(l.Append([]Update{{Group: 7, HardState: &raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(5))}}}))
	l.Close()
	l = mustOpen(t, mem.CrashClone(rand.New(rand.NewPCG(1, 1))), testOptions())
	want(l, true)
	must(l.Append([]Update{{Group: 7, Promise: Disk}}))
	want(l, false)
	must(l.Append([]Update{{Group: 7, Promise: Memory}}))
	must(l.Append([]Update{{Group: 7, Remove: true}}))
	want(l, false)
}
