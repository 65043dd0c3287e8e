package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// crasher cuts the power before operations of a running log and checks what
// would be found after it.
type crasher struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	mem    *fsys.Mem
	opts   Options
	odds   int   // one in odds operations is tried
	sure   model // acknowledged
	maybe  model // with the batch that is under way; nil if there is none
	cuts   int
	depth  int  // of cuts within a recovery
	nested bool // the log just opened is cut, too
}

func (c *crasher) fs() fsys.FS { return fsys.Wrap(c.mem, c.hook) }

func (c *crasher) hook(op fsys.Op) fsys.Fault {
	if op.Changes() && c.rng.IntN(c.odds) == 0 {
		c.cuts++
		c.check(c.mem.CrashClone(c.rng), op.String())
	}
	return fsys.Fault{}
}

// check opens what a power cut left. The recovery itself may be cut again.
func (c *crasher) check(left *fsys.Mem, where string) (*Log, model) {
	fs := fsys.FS(left)
	c.nested = c.depth > 0
	if c.depth < 2 && c.rng.IntN(4) == 0 {
		again := *c
		again.mem, again.depth, again.odds = left, c.depth+1, 4
		fs = again.fs()
		c.nested = true
	}
	l, err := Open(fs, "wal", c.opts)
	if err != nil {
		c.t.Fatalf("seed %d: power cut (depth %d) before %q: %v", c.seed, c.depth, where, err)
	}
	errSure := c.sure.compare(l, true)
	if errSure == nil {
		return c.goOn(left, l, c.sure, where), c.sure
	}
	errMaybe := fmt.Errorf("no batch under way")
	if c.maybe != nil {
		if errMaybe = c.maybe.compare(l, true); errMaybe == nil {
			return c.goOn(left, l, c.maybe, where), c.maybe
		}
	}
	c.t.Fatalf("seed %d: power cut (depth %d) before %q: neither what was acknowledged (%v) nor the batch after it (%v)",
		c.seed, c.depth, where, errSure, errMaybe)
	return nil, nil
}

// goOn lets some recovered logs take more batches, restarts them, and compares.
// The model is left as it is, and so is the log if nothing was appended.
func (c *crasher) goOn(left *fsys.Mem, l *Log, found model, where string) *Log {
	if c.nested || c.maybe == nil || c.rng.IntN(3) > 0 {
		return l
	}
	w := &workload{rng: c.rng, model: found.clone(), groups: 4}
	for range 1 + c.rng.IntN(3) {
		batch := w.batch()
		if err := l.Append(batch); err != nil {
			c.t.Fatalf("seed %d: appending after a power cut before %q: %v", c.seed, where, err)
		}
		w.model.apply(batch)
	}
	l.Close()
	again, err := Open(left, "wal", c.opts)
	if err == nil {
		err = w.model.compare(again, true)
	}
	if err != nil {
		c.t.Fatalf("seed %d: second start after a power cut before %q: %v", c.seed, where, err)
	}
	return again
}

// TestPowerCuts: whatever operation a power cut comes before, everything
// acknowledged is there and the batch under way is there as a whole or not at
// all.
func TestPowerCuts(t *testing.T) {
	lives := uint64(150)
	if testing.Short() {
		lives = 30
	}
	cuts := 0
	for seed := range lives {
		cuts += runCrasher(t, seed)
	}
	t.Logf("%d power cuts", cuts)
	if cuts < int(lives)*10 {
		t.Fatalf("only %d power cuts in %d lives", cuts, lives)
	}
}

func runCrasher(t *testing.T, seed uint64) int {
	rng := rand.New(rand.NewPCG(seed, 99))
	c := &crasher{t: t, seed: seed, rng: rng, mem: fsys.NewMem(), opts: testOptions(), odds: 4, sure: model{}}
	l := mustOpen(t, c.fs(), c.opts)
	w := &workload{rng: rng, model: c.sure, groups: 1 + rng.IntN(6)}
	for step := range 120 {
		switch rng.IntN(12) {
		case 0: // power cut; life goes on with what is left
			left := c.mem.CrashClone(rng)
			back, _ := c.check(left, "a step")
			back.Close()
			c.mem = left
			l = mustOpen(t, c.fs(), c.opts)
		case 1:
			l.Close()
			l = mustOpen(t, c.fs(), c.opts)
		case 2, 3, 4:
			id, mark := w.truncate()
			l.Truncate(id, mark)
		default:
			batch := w.batch()
			c.maybe = c.sure.clone()
			c.maybe.apply(batch)
			if err := l.Append(batch); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			c.sure, c.maybe = c.maybe, nil
			w.model = c.sure
		}
		if err := c.sure.compare(l, true); err != nil {
			t.Fatalf("seed %d step %d: %v", seed, step, err)
		}
	}
	l.Close()
	return c.cuts
}

// TestKilled stops the process before any operation, with the kernel's memory
// intact, and lets the next process go on. A power cut then takes what either
// left unsynced: nothing that the second one showed may be among it.
func TestKilled(t *testing.T) {
	errKilled := errors.New("killed")
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mem := fsys.NewMem()
		life := 1 + rng.IntN(60)
		l, err := Open(fsys.Wrap(mem, func(op fsys.Op) fsys.Fault {
			if op.Changes() {
				life--
			}
			if life < 0 {
				return fsys.Fault{Err: errKilled}
			}
			return fsys.Fault{}
		}), "wal", testOptions())
		w := &workload{rng: rng, model: model{}, groups: 3}
		maybe := w.model
		for err == nil {
			batch := w.batch()
			maybe = w.model.clone()
			maybe.apply(batch)
			if err = l.Append(batch); err == nil {
				w.model = maybe
				continue
			}
			if again := l.Append(nil); again == nil || again.Error() != err.Error() {
				t.Fatalf("seed %d: after %v the log answers %v", seed, err, again)
			}
		}
		mem.FreeLocks()
		l = mustOpen(t, mem, testOptions())
		if err := w.model.compare(l, true); err != nil {
			if w.model = maybe; maybe.compare(l, true) != nil {
				t.Fatalf("seed %d: after the kill: %v", seed, err)
			}
		}
		if rng.IntN(2) == 0 {
			batch := w.batch()
			w.model.apply(batch)
			if err := l.Append(batch); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		left := mustOpen(t, mem.CrashClone(rng), testOptions())
		if err := w.model.compare(left, true); err != nil {
			t.Fatalf("seed %d: shown after the kill, gone after the power cut: %v", seed, err)
		}
	}
}

// TestFailedSync: a sync that failed may have dropped pages that the next
// process still reads. It must not build on them.
func TestFailedSync(t *testing.T) {
	boom := errors.New("boom")
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 5))
		mem := fsys.NewMem()
		l := mustOpen(t, fsys.Wrap(mem, fsys.FailNth(fsys.OpDatasync, ".wal", 1+rng.IntN(8), boom)), testOptions())
		w := &workload{rng: rng, model: model{}, groups: 3}
		for err := error(nil); err == nil; {
			batch := w.batch()
			w.model.apply(batch)
			if err = l.Append(batch); err != nil && !errors.Is(err, boom) {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if _, err := l.Group(1).LastIndex(); !errors.Is(err, boom) {
			t.Fatalf("seed %d: a dead log answers %v", seed, err)
		}
		l.Close()
		mustOpen(t, mem, testOptions())
		left := mustOpen(t, mem.CrashClone(rng), testOptions())
		if err := w.model.compare(left, true); err != nil {
			t.Fatalf("seed %d: shown after the restart, gone after the power cut: %v", seed, err)
		}
	}
}
