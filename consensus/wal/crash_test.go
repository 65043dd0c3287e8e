package wal

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// crasher cuts the power before operations of a running log and checks what
// would be found after it.
type crasher struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	mem   *fsys.Mem
	opts  Options
	odds  int   // one in odds operations is tried
	sure  model // acknowledged
	maybe model // with the batch that is under way; nil if there is none
	cuts  int
	depth int
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
	if c.depth < 2 && c.rng.IntN(4) == 0 {
		again := *c
		again.mem, again.depth, again.odds = left, c.depth+1, 4
		fs = again.fs()
	}
	l, err := Open(fs, "wal", c.opts)
	if err != nil {
		c.t.Fatalf("seed %d: power cut (depth %d) before %q: %v", c.seed, c.depth, where, err)
	}
	errSure := c.sure.compare(l, true)
	if errSure == nil {
		return l, c.sure
	}
	errMaybe := fmt.Errorf("no batch under way")
	if c.maybe != nil {
		if errMaybe = c.maybe.compare(l, true); errMaybe == nil {
			return l, c.maybe
		}
	}
	c.t.Fatalf("seed %d: power cut (depth %d) before %q: neither what was acknowledged (%v) nor the batch after it (%v)",
		c.seed, c.depth, where, errSure, errMaybe)
	return nil, nil
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

// TestFailedSyncThenRestart: a batch whose sync failed may be found by the next
// process in the kernel's memory. What that process then builds on must survive
// a power cut.
func TestFailedSyncThenRestart(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		mem := fsys.NewMem()
		boom := fmt.Errorf("boom")
		l := mustOpen(t, fsys.Wrap(mem, fsys.FailNth(fsys.OpDatasync, ".wal", 4, boom)), testOptions())
		w := &workload{rng: rng, model: model{}, groups: 3}
		for {
			batch := w.batch()
			err := l.Append(batch)
			w.model.apply(batch)
			if err != nil {
				if again := l.Append(nil); again == nil || again.Error() != err.Error() {
					t.Fatalf("seed %d: after %v the log answers %v", seed, err, again)
				}
				break
			}
		}
		l.Close()
		l = mustOpen(t, mem, testOptions()) // process restart: the page cache is all there
		if err := w.model.compare(l, true); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		left := mustOpen(t, mem.CrashClone(rng), testOptions())
		if err := w.model.compare(left, true); err != nil {
			t.Fatalf("seed %d: seen after the restart, gone after the power cut: %v", seed, err)
		}
	}
}
